/** An RGB image, `data` is [H, W, 3]; or a label map, `data` is [H, W]. */
export interface Image {
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

/** Part of the size x size crop at (x, y) that lies inside an image of the given size; the rest is padding. */
export function cropWindow(width: number, height: number, size: number, x: number, y: number): Box {
  return { x, y, w: Math.min(size, width - x), h: Math.min(size, height - y) }
}

/** The rectangle `window` of an image with `channels` bytes per pixel. */
export function cut(image: Image, channels: number, window: Box): Image {
  const { x, y, w, h } = window
  const data = new Uint8Array(w * h * channels)
  for (let row = 0; row < h; row++) {
    const from = ((y + row) * image.width + x) * channels
    data.set(image.data.subarray(from, from + w * channels), row * w * channels)
  }
  return { data, width: w, height: h }
}

/**
 * Writes an image of at most size x size into the upper left of `out` ([size, size, channels]), `fill` right of it and
 * below, then mirrors the whole left to right if `flip` is set.
 */
export function place(
  image: Image,
  channels: number,
  size: number,
  fill: number,
  flip: boolean,
  out: Uint8Array,
): void {
  const { data, width, height } = image
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

const { fround } = Math

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
