import type { Box, Image } from './pixels.js'

// The bytes are those that Pillow 9 gives, whose integer arithmetic this is.

// 22 fractional bits of the weights leave 8 bits for the pixel and 2 for carries.
const WEIGHT_BITS = 22

interface Taps {
  /** Taps stored per output pixel; unused ones weigh 0. */
  perPixel: number
  /** First input pixel of each output pixel. */
  first: Int32Array
  /** Taps in use of each output pixel. */
  count: Int32Array
  weights: Int32Array
}

/** Weights of the triangle filter, widened by the scale when shrinking (antialiasing), for outputs from..from+length-1. */
function triangleTaps(inSize: number, outSize: number, from: number, length: number): Taps {
  const scale = inSize / outSize
  const support = Math.max(scale, 1)
  const perPixel = Math.ceil(support) * 2 + 1
  const first = new Int32Array(length)
  const count = new Int32Array(length)
  const weights = new Int32Array(length * perPixel)
  const raw = new Float64Array(perPixel)
  for (let i = 0; i < length; i++) {
    const center = (from + i + 0.5) * scale
    const low = Math.max(Math.trunc(center - support + 0.5), 0)
    const taps = Math.min(Math.trunc(center + support + 0.5), inSize) - low
    let sum = 0
    for (let k = 0; k < taps; k++) {
      const weight = Math.max(1 - Math.abs((k + low - center + 0.5) * (1 / support)), 0)
      raw[k] = weight
      sum += weight
    }
    for (let k = 0; k < taps; k++) {
      weights[i * perPixel + k] = Math.trunc(0.5 + ((raw[k] as number) / sum) * (1 << WEIGHT_BITS))
    }
    first[i] = low
    count[i] = taps
  }
  return { perPixel, first, count, weights }
}

/**
 * Bilinear resize of an RGB image to width x height, antialiased when shrinking.
 * With `window`, only that part of the result is computed and returned.
 */
export function resizeBilinear(image: Image, width: number, height: number, window?: Box): Image {
  const { x, y, w, h } = window ?? { x: 0, y: 0, w: width, h: height }
  const across = triangleTaps(image.width, width, x, w)
  const down = triangleTaps(image.height, height, y, h)
  const firstRow = down.first[0] as number
  const lastRow = (down.first[h - 1] as number) + (down.count[h - 1] as number)

  const half = 1 << (WEIGHT_BITS - 1)
  const source = image.data
  const narrow = new Uint8Array((lastRow - firstRow) * w * 3) // [rows in use, w, 3]
  for (let row = firstRow; row < lastRow; row++) {
    let to = (row - firstRow) * w * 3
    for (let i = 0; i < w; i++) {
      let at = (row * image.width + (across.first[i] as number)) * 3
      let tap = i * across.perPixel
      const end = tap + (across.count[i] as number)
      let red = half
      let green = half
      let blue = half
      for (; tap < end; tap++, at += 3) {
        const weight = across.weights[tap] as number
        red += Math.imul(source[at] as number, weight)
        green += Math.imul(source[at + 1] as number, weight)
        blue += Math.imul(source[at + 2] as number, weight)
      }
      narrow[to++] = red >> WEIGHT_BITS
      narrow[to++] = green >> WEIGHT_BITS
      narrow[to++] = blue >> WEIGHT_BITS
    }
  }

  const stride = w * 3
  const data = new Uint8Array(h * stride)
  const sums = new Int32Array(stride)
  for (let row = 0; row < h; row++) {
    sums.fill(half)
    for (let k = 0; k < (down.count[row] as number); k++) {
      const weight = down.weights[row * down.perPixel + k] as number
      const from = ((down.first[row] as number) - firstRow + k) * stride
      for (let i = 0; i < stride; i++) sums[i] = (sums[i] as number) + Math.imul(narrow[from + i] as number, weight)
    }
    const to = row * stride
    for (let i = 0; i < stride; i++) data[to + i] = (sums[i] as number) >> WEIGHT_BITS
  }
  return { data, width: w, height: h }
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

/** Nearest-neighbour resize of a label map; `window` as in `resizeBilinear`. */
export function resizeNearest(label: Image, width: number, height: number, window?: Box): Image {
  const { x, y, w, h } = window ?? { x: 0, y: 0, w: width, h: height }
  const columns = nearestIndices(label.width, width, x + w)
  const rows = nearestIndices(label.height, height, y + h)
  const data = new Uint8Array(w * h)
  let to = 0
  for (let row = y; row < y + h; row++) {
    const from = (rows[row] as number) * label.width
    for (let column = x; column < x + w; column++) data[to++] = label.data[from + (columns[column] as number)] as number
  }
  return { data, width: w, height: h }
}
