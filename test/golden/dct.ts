import { coefficientDeviation, coefficientMean } from '#dist/kernels/coefficients.js'
import { spreadBox } from '#dist/train/data/augment.js'
import { dctCoefficients, eachBand, gridSize } from '#dist/train/data/dct.js'
import { blockTransform, type Corner } from '#dist/train/data/dct-blocks.js'
import { chromaOf, halve, lumaOf, rowMemory } from '#dist/train/data/dct-kernels.js'
import { EnlargedImage } from '#dist/train/data/dct-rows.js'
import type { Image } from '#dist/train/data/pixels.js'
import { windowStarts } from '#dist/train/evaluation/inference.js'
import { stepOf } from '#dist/train/evaluation/model-input.js'
import type { FileTensor } from '#dist/train/io/safetensors.js'

/** Tables of integer rules about coefficients and their grid. */
export interface GridTables {
  readonly spread_table?: readonly {
    readonly grid: number
    readonly size: number
    readonly source: readonly number[]
  }[]
  readonly grid_size_table?: readonly { readonly size: number; readonly grid: number }[]
  readonly dct_window_table?: readonly {
    readonly grid_window: number
    readonly window: number
    readonly image: readonly [height: number, width: number]
    readonly row_starts_grid: readonly number[]
    readonly row_starts: readonly number[]
    readonly col_starts_grid: readonly number[]
    readonly col_starts: readonly number[]
  }[]
}

type Outputs = Record<string, ArrayLike<number>>

const allFrequencies: Corner = Array(8).fill(8)
/** All coefficients of the three planes. */
const transformAll = blockTransform(allFrequencies, allFrequencies)

/** An image at twice its size, [2H, 2W, 3]. */
function doubled(image: Image): Uint8Array {
  const [width, height] = [2 * image.width, 2 * image.height]
  const enlarged = new EnlargedImage(image, 8 * gridSize(image.width), 8)
  const pixels = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    for (const [c, channel] of enlarged.row(y).entries()) {
      for (let x = 0; x < width; x++) pixels[(y * width + x) * 3 + c] = channel[x] ?? 0
    }
  }
  return pixels
}

/** Planes Y, Cb, Cr [3, H, W]. */
function planesOf({ data, width, height }: Image): Uint8Array {
  const pixels = width * height
  const { r, g, b, y, cb, cr } = rowMemory.reserve(
    Object.fromEntries(['r', 'g', 'b', 'y', 'cb', 'cr'].map((name) => [name, pixels + 32])) as Record<
      'r' | 'g' | 'b' | 'y' | 'cb' | 'cr',
      number
    >,
  )
  for (const [c, address] of [r, g, b].entries()) {
    rowMemory.bytes(address, pixels).set(data.filter((_, i) => i % 3 === c))
  }
  lumaOf([r, g, b], y, pixels)
  chromaOf([r, g, b], cb, cr, pixels)
  return Uint8Array.from([y, cb, cr].flatMap((address) => [...rowMemory.bytes(address, pixels)]))
}

/** A plane whose rows are halved, its right border and then the last halved row repeated to the size that is wanted. */
function halved({ data, width, height }: Image, outHeight: number, outWidth: number): Uint8Array {
  const out = new Uint8Array(outHeight * outWidth)
  const { above, below, to } = rowMemory.reserve({ above: 2 * outWidth, below: 2 * outWidth, to: outWidth + 32 })
  const rowAt = (y: number) => {
    const start = Math.min(y, height - 1) * width
    return Uint8Array.from({ length: 2 * outWidth }, (_, x) => data[start + Math.min(x, width - 1)] ?? 0)
  }
  for (let y = 0; y < outHeight; y++) {
    if (2 * y < height) {
      rowMemory.bytes(above, 2 * outWidth).set(rowAt(2 * y))
      rowMemory.bytes(below, 2 * outWidth).set(rowAt(2 * y + 1))
      halve(above, below, to, outWidth)
    }
    out.set(rowMemory.bytes(to, outWidth), y * outWidth)
  }
  return out
}

/** [H, W, C] → [C, H, W]. */
function channelsFirst(values: Float32Array, channels: number): Float32Array {
  const cells = values.length / channels
  return values.map((_, i) => values[(i % cells) * channels + Math.floor(i / cells)] ?? 0)
}

/** All coefficients of the three planes, [192, gridSize(H), gridSize(W)]. */
function allCoefficients(image: Image): Float32Array {
  const each = gridSize(image.width) * 192
  const out = new Float32Array(gridSize(image.height) * each)
  eachBand(image, (row, band) => transformAll(band, out, row * each))
  return channelsFirst(out, 192)
}

/** All coefficients of blocks [N, 8, 8]. */
export function transformed(blocks: Uint8Array): Float32Array {
  const count = blocks.length / 64
  const luma = Uint8Array.from(blocks, (_, i) => {
    const [y, x] = [Math.floor(i / (8 * count)), i % (8 * count)]
    return blocks[64 * Math.floor(x / 8) + 8 * y + (x % 8)] ?? 0
  })
  const out = new Float32Array(count * 192)
  transformAll({ pitch: 8 * count, luma, cb: luma, cr: luma }, out, 0)
  return out.filter((_, i) => i % 192 < 64)
}

const { fround } = Math

/** What a network reads, [64, gridSize(H), gridSize(W)], in float32. */
const normalized = (image: Image): Float32Array =>
  channelsFirst(
    dctCoefficients(image).map((value, i) => {
      return fround(value - fround(coefficientMean[i % 64] ?? 0)) / fround(coefficientDeviation[i % 64] ?? 0)
    }),
    64,
  )

/** The operations of augment.json about coefficients; undefined for others. */
export function runDctCase(
  op: string,
  input: (name: string) => Image,
  tensor: (name: string) => FileTensor,
  params: { readonly out_h?: number; readonly out_w?: number },
): Outputs | undefined {
  switch (op) {
    case 'bilinear_x2_u8':
      return { img: doubled(input('img')) }
    case 'jpeg_ycc':
      return { ycc: planesOf(input('img')) }
    case 'chroma_half_and_pad':
      return { plane: halved(input('plane'), params.out_h ?? 0, params.out_w ?? 0) }
    case 'fdct_8x8':
      return { coef: transformed(tensor('block').data as Uint8Array) }
    case 'dct_coefficients':
      return { coef: channelsFirst(dctCoefficients(input('img')), 64) }
    case 'dct_coefficients_all':
      return { coef: allCoefficients(input('img')) }
    case 'dct_input':
      return { x: normalized(input('img')) }
    default:
      return undefined
  }
}

/** The tables that a file has: their names, and how many entries are wrong. */
export function wrongEntries(tables: GridTables): Record<string, number> {
  const count = <T>(rows: readonly T[] | undefined, isWrong: (row: T) => boolean) => rows?.filter(isWrong).length
  const same = (a: ArrayLike<number>, b: ArrayLike<number>) => String(Array.from(a)) === String(Array.from(b))
  const counts = {
    spread_table: count(tables.spread_table, ({ grid, size, source }) => {
      // Where a box of one cell lies on the pixels tells which of them have it as the nearest.
      const map = new Uint8Array(size * size)
      const found = Array<number>(size).fill(-1)
      for (let cell = 0; cell < grid; cell++) {
        spreadBox({ x: cell, y: cell, w: 1, h: 1 }, size, map)
        for (let i = 0; i < size; i++) if (map[i * size + i] === 1) found[i] = cell
      }
      return gridSize(size) !== grid || !same(found, source)
    }),
    grid_size_table: count(tables.grid_size_table, ({ size, grid }) => gridSize(size) !== grid),
    dct_window_table: count(tables.dct_window_table, (row) => {
      const step = stepOf('coefficients', row.window)
      const [rows, columns] = row.image.map((extent) => windowStarts(extent, row.window, step))
      const onGrid = (starts: readonly number[] = []) => starts.map((start) => start / 4)
      return (
        gridSize(row.window) !== row.grid_window ||
        !same(rows ?? [], row.row_starts) ||
        !same(columns ?? [], row.col_starts) ||
        !same(onGrid(rows), row.row_starts_grid) ||
        !same(onGrid(columns), row.col_starts_grid)
      )
    }),
  }
  return Object.fromEntries(Object.entries(counts).flatMap(([name, n]) => (n === undefined ? [] : [[name, n]])))
}
