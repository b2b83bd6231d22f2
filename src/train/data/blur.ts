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

/**
 * One pass of the extended box filter. A line of `length` pixels stands between margins of radius + 1 pixels, which
 * repeat its ends.
 * @param inner weight of the 2 radius + 1 pixels in the middle, in 2^-24
 * @param outer weight of the two pixels beside them
 */
function boxBlur(from: Uint8Array, to: Uint8Array, length: number, radius: number, inner: number, outer: number): void {
  const margin = radius + 1
  from.fill(from[margin] as number, 0, margin)
  from.fill(from[margin + length - 1] as number, margin + length, length + 2 * margin)
  let sum = 0
  for (let i = 0; i < 2 * radius + 1; i++) sum += from[i] as number
  for (let i = 0; i < length; i++) {
    const left = from[i] as number
    sum += (from[i + 2 * radius + 1] as number) - left
    const ends = left + (from[i + 2 * margin] as number)
    to[margin + i] = (Math.imul(sum, inner) + Math.imul(ends, outer) + (1 << 23)) >>> 24
  }
}

/** Gaussian blur of an RGB image of the given width: three box passes along the rows, then along the columns. */
export function gaussianBlur(pixels: Uint8Array, width: number, sigma: number): void {
  const height = pixels.length / (3 * width)
  const exact = boxRadius(sigma, 3)
  const radius = Math.trunc(exact)
  const inner = Math.trunc(fround((1 << 24) / fround(exact * 2 + 1)))
  const outer = Math.trunc(((1 << 24) - (radius * 2 + 1) * inner) / 2)
  const margin = radius + 1
  const line = new Uint8Array(Math.max(width, height) + 2 * margin)
  const other = new Uint8Array(line.length)
  const blurLine = (at: number, length: number, step: number) => {
    for (let i = 0, from = at; i < length; i++, from += step) line[margin + i] = pixels[from] as number
    boxBlur(line, other, length, radius, inner, outer)
    boxBlur(other, line, length, radius, inner, outer)
    boxBlur(line, other, length, radius, inner, outer)
    for (let i = 0, to = at; i < length; i++, to += step) pixels[to] = other[margin + i] as number
  }
  for (let row = 0; row < height; row++) {
    for (let c = 0; c < 3; c++) blurLine(row * width * 3 + c, width, 3)
  }
  for (let at = 0; at < width * 3; at++) blurLine(at, height, width * 3)
}
