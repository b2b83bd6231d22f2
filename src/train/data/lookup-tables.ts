// Changes of colours that look each byte up in a table, in place. The bytes are those that Pillow 9 gives.

/** Occurrences of each byte in a channel of RGB pixels. */
function histogram(pixels: Uint8Array, channel: number): Uint32Array {
  const counts = new Uint32Array(256)
  for (let at = channel; at < pixels.length; at += 3) {
    const value = pixels[at] as number
    counts[value] = (counts[value] as number) + 1
  }
  return counts
}

/** A table for each channel, from its histogram; null where the channel stays as it is. */
function mapChannels(pixels: Uint8Array, tableOf: (counts: Uint32Array) => Uint8Array | null): void {
  for (let channel = 0; channel < 3; channel++) {
    const table = tableOf(histogram(pixels, channel))
    if (!table) continue
    for (let at = channel; at < pixels.length; at += 3) pixels[at] = table[pixels[at] as number] as number
  }
}

const isUsed = (count: number): boolean => count > 0

/** Stretches each channel so that its smallest value becomes 0 and its largest 255. */
export const autocontrast = (pixels: Uint8Array): void =>
  mapChannels(pixels, (counts) => {
    const [low, high] = [counts.findIndex(isUsed), counts.findLastIndex(isUsed)]
    if (high <= low) return null
    const scale = 255 / (high - low)
    return Uint8Array.from(counts, (_, value) => Math.min(Math.max(Math.trunc(value * scale - low * scale), 0), 255))
  })

/** Makes the values of each channel about equally frequent. */
export const equalize = (pixels: Uint8Array): void =>
  mapChannels(pixels, (counts) => {
    const [low, high] = [counts.findIndex(isUsed), counts.findLastIndex(isUsed)]
    const step = Math.floor((pixels.length / 3 - (counts[high] ?? 0)) / 255)
    if (high <= low || step === 0) return null
    let below = Math.floor(step / 2)
    return Uint8Array.from(counts, (count) => {
      const value = Math.min(255, Math.floor(below / step))
      below += count
      return value
    })
  })

/** Replaces each byte, in place, by the entry of a table of 256. */
export function lookUp(pixels: Uint8Array, table: Uint8Array): void {
  for (let at = 0; at < pixels.length; at++) pixels[at] = table[pixels[at] as number] as number
}

const mapBytes = (pixels: Uint8Array, rule: (value: number) => number): void =>
  lookUp(
    pixels,
    Uint8Array.from({ length: 256 }, (_, value) => rule(value)),
  )

/** Keeps the upper `bits` of each byte. */
export const posterize = (pixels: Uint8Array, bits: number): void =>
  mapBytes(pixels, (value) => value & -(2 ** (8 - bits)))

/** Inverts the bytes from `threshold` on. */
export const solarize = (pixels: Uint8Array, threshold: number): void =>
  mapBytes(pixels, (value) => (value < threshold ? value : 255 - value))
