import type { Image } from '../train/data/pixels.js'
import { UserError } from '../train/error.js'

/** A picture, row by row from the top: RGB [H, W, 3], or RGBA [H, W, 4], of which alpha is dropped. `ImageData` is one. */
export interface Picture {
  readonly data: Uint8Array | Uint8ClampedArray
  readonly width: number
  readonly height: number
}

/** A picture as RGB. Throws a UserError where its data have another length. */
export function rgbOf({ data, width, height }: Picture): Image {
  const pixels = width * height
  const channels = data.length / pixels
  const isSize = (extent: number) => Number.isSafeInteger(extent) && extent > 0
  if (!isSize(width) || !isSize(height) || (channels !== 3 && channels !== 4)) {
    throw new UserError(
      `a picture of ${width}x${height} pixels has ${data.length} bytes: expected are 3 for each pixel (RGB) or 4 (RGBA)`,
    )
  }
  if (channels === 3) return { data: new Uint8Array(data.buffer, data.byteOffset, data.length), width, height }
  const rgb = new Uint8Array(pixels * 3)
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    rgb[to] = data[from] as number
    rgb[to + 1] = data[from + 1] as number
    rgb[to + 2] = data[from + 2] as number
  }
  return { data: rgb, width, height }
}
