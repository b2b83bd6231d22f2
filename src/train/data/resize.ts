import type { Box, Image, Rows } from './pixels.js'
import { sumMemory as memory, pickBytes, weightedBytes, weightedPixels } from './weighted-sums.js'

// The bytes are those that Pillow 9 gives, whose integer arithmetic this is.

// 22 fractional bits of the weights leave 8 bits for the pixel and 2 for carries.
const WEIGHT_BITS = 22

/** The input pixels that make an output pixel. */
interface Taps {
  /** Of each output pixel; some may weigh 0. */
  readonly count: number
  /** First input pixel of each output pixel. */
  readonly first: Int32Array
  /** [outputs, count] */
  readonly weights: Int32Array
}

/**
 * Taps of the triangle filter, widened by the scale when shrinking (antialiasing), for outputs from..from+length-1.
 * @param flip for the same outputs in reverse order
 */
function triangleTaps(inSize: number, outSize: number, from: number, length: number, flip = false): Taps {
  const scale = inSize / outSize
  const support = Math.max(scale, 1)
  const ranges = Array.from({ length }, (_, i) => {
    const center = (from + (flip ? length - 1 - i : i) + 0.5) * scale
    const begin = Math.max(Math.trunc(center - support + 0.5), 0)
    return { center, begin, end: Math.min(Math.trunc(center + support + 0.5), inSize) }
  })
  const count = ranges.reduce((most, { begin, end }) => Math.max(most, end - begin), 0)
  const first = new Int32Array(length)
  const weights = new Int32Array(length * count)
  const raw = new Float64Array(count)
  for (const [i, { center, begin, end }] of ranges.entries()) {
    let sum = 0
    for (let at = begin; at < end; at++) {
      const weight = Math.max(1 - Math.abs((at - center + 0.5) * (1 / support)), 0)
      raw[at - begin] = weight
      sum += weight
    }
    const start = Math.min(begin, inSize - count)
    first[i] = start
    for (let at = begin; at < end; at++) {
      const share = (raw[at - begin] as number) / sum
      weights[i * count + at - start] = Math.trunc(0.5 + share * (1 << WEIGHT_BITS))
    }
  }
  return { count, first, weights }
}

/** Memory for rows that are resized across already and wait for being resized down: what a cache holds. */
const WAITING_BYTES = 2 ** 18

/**
 * Bilinear resize of an RGB image to width x height, antialiased when shrinking.
 * @param window the part of the result that is computed
 * @param flip whether that part is mirrored left to right
 * @param out receives it, three bytes per pixel
 */
export function resizeBilinearInto(
  image: Image,
  width: number,
  height: number,
  { x, y, w, h }: Box,
  flip: boolean,
  out: Rows,
): void {
  const across = triangleTaps(image.width, width, x, w, flip)
  const down = triangleTaps(image.height, height, y, h)
  const left = Math.min(across.first[0] as number, across.first[w - 1] as number)
  const inBytes = 3 * (Math.max(across.first[0] as number, across.first[w - 1] as number) + across.count - left)
  const outBytes = 3 * w
  const capacity = down.count + Math.floor(WAITING_BYTES / outBytes)
  const { source, waiting, result, offsets, acrossWeights, downWeights } = memory.reserve({
    source: inBytes,
    waiting: capacity * outBytes,
    result: outBytes,
    offsets: 4 * w,
    acrossWeights: 4 * across.weights.length,
    downWeights: 4 * down.weights.length,
  })
  memory.words(offsets, w).set(across.first.map((column) => 3 * (column - left)))
  memory.words(acrossWeights, across.weights.length).set(across.weights)
  memory.words(downWeights, down.weights.length).set(down.weights)
  const sourceRow = memory.bytes(source, inBytes)
  const waitingRows = memory.bytes(waiting, capacity * outBytes)
  const resultRow = memory.bytes(result, outBytes)
  // Rows of the image from `oldest` to `next` wait.
  let oldest = down.first[0] as number
  let next = oldest
  for (let row = 0; row < h; row++) {
    const first = down.first[row] as number
    if (first + down.count - oldest > capacity) {
      waitingRows.copyWithin(0, (first - oldest) * outBytes, (next - oldest) * outBytes)
      oldest = first
    }
    for (; next < first + down.count; next++) {
      const from = 3 * (next * image.width + left)
      sourceRow.set(image.data.subarray(from, from + inBytes))
      const to = waiting + (next - oldest) * outBytes
      weightedPixels(source, offsets, acrossWeights, across.count, to, w, WEIGHT_BITS)
    }
    const from = waiting + (first - oldest) * outBytes
    weightedBytes(from, outBytes, downWeights + 4 * row * down.count, down.count, result, outBytes, WEIGHT_BITS)
    out.data.set(resultRow, out.start + row * out.pitch)
  }
}

/** The whole result of `resizeBilinearInto`, or a part of it. */
export function resizeBilinear(image: Image, width: number, height: number, window?: Box): Image {
  const part = window ?? { x: 0, y: 0, w: width, h: height }
  const data = new Uint8Array(part.w * part.h * 3)
  resizeBilinearInto(image, width, height, part, false, { data, start: 0, pitch: 3 * part.w })
  return { data, width: part.w, height: part.h }
}

/** Input pixel of each of the outputs 0..end-1. Pillow adds up the step, which is not the same as multiplying. */
function nearestIndices(inSize: number, outSize: number, end: number): Int32Array {
  const step = inSize / outSize
  const indices = new Int32Array(end)
  let position = step * 0.5
  for (let i = 0; i < end; i++) {
    indices[i] = Math.min(Math.trunc(position), inSize - 1)
    position += step
  }
  return indices
}

/** Nearest-neighbour resize of a label map; `window`, `flip` and `out`, of a byte per pixel, as in `resizeBilinearInto`. */
export function resizeNearestInto(
  label: Image,
  width: number,
  height: number,
  { x, y, w, h }: Box,
  flip: boolean,
  out: Rows,
): void {
  const columns = nearestIndices(label.width, width, x + w).subarray(x)
  if (flip) columns.reverse()
  const rows = nearestIndices(label.height, height, y + h).subarray(y)
  const { source, offsets, result } = memory.reserve({ source: label.width, offsets: 4 * w, result: w })
  memory.words(offsets, w).set(columns)
  const sourceRow = memory.bytes(source, label.width)
  const resultRow = memory.bytes(result, w)
  for (let row = 0; row < h; row++) {
    if (row === 0 || rows[row] !== rows[row - 1]) {
      const from = (rows[row] as number) * label.width
      sourceRow.set(label.data.subarray(from, from + label.width))
      pickBytes(source, offsets, result, w)
    }
    out.data.set(resultRow, out.start + row * out.pitch)
  }
}

/** The whole result of `resizeNearestInto`, or a part of it. */
export function resizeNearest(label: Image, width: number, height: number, window?: Box): Image {
  const part = window ?? { x: 0, y: 0, w: width, h: height }
  const data = new Uint8Array(part.w * part.h)
  resizeNearestInto(label, width, height, part, false, { data, start: 0, pitch: part.w })
  return { data, width: part.w, height: part.h }
}
