import { stat } from 'node:fs/promises'
import { UserError } from '../error.js'
import { sharp } from '../io/decoders.js'
import { readPair, readPhoto, rgbOf, type Sample } from './dataset.js'
import type { LabelRules } from './label-rules.js'
import { maxDecodedPixels, readLabel } from './labels.js'
import { type Box, cut, type Image } from './pixels.js'
import type { ExifOrientation } from './settings.js'

/** An RGB image of which parts are read when they are needed. */
export interface ImageParts {
  readonly width: number
  readonly height: number
  /** The pixels [h, w, 3] of a rectangle. Parts of the same rows are decoded once where they follow one another. */
  part(box: Box): Promise<Image>
}

/** An image in memory, or one that is read in parts. */
export type AnyImage = Readonly<Image> | ImageParts

/** Larger images are not even read in parts. */
export const maxReadPixels = 2 ** 31

export const inParts = (image: AnyImage): image is ImageParts => 'part' in image

export const partOf = async (image: AnyImage, box: Box): Promise<Image> =>
  inParts(image) ? image.part(box) : cut(image, 3, box)

/** Decodes the rows that are asked for, with all their columns; formats without access by rows are decoded as a whole. */
class ImageFile implements ImageParts {
  private rows: { readonly from: number; readonly count: number; readonly image: Promise<Image> } | undefined

  constructor(
    private readonly path: string,
    readonly width: number,
    readonly height: number,
  ) {}

  async part(box: Box): Promise<Image> {
    if (this.rows?.from !== box.y || this.rows.count !== box.h) {
      // Not beside the new ones.
      this.rows = undefined
      this.rows = { from: box.y, count: box.h, image: this.decode(box.y, box.h) }
    }
    return cut(await this.rows.image, 3, { ...box, y: 0 })
  }

  private async decode(top: number, height: number): Promise<Image> {
    const { path, width } = this
    try {
      const file = sharp(path, { limitInputPixels: maxReadPixels, failOn: 'error', ignoreIcc: true })
      return await rgbOf(file.extract({ left: 0, top, width, height }))
    } catch (error) {
      const [line] = String(error instanceof Error ? error.message : error).split('\n')
      throw new UserError(`cannot read rows ${top} to ${top + height} of the image ${path}: ${line}; replace the file`)
    }
  }
}

/** An image, and its EXIF orientation, 1 to 8. */
export interface AnyPhoto {
  readonly image: AnyImage
  readonly exif: number
}

/** Opens an image of more than `inMemory` pixels; undefined where it has not so many, or cannot be read. */
async function openParts(
  path: string,
  orientation: ExifOrientation,
  inMemory: number,
): Promise<{ readonly image: ImageParts; readonly exif: number } | undefined> {
  const isFile = await stat(path).then(
    (found) => found.isFile(),
    () => false,
  )
  const size = isFile
    ? await sharp(path, { limitInputPixels: false })
        .metadata()
        .catch(() => undefined)
    : undefined
  const { width = 0, height = 0, orientation: exif = 1 } = size ?? {}
  if (width * height <= inMemory) return undefined
  if (width * height > maxReadPixels) {
    throw new UserError(
      `the image ${path} has ${width}x${height} pixels, and at most ${maxReadPixels} are read: cut it into parts`,
    )
  }
  if (exif > 1 && orientation === 'apply') {
    throw new UserError(
      `the image ${path} has ${width}x${height} pixels, too many to be turned as its EXIF orientation says: turn its pixels ` +
        `in a copy, or set exif_orientation to stored`,
    )
  }
  return { image: new ImageFile(path, width, height), exif }
}

/**
 * Reads an image as `readPhoto` does, or opens one of more than `inMemory` pixels to be read in parts.
 * @throws UserError naming the file if it cannot be read, is damaged or larger than `maxReadPixels`, or is to be turned but too
 * large for it
 */
export const openPhoto = async (
  path: string,
  orientation: ExifOrientation = 'apply',
  inMemory = maxDecodedPixels,
): Promise<AnyPhoto> => (await openParts(path, orientation, inMemory)) ?? readPhoto(path, orientation)

/** The image of `openPhoto`. */
export const openImage = async (path: string, inMemory?: number, orientation?: ExifOrientation): Promise<AnyImage> =>
  (await openPhoto(path, orientation, inMemory)).image

/**
 * Reads an image and its label as `readPair` does, or opens an image of more than `inMemory` pixels to be read in parts.
 * @throws UserError also if their sizes differ
 */
export async function openPair(
  sample: Sample,
  rules: LabelRules,
  inMemory = maxDecodedPixels,
): Promise<{ image: AnyImage; label: Image }> {
  const opened = await openParts(sample.image, rules.orientation ?? 'apply', inMemory)
  if (sample.label === null || !opened) return readPair(sample, rules)
  const { image } = opened
  const label = await readLabel(sample.label, rules, maxReadPixels)
  const { width, height } = image
  if (label.width !== width || label.height !== height) {
    throw new UserError(
      `${sample.image} has ${width}x${height} pixels, but its label ${sample.label} has ` +
        `${label.width}x${label.height}: give both the same size`,
    )
  }
  return { image, label }
}
