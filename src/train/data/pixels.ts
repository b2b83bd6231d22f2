/** An RGB image, `data` is [H, W, 3]; or a label map, `data` is [H, W]. */
export interface Image {
  data: Uint8Array
  width: number
  height: number
}

/** Rows of bytes in an array: row i begins at start + i * pitch. */
export interface Rows {
  readonly data: Uint8Array
  readonly start: number
  readonly pitch: number
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
