import { sumMemory as memory, weightedBytes } from './weighted-sums.js'

// The bytes are those that Pillow 9 gives: integer arithmetic where Pillow has it, float32 where it has floats.

const { fround } = Math

/** Radius of the extended box filter whose three passes approximate a Gaussian (Gwosdek et al., SSVM 2011). */
function boxRadius(sigma: number, passes: number): number {
  const variance = fround(fround(fround(sigma) * fround(sigma)) / passes)
  const length = fround(Math.sqrt(12 * variance + 1))
  const whole = Math.floor((length - 1) / 2)
  const next = (whole + 1) * (whole + 1)
  const above = fround((2 * whole + 1) * fround(whole * (whole + 1) - fround(3 * variance)))
  return fround(whole + fround(above / fround(6 * fround(variance - next))))
}

const PASSES = 3
const WEIGHT_BITS = 24

/** Weights of the extended box filter, in 2^-24: those of its two ends make up for a radius that is not whole. */
function boxWeights(sigma: number): Int32Array {
  const exact = boxRadius(sigma, PASSES)
  const radius = Math.trunc(exact)
  const inner = Math.trunc(fround((1 << WEIGHT_BITS) / fround(exact * 2 + 1)))
  const outer = Math.trunc(((1 << WEIGHT_BITS) - (radius * 2 + 1) * inner) / 2)
  const weights = new Int32Array(2 * radius + 3).fill(inner)
  weights[0] = outer
  weights[weights.length - 1] = outer
  return weights
}

/** Gaussian blur of an RGB image of the given width: three box passes along the rows, then along the columns. */
export function gaussianBlur(pixels: Uint8Array, width: number, sigma: number): void {
  const weights = boxWeights(sigma)
  const rowBytes = 3 * width
  const height = pixels.length / rowBytes
  // The image stands within margins that repeat its border.
  const margin = (weights.length - 1) / 2
  const pitch = rowBytes + 6 * margin
  const top = margin * pitch
  const bytes = height * pitch
  const { source, target, filter } = memory.reserve({
    source: bytes + 2 * top,
    target: bytes + 2 * top,
    filter: 4 * weights.length,
  })
  memory.words(filter, weights.length).set(weights)
  let from = source
  let to = target
  const boxPass = (step: number, at: number, length: number) => {
    weightedBytes(from + at - margin * step, step, filter, weights.length, to + at, length, WEIGHT_BITS)
    ;[from, to] = [to, from]
  }
  const rowStart = (row: number) => top + row * pitch + 3 * margin

  const image = memory.bytes(from, bytes + 2 * top)
  for (let row = 0; row < height; row++) image.set(pixels.subarray(row * rowBytes, (row + 1) * rowBytes), rowStart(row))
  for (let pass = 0; pass < PASSES; pass++) {
    const rows = memory.bytes(from, bytes + top)
    for (let row = 0; row < height; row++) repeatEnds(rows, rowStart(row), rowBytes, 3, margin)
    // All rows are one line here: what that mixes is in the margins.
    boxPass(3, top + 3 * margin, bytes - 6 * margin)
  }
  for (let pass = 0; pass < PASSES; pass++) {
    repeatEnds(memory.bytes(from, bytes + 2 * top), top, bytes, pitch, margin)
    boxPass(pitch, top, bytes)
  }
  const blurred = memory.bytes(from, bytes + top)
  for (let row = 0; row < height; row++) {
    pixels.set(blurred.subarray(rowStart(row), rowStart(row) + rowBytes), row * rowBytes)
  }
}

/** Repeats the first and the last `unit` bytes of `length` ones `count` times before and behind them. */
function repeatEnds(bytes: Uint8Array, at: number, length: number, unit: number, count: number): void {
  for (let i = 1; i <= count; i++) {
    bytes.copyWithin(at - i * unit, at, at + unit)
    bytes.copyWithin(at + length + (i - 1) * unit, at + length - unit, at + length)
  }
}
