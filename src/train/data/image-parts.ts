import { stat } from 'node:fs/promises'
import { UserError } from '../error.js'
import { sharp } from '../io/decoders.js'
import { readImage, readPair, type Sample } from './dataset.js'
import { type LabelRules, MAX_PIXELS, readLabel } from './labels.js'
import { type Box, cut, type Image } from './pixels.js'

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
export const mostPixels = 2 ** 31

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
      const { data, info } = await sharp(path, { limitInputPixels: mostPixels, failOn: 'error', ignoreIcc: true })
        .extract({ left: 0, top, width, height })
        .removeAlpha()
        .toColourspace('srgb')
        .raw()
        .toBuffer({ resolveWithObject: true })
      if (info.channels !== 3) throw new Error(`it has ${info.channels} channels instead of 3`)
      return { data, width, height }
    } catch (error) {
      const [line] = String(error instanceof Error ? error.message : error).split('\n')
      throw new UserError(`cannot read rows ${top} to ${top + height} of the image ${path}: ${line}; replace the file`)
    }
  }
}

/**
 * Reads an image as `readImage` does, or opens one of more than `inMemory` pixels to be read in parts.
 * @throws UserError naming the file if it cannot be read, is damaged or larger than `mostPixels`
 */
export async function openImage(path: string, inMemory = MAX_PIXELS): Promise<AnyImage> {
  return (inMemory < MAX_PIXELS ? await openLarger(path, inMemory) : undefined) ?? orParts(path, readImage(path))
}

/**
 * Reads an image and its label as `readPair` does, or opens an image of more than `inMemory` pixels to be read in parts.
 * @throws UserError also if their sizes differ
 */
export async function openPair(
  sample: Sample,
  rules: LabelRules,
  inMemory = MAX_PIXELS,
): Promise<{ image: AnyImage; label: Image }> {
  const { image: path, label: labelPath } = sample
  const known = inMemory < MAX_PIXELS ? await openLarger(path, inMemory) : undefined
  const read = known ?? (await orParts(path, readPair(sample, rules)))
  if ('label' in read) return read
  if (labelPath === null || !inParts(read)) throw new UserError(`${path} has no label: add it to the list`)
  const label = await readLabel(labelPath, rules, mostPixels)
  const { width, height } = read
  if (label.width !== width || label.height !== height) {
    throw new UserError(
      `${path} has ${width}x${height} pixels, but its label ${labelPath} has ${label.width}x${label.height}: ` +
        'give both the same size',
    )
  }
  return { image: read, label }
}

/** What is read, or the image in parts where it is too large for that: most are not, and need not be opened twice. */
async function orParts<T>(path: string, reading: Promise<T>): Promise<T | ImageParts> {
  try {
    return await reading
  } catch (error) {
    const image = error instanceof UserError ? await openLarger(path, MAX_PIXELS) : undefined
    if (image) return image
    throw error
  }
}

/** An image of more than `most` pixels; undefined for another file. */
async function openLarger(path: string, most: number): Promise<ImageParts | undefined> {
  const isFile = await stat(path).then(
    (found) => found.isFile(),
    () => false,
  )
  if (!isFile) return undefined
  const size = await sharp(path, { limitInputPixels: false })
    .metadata()
    .catch(() => undefined)
  const { width = 0, height = 0 } = size ?? {}
  if (width * height <= most) return undefined
  if (width * height > mostPixels) {
    throw new UserError(
      `the image ${path} has ${width}x${height} pixels, and at most ${mostPixels} are read: cut it into parts`,
    )
  }
  return new ImageFile(path, width, height)
}
