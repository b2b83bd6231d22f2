// Changes of colours, in place but for `toLuma`. The bytes are those that Pillow 9 gives: integer arithmetic where Pillow
// has it, float32 where it has floats.

const { fround } = Math

/** Luma (ITU-R 601-2) of one pixel. */
function luma(red: number, green: number, blue: number): number {
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
}

/** [H, W, 3] -> [H, W] */
export function toLuma(pixels: Uint8Array): Uint8Array {
  const out = new Uint8Array(pixels.length / 3)
  for (let i = 0, at = 0; i < out.length; i++, at += 3) {
    out[i] = luma(pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number)
  }
  return out
}

/** [H, W, 4] -> [H, W, 3] */
export function cmykToRgb(pixels: Uint8Array): Uint8Array {
  const out = new Uint8Array((pixels.length / 4) * 3)
  for (let from = 0, at = 0; from < pixels.length; from += 4) {
    const light = 255 - (pixels[from + 3] as number)
    for (let c = 0; c < 3; c++, at++) {
      const product = (pixels[from + c] as number) * light + 128
      // The product divided by 255, rounded.
      out[at] = light - (((product >> 8) + product) >> 8)
    }
  }
  return out
}

/** Replaces each colour by its luma. */
export function grayscale(pixels: Uint8Array): void {
  for (let at = 0; at < pixels.length; at += 3) {
    const gray = luma(pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number)
    pixels[at] = gray
    pixels[at + 1] = gray
    pixels[at + 2] = gray
  }
}

/** base + factor (value - base) in float32, cut off to 0..255. */
function blend(base: number, value: number, factor: number): number {
  const mixed = fround(base + fround(factor * (value - base)))
  return mixed <= 0 ? 0 : mixed >= 255 ? 255 : Math.trunc(mixed)
}

/** Blends every byte with one base value. */
function blendAll(pixels: Uint8Array, base: number, factor: number): void {
  const table = Uint8Array.from({ length: 256 }, (_, value) => blend(base, value, factor))
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[pixels[i] as number] as number
}

/** 0 gives black, 1 the same image. */
export function adjustBrightness(pixels: Uint8Array, factor: number): void {
  blendAll(pixels, 0, fround(factor))
}

/** 0 gives the mean luma everywhere, 1 the same image. */
export function adjustContrast(pixels: Uint8Array, factor: number): void {
  let sum = 0
  for (let at = 0; at < pixels.length; at += 3) {
    sum += luma(pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number)
  }
  blendAll(pixels, Math.trunc(sum / (pixels.length / 3) + 0.5), fround(factor))
}

/** 0 gives the luma, 1 the same image. */
export function adjustSaturation(pixels: Uint8Array, factor: number): void {
  const factor32 = fround(factor)
  for (let at = 0; at < pixels.length; at += 3) {
    const red = pixels[at] as number
    const green = pixels[at + 1] as number
    const blue = pixels[at + 2] as number
    const base = luma(red, green, blue)
    pixels[at] = blend(base, red, factor32)
    pixels[at + 1] = blend(base, green, factor32)
    pixels[at + 2] = blend(base, blue, factor32)
  }
}

/** Hue as a byte: 256 steps around the circle. */
function hueOf(red: number, green: number, blue: number, max: number, range: number): number {
  const toRed = fround((max - red) / range)
  const toGreen = fround((max - green) / range)
  const toBlue = fround((max - blue) / range)
  const sixth =
    red === max ? fround(toBlue - toGreen) : green === max ? fround(2 + toRed - toBlue) : fround(4 + toGreen - toRed)
  return Math.trunc(fround((sixth / 6 + 1) % 1) * 255)
}

/** In place: (R, G, B) -> (H, S, V) */
export function rgbToHsv(pixels: Uint8Array): void {
  for (let at = 0; at < pixels.length; at += 3) {
    const red = pixels[at] as number
    const green = pixels[at + 1] as number
    const blue = pixels[at + 2] as number
    const max = Math.max(red, green, blue)
    const range = max - Math.min(red, green, blue)
    pixels[at] = range === 0 ? 0 : hueOf(red, green, blue, max, range)
    pixels[at + 1] = range === 0 ? 0 : Math.trunc(fround(range / max) * 255)
    pixels[at + 2] = max
  }
}

/** Writes the colour of (hue, saturation, value) to pixels[at .. at + 2]. */
function putHsv(pixels: Uint8Array, at: number, hue: number, saturation: number, value: number): void {
  let red = value
  let green = value
  let blue = value
  if (saturation !== 0) {
    const position = (hue * 6) / 255
    const sector = Math.floor(position)
    const fraction = fround(position - sector)
    const s = fround(saturation / 255)
    const low = Math.floor(value * (1 - s) + 0.5)
    const middle =
      sector & 1
        ? Math.floor(value * (1 - fround(s * fraction)) + 0.5)
        : Math.floor(value * (1 - s * (1 - fraction)) + 0.5)
    switch (sector % 6) {
      case 0:
        green = middle
        blue = low
        break
      case 1:
        red = middle
        blue = low
        break
      case 2:
        red = low
        blue = middle
        break
      case 3:
        red = low
        green = middle
        break
      case 4:
        red = middle
        green = low
        break
      default:
        green = low
        blue = middle
    }
  }
  pixels[at] = red
  pixels[at + 1] = green
  pixels[at + 2] = blue
}

/** In place: (H, S, V) -> (R, G, B) */
export function hsvToRgb(pixels: Uint8Array): void {
  for (let at = 0; at < pixels.length; at += 3) {
    putHsv(pixels, at, pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number)
  }
}

/** Byte added to the hue for a factor of -0.5 to 0.5 of the circle. */
export function hueShift(factor: number): number {
  return Math.trunc(factor * 255) & 255
}

/** Turns the hue by `factor` (-0.5 to 0.5) of the circle. */
export function adjustHue(pixels: Uint8Array, factor: number): void {
  const shift = hueShift(factor)
  for (let at = 0; at < pixels.length; at += 3) {
    const red = pixels[at] as number
    const green = pixels[at + 1] as number
    const blue = pixels[at + 2] as number
    const max = Math.max(red, green, blue)
    const range = max - Math.min(red, green, blue)
    if (range === 0) continue
    const hue = (hueOf(red, green, blue, max, range) + shift) & 255
    putHsv(pixels, at, hue, Math.trunc(fround(range / max) * 255), max)
  }
}
