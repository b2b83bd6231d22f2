import { stat } from 'node:fs/promises'
import { UserError } from '../error.js'
import { sharp } from '../io/decoders.js'
import { firstLineOf } from '../io/files.js'
import { readPair, readPhoto, rgbOf, type Sample, sidesFault } from './dataset.js'
import type { AnyImage, ImageParts } from './image-parts.js'
import type { LabelRules } from './label-rules.js'
import { maxDecodedPixels, readLabel } from './labels.js'
import { type Box, cut, type Image } from './pixels.js'
import type { ExifOrientation } from './settings.js'

/** Larger images are not even read in parts. */
export const maxReadPixels = 2 ** 31

/** Decodes the rows that are asked for, with all their columns; formats without access by rows are decoded as a whole. */
class ImageFile implements ImageParts {
  private rows: { readonly from: number; readonly count: number; readonly image: Promise<Image> } | undefined

  constructor(
    private readonly path: string,
    readonly width: number,
    readonly height: number,
    private readonly autoOrient: boolean,
    private readonly space: string | undefined,
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
    const { path, width, autoOrient, space } = this
    try {
      const file = sharp(path, { limitInputPixels: maxReadPixels, failOn: 'error', ignoreIcc: true, autoOrient })
      return await rgbOf(file.extract({ left: 0, top, width, height }), space)
    } catch (error) {
      throw new UserError(
        `cannot read rows ${top} to ${top + height} of the image ${path}: ${firstLineOf(error)}; replace the file`,
      )
    }
  }
}

/** An image, whole or in parts, and its EXIF orientation; see `Photo`. */
export interface OpenedPhoto {
  readonly image: AnyImage
  readonly exif: number
}

/**
 * Reads an image as `readPhoto` does, or opens one of more than `inMemory` pixels to be read in parts.
 * @throws UserError naming the file if it cannot be read, is damaged or larger than `maxReadPixels`
 */
export async function openPhoto(
  path: string,
  orientation: ExifOrientation = 'apply',
  inMemory = maxDecodedPixels,
): Promise<OpenedPhoto> {
  const known = inMemory < maxDecodedPixels ? await openLarger(path, inMemory, orientation) : undefined
  return known ?? orParts(path, orientation, readPhoto(path, orientation))
}

/**
 * Reads an image and its label as `readPair` does, or opens an image of more than `inMemory` pixels to be read in parts.
 * @throws UserError also if their sizes differ
 */
export async function openPair(
  sample: Sample,
  rules: LabelRules,
  inMemory = maxDecodedPixels,
): Promise<{ image: AnyImage; label: Image }> {
  const { image: path, label: labelPath } = sample
  const { orientation = 'apply' } = rules
  const known = inMemory < maxDecodedPixels ? await openLarger(path, inMemory, orientation) : undefined
  const read = known ?? (await orParts(path, orientation, readPair(sample, rules)))
  if ('label' in read) return read
  if (labelPath === null) throw new UserError(`${path} has no label: add it to the list`)
  const label = await readLabel(labelPath, rules, maxReadPixels)
  // As `readPair` takes an image whose label follows the stored pixels.
  const stored = await openLarger(path, inMemory, 'stored')
  const fits = ({ width, height }: AnyImage) => width === label.width && height === label.height
  const image = !fits(read.image) && stored && fits(stored.image) ? stored.image : read.image
  const fault = sidesFault(sample, image, label, orientation)
  if (fault !== undefined) throw new UserError(fault)
  return { image, label }
}

/** What is read, or the image in parts where it is too large for that: most are not, and need not be opened twice. */
async function orParts<T>(path: string, orientation: ExifOrientation, reading: Promise<T>): Promise<T | OpenedPhoto> {
  try {
    return await reading
  } catch (error) {
    const photo = error instanceof UserError ? await openLarger(path, maxDecodedPixels, orientation) : undefined
    if (photo) return photo
    throw error
  }
}

/** An image of more than `most` pixels; undefined for another file. */
async function openLarger(path: string, most: number, orientation: ExifOrientation): Promise<OpenedPhoto | undefined> {
  const isFile = await stat(path).then(
    (found) => found.isFile(),
    () => false,
  )
  if (!isFile) return undefined
  const file = await sharp(path, { limitInputPixels: false })
    .metadata()
    .catch(() => undefined)
  if (!file || file.width * file.height <= most) return undefined
  if (file.width * file.height > maxReadPixels) {
    throw new UserError(
      `the image ${path} has ${file.width}x${file.height} pixels, and at most ${maxReadPixels} are read: cut it into parts`,
    )
  }
  const autoOrient = orientation === 'apply'
  const { width, height } = autoOrient ? file.autoOrient : file
  const image = new ImageFile(path, width, height, autoOrient, file.space)
  return { image, exif: file.orientation ?? 1 }
}
