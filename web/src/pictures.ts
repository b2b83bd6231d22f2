import { drawing, keepDrawn, make } from './dom.js'
import type { Picture, Scene, Size } from './protocol.js'

/** A picture that the page can draw at any size. */
export interface Source extends Size {
  readonly name: string
  readonly drawable: CanvasImageSource
}

/** Long side of what is kept of a picture: more than any network here sees of it. */
const keptSide = 2048
/** Larger pictures are refused: browsers draw no canvas beyond about this size. */
const maxPixels = 2 ** 26

/**
 * Decodes a picture, turned as its EXIF orientation says.
 * @throws Error that names the file
 */
export async function openPicture(file: File): Promise<Source> {
  let bitmap: ImageBitmap
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: 'from-image' })
  } catch {
    throw new Error(`${file.name} is no picture that this browser can decode: use JPEG, PNG, WebP, GIF or AVIF`)
  }
  const { width, height } = bitmap
  if (width * height > maxPixels) {
    throw new Error(
      `${file.name} has ${width}x${height} pixels, more than the ${maxPixels} that the page takes: shrink it`,
    )
  }
  const kept = Math.max(width, height) > keptSide ? sized(bitmap, keptSide) : { width, height }
  const context = drawing(make('canvas', kept))
  context.imageSmoothingQuality = 'high'
  context.drawImage(bitmap, 0, 0, kept.width, kept.height)
  bitmap.close()
  return sourceOf(file.name, context.getImageData(0, 0, kept.width, kept.height), { width, height })
}

/** Pixels as a source: the browser may lose a canvas, but not them. */
function sourceOf(name: string, pixels: ImageData, { width, height }: Size = pixels): Source {
  const drawable = make('canvas', { width: pixels.width, height: pixels.height })
  keepDrawn(drawable, () => drawing(drawable).putImageData(pixels, 0, 0))
  return { name, drawable, width, height }
}

/** The size with the same sides whose longer one has so many pixels. */
export function sized({ width, height }: Size, longSide: number): Size {
  const factor = longSide / Math.max(width, height)
  const scaled = (extent: number) => Math.max(1, Math.round(extent * factor))
  return { width: scaled(width), height: scaled(height) }
}

/** A canvas with a source drawn at a size. */
export function drawn(source: Source, { width, height }: Size): HTMLCanvasElement {
  const canvas = make('canvas', { width, height })
  keepDrawn(canvas, () => {
    const context = drawing(canvas)
    context.imageSmoothingQuality = 'high'
    context.drawImage(source.drawable, 0, 0, width, height)
  })
  return canvas
}

/** Its pixels at a size. Throws while the browser has lost what it drew. */
export function pixelsOf(source: Source, size: Size): Picture {
  const { width, height } = size
  const context = drawing(drawn(source, size))
  const { data } = context.getImageData(0, 0, width, height)
  if (context.isContextLost()) throw new Error('the browser has lost what it drew: it draws again in a moment')
  return { width, height, data: data as Picture['data'] }
}

/** RGB pixels [H, W, 3] as what a canvas takes. */
function imageOf(rgb: Uint8Array, { width, height }: Size): ImageData {
  const image = new ImageData(width, height)
  for (let i = 0, from = 0; i < image.data.length; i += 4, from += 3) {
    image.data[i] = rgb[from] ?? 0
    image.data[i + 1] = rgb[from + 1] ?? 0
    image.data[i + 2] = rgb[from + 2] ?? 0
    image.data[i + 3] = 255
  }
  return image
}

/** Draws pixels on a canvas of the same size. */
export function paintImage(canvas: HTMLCanvasElement, image: ImageData): void {
  Object.assign(canvas, { width: image.width, height: image.height })
  keepDrawn(canvas, () => drawing(canvas).putImageData(image, 0, 0))
}

export type Palette = readonly (readonly [number, number, number])[]

/** Classes [H, W] in their colours; other values, such as 255, stay clear. */
export function colored(labels: Uint8Array, { width, height }: Size, palette: Palette): ImageData {
  const image = new ImageData(width, height)
  const words = new Uint32Array(image.data.buffer)
  // Little-endian, as all machines with a browser are: alpha is the highest byte.
  const colors = palette.map(([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0)
  for (let i = 0; i < words.length; i++) words[i] = colors[labels[i] ?? 255] ?? 0
  return image
}

/** The pixels of a painted scene. */
export const sceneImage = ({ image, size }: Scene): ImageData => imageOf(image, { width: size, height: size })

/** A painted scene as a source. */
export const sceneSource = (name: string, scene: Scene): Source => sourceOf(name, sceneImage(scene))
