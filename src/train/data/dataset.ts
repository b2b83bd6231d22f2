import { existsSync, readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Sharp } from 'sharp'
import { UserError } from '../error.js'
import { explainUnreadable, sharp } from '../io/decoders.js'
import { firstLineOf, readWhole } from '../io/files.js'
import { type JpegHeader, jpegHeader } from '../io/jpeg.js'
import { PNG_SIGNATURE } from '../io/png.js'
import { decodeText } from '../io/text.js'
import { decodeTurboJpeg } from '../io/turbojpeg.js'
import { cmykToRgb } from './color.js'
import { isInside, pairFolders } from './folders.js'
import { type LabelRules, labelRules } from './label-rules.js'
import { maxDecodedPixels, readLabel } from './labels.js'
import type { Image } from './pixels.js'
import { readAhead } from './read-ahead.js'
import type { ExifOrientation, Folders, LabelSettings } from './settings.js'

/** An image and its label. */
export interface Sample {
  /** The image as the list names it. */
  name: string
  /** Path of the image. */
  image: string
  /** Path of the label; null where there is none, or none is wanted. */
  label: string | null
}

const maxListBytes = 2 ** 28
const maxListLines = 2_000_000

/** One line of a list, as it is written. */
export interface ListEntry {
  readonly image: string
  readonly label: string | null
  /** Where the line is, for error messages. */
  readonly where: string
}

/** A path with slashes where backslashes stand between its folders: unless that is the name of a file. */
const slashed = (root: string, path: string): string =>
  path.includes('\\') && !existsSync(resolve(root, path)) ? path.replaceAll('\\', '/') : path

/**
 * Reads a list of lines `image label` or `image`, with a space or a tab between the two (names may hold spaces where
 * there is a tab), in UTF-8 or UTF-16, with slashes or backslashes in names; empty lines are skipped.
 * @throws UserError for a list that is missing or empty, has lines of more words, or names files outside `dataRoot`
 */
export function readEntries(path: string, dataRoot: string): ListEntry[] {
  let text: string
  try {
    const stat = statSync(path)
    if (!stat.isFile()) throw new UserError(`the list ${path} is not a file`)
    if (stat.size > maxListBytes) throw new UserError(`the list ${path} is larger than 256 MiB`)
    text = decodeText(readFileSync(path))
  } catch (error) {
    if (error instanceof UserError) throw error
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    throw new UserError(
      missing ? `there is no list ${path}: check its path` : `cannot read the list ${path}: ${firstLineOf(error)}`,
    )
  }
  if (!existsSync(dataRoot)) throw new UserError(`there is no data folder ${dataRoot}: check data_root`)
  const entries: ListEntry[] = []
  for (let index = 0, start = 0; start < text.length; index++) {
    if (index >= maxListLines) throw new UserError(`the list ${path} has more than ${maxListLines} lines`)
    const end = text.indexOf('\n', start)
    const line = text.slice(start, end < 0 ? undefined : end)
    start = end < 0 ? text.length : end + 1
    const words = line.includes('\t') ? line.split('\t').map((word) => word.trim()) : line.split(/\s+/)
    const [image, label, ...rest] = words.filter((word) => word !== '').map((word) => slashed(dataRoot, word))
    if (image === undefined) continue
    const where = `${path} line ${index + 1}`
    if (rest.length > 0) {
      throw new UserError(`${where}: more than two words; a line is 'image label', with a tab where names hold spaces`)
    }
    for (const file of [image, label]) {
      if (file !== undefined && !isInside(dataRoot, file)) {
        throw new UserError(`${where}: ${file} is outside of data_root (${dataRoot}): choose another data_root`)
      }
    }
    entries.push({ image, label: label ?? null, where })
  }
  if (entries.length === 0) throw new UserError(`the list ${path} is empty: it needs lines 'image label'`)
  return entries
}

/**
 * The images of a list or of folders, with paths relative to `dataRoot`; see `readEntries` and `pairFolders`.
 * @param labels whether every image must have a label (which must exist), or labels play no part
 * @param minimum fewest usable images, usually the batch size
 * @param mustExist whether the files of a list must exist already
 * @throws UserError for a list that is missing, empty, too short, or names files that do not exist
 */
export function readList(
  source: string | Folders,
  dataRoot: string,
  labels: 'required' | 'unused',
  minimum = 1,
  mustExist = true,
): Sample[] {
  const wanted = labels === 'required'
  const samples =
    typeof source === 'string' ? fromList(source, dataRoot, wanted, mustExist) : fromFolders(source, dataRoot, wanted)
  if (samples.length < minimum) {
    const what =
      typeof source === 'string' ? `the list ${source} has` : `the folder ${resolve(dataRoot, source.images)} has`
    const unit = typeof source === 'string' ? 'lines' : 'images'
    throw new UserError(
      `${what} ${samples.length} ${unit}, fewer than a batch of ${minimum}: add some, or lower batch_size`,
    )
  }
  return samples
}

function fromList(path: string, dataRoot: string, wanted: boolean, mustExist: boolean): Sample[] {
  return readEntries(path, dataRoot).map(({ image, label, where }) => {
    if (wanted && label === null) throw new UserError(`${where}: no label for ${image}; a line is 'image label'`)
    const sample = {
      name: image,
      image: resolve(dataRoot, image),
      label: wanted && label !== null ? resolve(dataRoot, label) : null,
    }
    for (const file of [sample.image, sample.label]) {
      if (mustExist && file !== null && !existsSync(file)) {
        const remedy = file.includes('\uFFFD')
          ? 'save the list as UTF-8, which its letters are not'
          : `paths are relative to data_root (${dataRoot})`
        throw new UserError(`${where}: there is no file ${file}; ${remedy}`)
      }
    }
    return sample
  })
}

function fromFolders(folders: Folders, dataRoot: string, wanted: boolean): Sample[] {
  if (wanted && folders.labels === undefined) {
    throw new UserError(`the images in ${folders.images} need labels: give their folder as 'labels'`)
  }
  const pairs = pairFolders(dataRoot, wanted ? folders : { ...folders, labels: undefined })
  const unlabeled = pairs.filter(({ label }) => label === null)
  if (wanted && unlabeled[0]) {
    throw new UserError(
      `${unlabeled.length} of ${pairs.length} images in ${folders.images} have no label of the same name in ` +
        `${folders.labels}, the first is ${unlabeled[0].image}: add them, or make lists with the command split`,
    )
  }
  return pairs.map(({ image, label }) => ({
    name: image,
    image: resolve(dataRoot, image),
    label: label === null ? null : resolve(dataRoot, label),
  }))
}

/** An image, and how its file says that it is to be shown. */
export interface Photo {
  readonly image: Image
  /** EXIF orientation, 1 to 8; 1 where the file says none. */
  readonly exif: number
}

/**
 * The pixels of a file as RGB: alpha dropped, CMYK by its plain formula. Throws the decoder's errors.
 * @param space of its colours, as the file's metadata say
 * @returns data [H, W, 3]
 */
export async function rgbOf(file: Sharp, space: string | undefined): Promise<Image> {
  const pixels = file.removeAlpha()
  if (space === 'cmyk') pixels.pipelineColourspace('cmyk').toColourspace('cmyk')
  else pixels.toColourspace('srgb')
  const { data, info } = await pixels.raw().toBuffer({ resolveWithObject: true })
  const { width, height, channels } = info
  if (channels !== (space === 'cmyk' ? 4 : 3)) throw new Error(`it has ${channels} channels instead of 3`)
  return { data: space === 'cmyk' ? cmykToRgb(data) : data, width, height }
}

/** Larger files are read by the decoder, as it needs them. */
const maxFileInMemory = 2 ** 28

/** Whether a file is known to hold other colours than CMYK without asking its decoder. */
const isSurelyRgb = (bytes: Buffer, jpeg: JpegHeader | undefined): boolean =>
  jpeg ? jpeg.channels === 1 || jpeg.channels === 3 : bytes.subarray(0, 8).equals(PNG_SIGNATURE)

/** The pixels of most photographs, decoded by the fastest decoder where it is at hand; undefined for all others. */
async function decodePlainJpeg(bytes: Buffer, { width, height, isPlain }: JpegHeader): Promise<Image | undefined> {
  if (!isPlain || width * height > maxDecodedPixels) return undefined
  const data = await decodeTurboJpeg(bytes, width, height)
  return data && { data, width, height }
}

/** @param needsExif whether the EXIF orientation is wanted, 1 else */
async function decodePhoto(path: string, orientation: ExifOrientation, needsExif: boolean): Promise<Photo> {
  try {
    const bytes = await readWhole(path, maxFileInMemory)
    const jpeg = bytes && jpegHeader(bytes)
    const plain = bytes && jpeg && (await decodePlainJpeg(bytes, jpeg))
    if (plain) return { image: plain, exif: 1 }
    // All others, and what is wrong with damaged files.
    const autoOrient = orientation === 'apply'
    const file = sharp(bytes ?? path, {
      limitInputPixels: maxDecodedPixels,
      failOn: 'error',
      ignoreIcc: true,
      autoOrient,
    })
    const isKnown = !needsExif && bytes !== undefined && isSurelyRgb(bytes, jpeg)
    const { orientation: exif = 1, space } = isKnown ? { space: 'srgb' } : await file.metadata()
    return { image: await rgbOf(file, space), exif }
  } catch (error) {
    const why = firstLineOf(error)
    if (why.includes('exceeds pixel limit')) {
      throw new UserError(
        `the image ${path} exceeds the pixel limit: it has more than ${maxDecodedPixels} pixels (67 megapixels), which is the ` +
          `most that is read at once; shrink it or cut it into parts (predict and evaluate read larger ones by rows)`,
      )
    }
    const unreadable = why.includes('unsupported image format') ? explainUnreadable([path]) : undefined
    throw new UserError(
      unreadable ?? `cannot read the image ${path}: ${why}; replace the file, or take it off the list`,
    )
  }
}

/**
 * Decodes a photograph to RGB: no colour profile, alpha dropped, CMYK by its plain formula.
 * @param orientation whether it is turned as its EXIF orientation says
 * @returns image.data [H, W, 3]
 * @throws UserError naming the file if it cannot be read, is damaged or larger than `maxDecodedPixels`
 */
export const readPhoto = (path: string, orientation: ExifOrientation = 'apply'): Promise<Photo> =>
  decodePhoto(path, orientation, true)

/** The image of `readPhoto`, data [H, W, 3]. */
export const readImage = async (path: string, orientation: ExifOrientation = 'apply'): Promise<Image> =>
  (await decodePhoto(path, orientation, false)).image

/** Width and height in pixels. */
interface Sides {
  readonly width: number
  readonly height: number
}

const equalSides = (a: Sides, b: Sides): boolean => a.width === b.width && a.height === b.height

/** The image in the direction that its label has: its pixels as stored, where only so it has the label's sides. */
export async function inLabelDirection(
  image: Image,
  label: Sides,
  path: string,
  orientation: ExifOrientation = 'apply',
): Promise<Image> {
  const isTurned = image.width === label.height && image.height === label.width
  if (orientation === 'stored' || equalSides(image, label) || !isTurned) return image
  const stored = await readImage(path, 'stored')
  return equalSides(stored, label) ? stored : image
}

/** What is wrong with the sides of an image and its label, with a remedy; nothing where they are equal. */
export function sidesFault(
  { image: path, label: labelPath }: Sample,
  image: Sides,
  label: Sides,
  orientation: ExifOrientation = 'apply',
): string | undefined {
  if (equalSides(image, label)) return undefined
  const isTurned = image.width === label.height && image.height === label.width
  const other = orientation === 'stored' ? ', or set exif_orientation: apply' : ', which no EXIF orientation does'
  return (
    `${path} has ${image.width}x${image.height} pixels, but its label ${labelPath} has ` +
    `${label.width}x${label.height}: ${isTurned ? `turn one of them${other}` : 'give both the same size'}`
  )
}

/**
 * Reads an image and its label.
 * @throws UserError also if their sizes differ
 */
export async function readPair(sample: Sample, rules: LabelRules): Promise<{ image: Image; label: Image }> {
  if (sample.label === null) throw new UserError(`${sample.image} has no label: add it to the list`)
  const { orientation } = rules
  const reading = readLabel(sample.label, rules)
  // Where both cannot be read it is the image's fault that is told, whichever was found first.
  reading.catch(() => {})
  const decoded = await readImage(sample.image, orientation)
  const label = await reading
  const image = await inLabelDirection(decoded, label, sample.image, orientation)
  const fault = sidesFault(sample, image, label, orientation)
  if (fault !== undefined) throw new UserError(fault)
  return { image, label }
}

/** An image in the form in which it is read, and its label. */
export interface EvaluationSample<I = Image> {
  image: I
  label: Image
  name: string
}

/**
 * Reads image and label of each line in order, `prefetch` of them ahead, on the threads of the decoder.
 *
 * @param read reads one, such as `readPair`
 * @param onUnreadable told of a pair that cannot be read, which is then left out; without it the error is thrown
 */
export async function* samplesReadBy<I>(
  read: (sample: Sample, rules: LabelRules) => Promise<{ image: I; label: Image }>,
  list: readonly Sample[],
  config: LabelSettings,
  prefetch = 2,
  onUnreadable?: (sample: Sample, error: UserError) => void,
): AsyncGenerator<EvaluationSample<I>, void, undefined> {
  const rules = labelRules(config)
  const samples = list.values()
  for await (const pair of readAhead(list, (sample) => read(sample, rules), prefetch)) {
    const sample = samples.next().value as Sample
    if (pair instanceof UserError) {
      if (!onUnreadable) throw pair
      onUnreadable(sample, pair)
      continue
    }
    yield { ...pair, name: sample.name }
  }
}

/** Reads images and labels with `readPair`; see `samplesReadBy`. */
export const evaluationSamples = (
  list: readonly Sample[],
  config: LabelSettings,
  prefetch?: number,
  onUnreadable?: (sample: Sample, error: UserError) => void,
): AsyncGenerator<EvaluationSample, void, undefined> => samplesReadBy(readPair, list, config, prefetch, onUnreadable)
