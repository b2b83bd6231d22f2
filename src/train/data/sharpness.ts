const { fround } = Math

/** Weight of the pixel itself in the smoothed image; each of its eight neighbours has 1. */
const CENTER = 5
const WEIGHTS = CENTER + 8
const SHARE = 1 / (2 * WEIGHTS)

/**
 * Blends RGB pixels of an image of the given width with its smoothed version, in place, in float32, to the bytes that
 * Pillow 9 gives for factors of 0 to 1: 0 gives the smoothed image, 1 the same one. The border is not smoothed.
 */
export function adjustSharpness(pixels: Uint8Array, width: number, factor: number): void {
  const pitch = 3 * width
  const share = fround(factor)
  let above = pixels.slice(0, pitch)
  let row = pixels.slice(pitch, 2 * pitch)
  const columns = new Uint16Array(pitch)
  for (let start = pitch; start + pitch < pixels.length; start += pitch) {
    const below = pixels.slice(start + pitch, start + 2 * pitch)
    for (let i = 0; i < pitch; i++) columns[i] = (above[i] as number) + (row[i] as number) + (below[i] as number)
    for (let i = 3; i < pitch - 3; i++) {
      const value = row[i] as number
      const sides = (columns[i - 3] as number) + (columns[i + 3] as number)
      const sum = sides + (columns[i] as number) + (CENTER - 1) * value
      // Rounded: an odd number of halves is never on the edge between two integers.
      const smooth = ((2 * sum + WEIGHTS) * SHARE) | 0
      pixels[start + i] = fround(smooth + fround(share * (value - smooth)))
    }
    above = row
    row = below
  }
}
