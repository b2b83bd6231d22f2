// Images as the coefficients of their discrete cosine transform, as Diverse Co-training (arXiv 2308.09281) feeds them to a
// network: those that a JPEG file of quality 100 of the enlarged image holds, to the last bit.

import { chromaCorner, lumaCorner, sizeOf, transformBlock } from './dct-blocks.js'
import { chromaOf, doubled, halve, lumaOf, rowsOf } from './dct-rows.js'
import type { Image } from './pixels.js'

/** Coefficients of each cell of the grid: of luma, then of both chroma planes. */
export const coefficientCount = sizeOf(lumaCorner) + 2 * sizeOf(chromaCorner)

/** Side in pixels of a cell of the grid of coefficients. */
export const cellSide = 4

/** Cells along a side of so many pixels. */
export const gridSize = (pixels: number): number => Math.ceil(pixels / cellSide)

/** Eight rows [8, pitch] of luma and both chroma planes: the blocks of a row of cells. */
export interface Band {
  readonly pitch: number
  readonly luma: Uint8Array
  readonly cb: Uint8Array
  readonly cr: Uint8Array
}

/**
 * Calls `take` with the blocks of each row of cells of an image [H, W, 3]. Luma is that of the image at twice its size, chroma
 * that at four times its size, halved. Enlarged images are held a few rows at a time.
 */
export function eachBand(image: Readonly<Image>, take: (row: number, band: Band) => void): void {
  const two = doubled(rowsOf(image))
  const four = doubled(two)
  const [rows, pitch] = [gridSize(image.height), 8 * gridSize(image.width)]
  const band = () => new Uint8Array(8 * pitch)
  const [luma, cb, cr] = [band(), band(), band()]
  const line = () => new Uint8Array(four.width)
  const [cbAbove, crAbove, cbBelow, crBelow] = [line(), line(), line(), line()]
  for (let row = 0; row < rows; row++) {
    for (let y = 0; y < 8; y++) {
      const [index, at] = [8 * row + y, y * pitch]
      if (index >= two.height) {
        // Below the image its last row is repeated.
        for (const plane of [luma, cb, cr]) plane.copyWithin(at, at - pitch, at)
        continue
      }
      lumaOf(two.row(index), luma.subarray(at, at + pitch))
      chromaOf(four.row(2 * index), cbAbove, crAbove)
      chromaOf(four.row(2 * index + 1), cbBelow, crBelow)
      halve(cbAbove, cbBelow, cb.subarray(at, at + pitch))
      halve(crAbove, crBelow, cr.subarray(at, at + pitch))
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
  const [ofLuma, ofChroma] = [sizeOf(lumaCorner), sizeOf(chromaCorner)]
  let to = 0
  eachBand(image, (_, { pitch, luma, cb, cr }) => {
    for (let at = 0; at < pitch; at += 8, to += coefficientCount) {
      transformBlock(luma, at, pitch, lumaCorner, out, to)
      transformBlock(cb, at, pitch, chromaCorner, out, to + ofLuma)
      transformBlock(cr, at, pitch, chromaCorner, out, to + ofLuma + ofChroma)
    }
  })
  return out
}
