import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { gaussianBlur } from '#dist/train/data/blur.js'
import type { Image } from '#dist/train/data/pixels.js'
import { resizeBilinear, resizeBilinearInto } from '#dist/train/data/resize.js'
import { sumMemory as memory, weightedBytes, weightedPixels } from '#dist/train/data/weighted-sums.js'
import { Random } from '#dist/train/random.js'

function noise(width: number, height: number): Image {
  const random = new Random(width, height)
  return { data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 256)), width, height }
}

/** The sum modulo 2^32 without its last `bits` bits, rounded. */
const rounded = (products: readonly (readonly [number, number])[], bits: number): number =>
  products.reduce((sum, [value, weight]) => sum + Math.imul(value, weight), 1 << (bits - 1)) >>> bits

/** Rows or columns of one channel, resized by the definition: weights of the triangle filter in 22 bits. */
function resizedLine(line: readonly number[], length: number): number[] {
  const scale = line.length / length
  const support = Math.max(scale, 1)
  return Array.from({ length }, (_, i) => {
    const center = (i + 0.5) * scale
    const begin = Math.max(Math.trunc(center - support + 0.5), 0)
    const taps = line.slice(begin, Math.min(Math.trunc(center + support + 0.5), line.length))
    const heights = taps.map((_, k) => Math.max(1 - Math.abs((begin + k - center + 0.5) / support), 0))
    const total = heights.reduce((a, b) => a + b, 0)
    return rounded(
      taps.map((value, k) => [value, Math.trunc(0.5 + ((heights[k] as number) / total) * 2 ** 22)]),
      22,
    )
  })
}

/** The rows of one channel. */
const channelOf = ({ data, width, height }: Image, c: number): number[][] =>
  Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => data[3 * (y * width + x) + c] as number),
  )

const turned = (rows: readonly number[][]): number[][] =>
  (rows[0] ?? []).map((_, x) => rows.map((row) => row[x] as number))

test('bytes are summed with their weights modulo 2^32, whatever their number', () => {
  const random = new Random(7)
  for (const [length, step, count, bits] of [
    [1, 1, 1, 22],
    [15, 3, 5, 24],
    [16, 40, 2, 22],
    [333, 7, 31, 24],
  ] as const) {
    const { from, weights, to } = memory.reserve({ from: length + step * count, weights: 4 * count, to: length })
    const bytes = Array.from({ length: length + step * count }, () => random.integer(0, 256))
    const factors = Array.from({ length: count }, () => random.integer(0, 2 ** 24))
    memory.bytes(from, bytes.length).set(bytes)
    memory.words(weights, count).set(factors)
    weightedBytes(from, step, weights, count, to, length, bits)
    const expected = Array.from({ length }, (_, i) =>
      Math.min(
        255,
        rounded(
          factors.map((factor, k) => [bytes[i + k * step] as number, factor]),
          bits,
        ),
      ),
    )
    assert.equal([...memory.bytes(to, length)], expected, `${length} bytes, ${count} taps`)
  }
})

test('pixels are summed with weights of their own', () => {
  const random = new Random(8)
  const bytes = Array.from({ length: 60 }, () => random.integer(0, 256))
  const begins = [30, 0, 6, 6, 51]
  const factors = begins.flatMap(() => [2 ** 20, 2 ** 21, 2 ** 20])
  const { from, offsets, weights, to } = memory.reserve({ from: 60, offsets: 20, weights: 60, to: 15 })
  memory.bytes(from, 60).set(bytes)
  memory.words(offsets, 5).set(begins)
  memory.words(weights, 15).set(factors)
  weightedPixels(from, offsets, weights, 3, to, 5, 22)
  const expected = begins.flatMap((begin) =>
    [0, 1, 2].map((c) =>
      rounded(
        [0, 1, 2].map((k) => [bytes[begin + 3 * k + c] as number, factors[k] as number]),
        22,
      ),
    ),
  )
  assert.equal([...memory.bytes(to, 15)], expected)
})

test('regions of memory lie apart, also in memory that grows', () => {
  const { a, b } = memory.reserve({ a: 5, b: 3_000_000 })
  assert.ok(a % 4 === 0 && b % 4 === 0 && b >= a + 5)
  memory.bytes(b, 3_000_000).fill(1)
  assert.is(memory.bytes(b + 2_999_999, 1)[0], 1)
})

test('images of many rows are resized as lines are, and mirrored', () => {
  for (const [width, height, newWidth, newHeight] of [
    [500, 40, 900, 260],
    [400, 900, 300, 500],
    [40, 70, 17, 9],
  ] as const) {
    const image = noise(width, height)
    const resized = resizeBilinear(image, newWidth, newHeight)
    const mirror = new Uint8Array(resized.data.length)
    const window = { x: 0, y: 0, w: newWidth, h: newHeight }
    const rows = { data: mirror, start: 0, pitch: 3 * newWidth }
    resizeBilinearInto(image, newWidth, newHeight, window, true, rows)
    for (let c = 0; c < 3; c++) {
      const across = channelOf(image, c).map((row) => resizedLine(row, newWidth))
      const expected = turned(turned(across).map((column) => resizedLine(column, newHeight)))
      assert.equal(channelOf(resized, c), expected)
      assert.equal(
        channelOf({ ...resized, data: mirror }, c),
        expected.map((row) => row.toReversed()),
      )
    }
  }
})

test('blurs images that are smaller than the filter', () => {
  const flat = new Uint8Array(3 * 2).fill(100)
  gaussianBlur(flat, 1, 6)
  assert.equal([...flat], Array(6).fill(100))
})

test.run()
