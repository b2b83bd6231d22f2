/**
 * How many horizontal frequencies, from 0 on, are kept of each vertical frequency: those that an upper left corner of the
 * block of coefficients holds.
 */
export type Corner = readonly number[]

export const lumaCorner: Corner = [7, 7, 6, 6, 6, 6, 6]
export const chromaCorner: Corner = [3, 3, 2, 2]

/** Coefficients in a corner. */
export const sizeOf = (corner: Corner): number => corner.reduce((sum, count) => sum + count, 0)

const { imul } = Math
const work = new Int32Array(64)

/**
 * The discrete cosine transform of 8x8 samples in the integers of JPEG at quality 100, where every step of the quantiser is
 * 1: with constants of 13 bits, first along rows, whose results keep 2 bits behind the point, then along columns.
 *
 * @param at place of the first sample
 * @param pitch samples from one row to the next
 * @param corner the coefficients that are kept, into `out` from `to` on
 */
export function transformBlock(
  samples: Uint8Array,
  at: number,
  pitch: number,
  corner: Corner,
  out: Float32Array,
  to: number,
): void {
  for (let y = 0; y < 8; y++) {
    const row = at + y * pitch
    for (let x = 0; x < 8; x++) work[8 * y + x] = (samples[row + x] as number) - 128
    transformLine(8 * y, 1, 2, 0, 11)
  }
  // A vertical frequency keeps no more horizontal ones than the one before.
  const columns = corner[0] ?? 0
  for (let u = 0; u < columns; u++) transformLine(u, 8, 0, 2, 15)
  let next = to
  for (let v = 0; v < corner.length; v++) {
    const count = corner[v] as number
    for (let u = 0; u < count; u++) {
      // What was computed is eight times the coefficient; halves are rounded away from 0.
      const value = work[8 * v + u] as number
      out[next++] = value < 0 ? 0 - ((4 - value) >> 3) : (value + 4) >> 3
    }
  }
}

/**
 * Transforms eight values of `work`, `step` from one to the next, in place.
 * @param up bits by which the sums without constants are shifted up, else `down` to the right
 * @param shift bits by which the sums with constants are shifted to the right; halves are rounded up
 */
function transformLine(at: number, step: number, up: number, down: number, shift: number): void {
  const x0 = work[at] as number
  const x1 = work[at + step] as number
  const x2 = work[at + 2 * step] as number
  const x3 = work[at + 3 * step] as number
  const x4 = work[at + 4 * step] as number
  const x5 = work[at + 5 * step] as number
  const x6 = work[at + 6 * step] as number
  const x7 = work[at + 7 * step] as number
  const s0 = x0 + x7
  const s1 = x1 + x6
  const s2 = x2 + x5
  const s3 = x3 + x4
  const d0 = x0 - x7
  const d1 = x1 - x6
  const d2 = x2 - x5
  const d3 = x3 - x4
  const e0 = s0 - s3
  const e1 = s1 - s2
  const half = (1 << shift) >> 1
  const plainHalf = (1 << down) >> 1
  work[at] = (((s0 + s1 + s2 + s3) << up) + plainHalf) >> down
  work[at + step] = (imul(11363, d0) + imul(9633, d1) + imul(6437, d2) + imul(2260, d3) + half) >> shift
  work[at + 2 * step] = (imul(10703, e0) + imul(4433, e1) + half) >> shift
  work[at + 3 * step] = (imul(9633, d0) - imul(2259, d1) - imul(11362, d2) - imul(6436, d3) + half) >> shift
  work[at + 4 * step] = (((s0 - s1 - s2 + s3) << up) + plainHalf) >> down
  work[at + 5 * step] = (imul(6437, d0) - imul(11362, d1) + imul(2261, d2) + imul(9633, d3) + half) >> shift
  work[at + 6 * step] = (imul(4433, e0) - imul(10704, e1) + half) >> shift
  work[at + 7 * step] = (imul(2260, d0) - imul(6436, d1) + imul(9633, d2) - imul(11363, d3) + half) >> shift
}
