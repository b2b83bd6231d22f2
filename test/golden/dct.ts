import { coefficientDeviation, coefficientMean } from '#dist/kernels/coefficients.js'
import { spreadBox } from '#dist/train/data/augment.js'
import { dctCoefficients, eachBand, gridSize } from '#dist/train/data/dct.js'
import { transformBlock } from '#dist/train/data/dct-blocks.js'
import { chromaOf, doubled, halve, lumaOf, type Rows, rowsOf } from '#dist/train/data/dct-rows.js'
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

const allFrequencies = Array(8).fill(8)

/** All rows [H, W, 3] side by side. */
function pixelsOf({ width, height, row }: Rows): Uint8Array {
  const pixels = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    for (const [c, channel] of row(y).entries()) {
      for (let x = 0; x < width; x++) pixels[(y * width + x) * 3 + c] = channel[x] ?? 0
    }
  }
  return pixels
}

/** Planes Y, Cb, Cr [3, H, W]. */
function planesOf(image: Image): Uint8Array {
  const { width, height, row } = rowsOf(image)
  const planes = new Uint8Array(3 * width * height)
  const line = (plane: number, y: number) => {
    const start = (plane * height + y) * width
    return planes.subarray(start, start + width)
  }
  for (let y = 0; y < height; y++) {
    lumaOf(row(y), line(0, y))
    chromaOf(row(y), line(1, y), line(2, y))
  }
  return planes
}

/** A plane whose chroma rows are halved, the last one repeated to the height that is wanted. */
function halved({ data, width, height }: Image, outHeight: number, outWidth: number): Uint8Array {
  const out = new Uint8Array(outHeight * outWidth)
  const rowAt = (y: number) => data.subarray(Math.min(y, height - 1) * width, (Math.min(y, height - 1) + 1) * width)
  for (let y = 0; y < outHeight; y++) {
    const row = out.subarray(y * outWidth, (y + 1) * outWidth)
    if (2 * y < height) halve(rowAt(2 * y), rowAt(2 * y + 1), row)
    else out.copyWithin(y * outWidth, (y - 1) * outWidth, y * outWidth)
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
  const out = new Float32Array(gridSize(image.height) * gridSize(image.width) * 192)
  let to = 0
  eachBand(image, (_, { pitch, luma, cb, cr }) => {
    for (let at = 0; at < pitch; at += 8) {
      for (const plane of [luma, cb, cr]) {
        transformBlock(plane, at, pitch, allFrequencies, out, to)
        to += 64
      }
    }
  })
  return channelsFirst(out, 192)
}

function transformed(blocks: Uint8Array): Float32Array {
  const out = new Float32Array(blocks.length)
  for (let at = 0; at < blocks.length; at += 64) transformBlock(blocks, at, 8, allFrequencies, out, at)
  return out
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
      return { img: pixelsOf(doubled(rowsOf(input('img')))) }
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
