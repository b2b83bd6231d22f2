/**
 * Operations on 8-bit pictures that give the bytes that Pillow 9 gives: integer arithmetic where Pillow has it,
 * float32 where it has floats. The `adjust...`, `grayscale` and `gaussianBlur` functions change the pixels in place.
 */

/** An RGB picture, `data` is [H, W, 3]; or a label map, `data` is [H, W]. */
export interface Picture {
  data: Uint8Array
  width: number
  height: number
}

/** A rectangle of pixels. */
export interface Box {
  x: number
  y: number
  w: number
  h: number
}

const { fround } = Math

// Resize: 22 fractional bits of the weights leave 8 bits for the pixel and 2 for carries.
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
 * Bilinear resize of an RGB picture to width x height, antialiased when shrinking.
 * With `window`, only that part of the result is computed and returned.
 */
export function resizeBilinear(image: Picture, width: number, height: number, window?: Box): Picture {
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
export function resizeNearest(label: Picture, width: number, height: number, window?: Box): Picture {
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

/** Part of the size x size crop at (x, y) that lies inside a picture of the given size; the rest is padding. */
export function cropWindow(width: number, height: number, size: number, x: number, y: number): Box {
  return { x, y, w: Math.min(size, width - x), h: Math.min(size, height - y) }
}

/** The rectangle `window` of a picture with `channels` bytes per pixel. */
export function cut(picture: Picture, channels: number, window: Box): Picture {
  const { x, y, w, h } = window
  const data = new Uint8Array(w * h * channels)
  for (let row = 0; row < h; row++) {
    const from = ((y + row) * picture.width + x) * channels
    data.set(picture.data.subarray(from, from + w * channels), row * w * channels)
  }
  return { data, width: w, height: h }
}

/**
 * Writes a picture of at most size x size into the upper left of `out` ([size, size, channels]), `fill` right of it and
 * below, then mirrors the whole left to right if `flip` is set.
 */
export function place(
  picture: Picture,
  channels: number,
  size: number,
  fill: number,
  flip: boolean,
  out: Uint8Array,
): void {
  const { data, width, height } = picture
  if (width < size || height < size) out.fill(fill)
  for (let row = 0; row < height; row++) {
    const from = row * width * channels
    const to = row * size * channels
    if (flip) {
      for (let column = 0; column < width; column++) {
        for (let c = 0; c < channels; c++) {
          out[to + (size - 1 - column) * channels + c] = data[from + column * channels + c] as number
        }
      }
    } else {
      out.set(data.subarray(from, from + width * channels), to)
    }
  }
}

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

/** 0 gives black, 1 the same picture. */
export function adjustBrightness(pixels: Uint8Array, factor: number): void {
  blendAll(pixels, 0, fround(factor))
}

/** 0 gives the mean luma everywhere, 1 the same picture. */
export function adjustContrast(pixels: Uint8Array, factor: number): void {
  let sum = 0
  for (let at = 0; at < pixels.length; at += 3) {
    sum += luma(pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number)
  }
  blendAll(pixels, Math.trunc(sum / (pixels.length / 3) + 0.5), fround(factor))
}

/** 0 gives the luma, 1 the same picture. */
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

/** Gaussian blur of an RGB picture of the given width: three box passes along the rows, then along the columns. */
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

/** ImageNet mean and standard deviation of the channels, for pixels scaled to 0..1. */
export const MEAN: readonly [number, number, number] = [0.485, 0.456, 0.406]
export const STD: readonly [number, number, number] = [0.229, 0.224, 0.225]

/** (pixel / 255 - mean) / std in float32, the layout stays [..., 3]. */
export function normalize(pixels: Uint8Array): Float32Array {
  const out = new Float32Array(pixels.length)
  for (let c = 0; c < 3; c++) {
    const mean = fround(MEAN[c] as number)
    const std = fround(STD[c] as number)
    for (let at = c; at < pixels.length; at += 3) {
      out[at] = fround(fround((pixels[at] as number) / 255) - mean) / std
    }
  }
  return out
}
