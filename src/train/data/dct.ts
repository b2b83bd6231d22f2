// Images as the coefficients of their discrete cosine transform, as Diverse Co-training (arXiv 2308.09281) feeds them to a
// network: those that a JPEG file of quality 100 of the enlarged image holds, to the last bit.

import { type Band, type BlockTransform, blockTransform, type Corner, sizeOf } from './dct-blocks.js'
import { EnlargedImage } from './dct-rows.js'
import type { Image } from './pixels.js'

const lumaCorner: Corner = [7, 7, 6, 6, 6, 6, 6]
const chromaCorner: Corner = [3, 3, 2, 2]
/** Compiled when it is first needed: most programs never do. */
let transform: BlockTransform | undefined

/** Coefficients of each cell of the grid: of luma, then of both chroma planes. */
export const coefficientCount = sizeOf(lumaCorner) + 2 * sizeOf(chromaCorner)

/** Side in pixels of a cell of the grid of coefficients. */
export const cellSide = 4

/** Cells along a side of so many pixels. */
export const gridSize = (pixels: number): number => Math.ceil(pixels / cellSide)

/**
 * Calls `take` with the blocks of each row of cells of an image [H, W, 3]. Luma is that of the image at twice its size, chroma
 * that at four times its size, halved. Enlarged images are held a few rows at a time, in memory that the next call takes.
 */
export function eachBand(image: Readonly<Image>, take: (row: number, band: Band) => void): void {
  const [rows, pitch] = [gridSize(image.height), 8 * gridSize(image.width)]
  const enlarged = new EnlargedImage(image, pitch, 8)
  const [luma, cb, cr] = enlarged.bytesOfPlanes
  for (let row = 0; row < rows; row++) {
    for (let y = 0; y < 8; y++) {
      const index = 8 * row + y
      if (index < enlarged.rows) enlarged.fillPlanes(y, index)
      // Below the image its last row is repeated.
      else for (const plane of [luma, cb, cr]) plane.copyWithin(y * pitch, (y - 1) * pitch, y * pitch)
    }
    take(row, { pitch, luma, cb, cr })
  }
}

/**
 * The coefficients of an image [H, W, 3] on a grid of cells of 4x4 pixels: integers [gridSize(H), gridSize(W), 64], of which
 * a network reads normalised ones.
 * @param out where they go
 */
export function dctCoefficients(
  image: Readonly<Image>,
  out: Float32Array = new Float32Array(gridSize(image.height) * gridSize(image.width) * coefficientCount),
): Float32Array {
  const each = gridSize(image.width) * coefficientCount
  transform ??= blockTransform(lumaCorner, chromaCorner)
  const transformBand = transform
  eachBand(image, (row, band) => transformBand(band, out, row * each))
  return out
}
