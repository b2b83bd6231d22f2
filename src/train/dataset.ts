import { existsSync, readFileSync, statSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { inflateSync } from 'node:zlib'
import { type DecodedPng, decode } from 'fast-png'
import sharp from 'sharp'
import type { Config } from './config.js'
import { UserError } from './error.js'
import { type Picture, reduceZeroLabel } from './pixels.js'

/** One line of a list. */
export interface Sample {
  /** The image as the list names it. */
  name: string
  /** Path of the image. */
  image: string
  /** Path of the label; null where the list has none. */
  label: string | null
}

/** How labels are read. */
export interface LabelRules {
  nclass: number
  ignoreIndex: number
  /** ADE20K: 0 is "ignore", classes are stored as 1 to nclass. */
  reduceZero: boolean
}

export function labelRules(config: Config): LabelRules {
  return { nclass: config.nclass, ignoreIndex: config.ignore_index, reduceZero: config.dataset === 'ade20k' }
}

/** Pictures larger than this are refused before they are decoded. */
export const MAX_PIXELS = 2 ** 26
const MAX_LIST_BYTES = 2 ** 28
const MAX_LABEL_BYTES = 2 ** 28
/** Compressed label data up to this size cannot become larger than 64 MiB (deflate shrinks 1032 times at most). */
const MAX_UNCHECKED_BYTES = 2 ** 16

// Pictures of the data sets are raster files; these loaders would render documents instead.
sharp.block({ operation: ['VipsForeignLoadSvg', 'VipsForeignLoadPdf', 'VipsForeignLoadMagick'] })
sharp.cache(false)
// Several pictures are decoded at a time instead.
sharp.concurrency(1)

function firstLine(error: unknown): string {
  const [line = ''] = (error instanceof Error ? error.message : String(error)).trim().split('\n')
  return line
}

/**
 * Reads a list of lines `image label`, relative to `dataRoot`; empty lines are skipped.
 * @param labels whether every line must have a label (which must exist), or labels play no part
 * @param minimum fewest usable lines, usually the batch size
 * @throws UserError for a list that is missing, empty, too short, or names files that do not exist
 */
export function readList(path: string, dataRoot: string, labels: 'required' | 'unused', minimum = 1): Sample[] {
  let text: string
  try {
    if (statSync(path).size > MAX_LIST_BYTES) throw new UserError(`the list ${path} is larger than 256 MiB`)
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof UserError) throw error
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    throw new UserError(
      missing ? `there is no list ${path}: check its path` : `cannot read the list ${path}: ${firstLine(error)}`,
    )
  }
  if (!existsSync(dataRoot)) throw new UserError(`there is no data folder ${dataRoot}: check data_root`)
  const samples: Sample[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const [image, label, ...rest] = line.split(/\s+/).filter((word) => word !== '')
    if (image === undefined) continue
    const where = `${path} line ${index + 1}`
    if (rest.length > 0)
      throw new UserError(`${where}: more than two words; a line is 'image label', without spaces in names`)
    if (labels === 'required' && label === undefined) {
      throw new UserError(`${where}: no label for ${image}; a line is 'image label'`)
    }
    const sample = {
      name: image,
      image: resolve(dataRoot, image),
      label: labels === 'required' && label !== undefined ? resolve(dataRoot, label) : null,
    }
    for (const file of [sample.image, sample.label]) {
      if (file !== null && !existsSync(file)) {
        throw new UserError(`${where}: there is no file ${file}; paths are relative to data_root (${dataRoot})`)
      }
    }
    samples.push(sample)
  }
  if (samples.length === 0) throw new UserError(`the list ${path} is empty: it needs lines 'image label'`)
  if (samples.length < minimum) {
    throw new UserError(
      `the list ${path} has ${samples.length} lines, fewer than a batch of ${minimum}: add some, or lower batch_size`,
    )
  }
  return samples
}

/**
 * Decodes a photograph to RGB, pixels as stored (no EXIF rotation, no colour profile, alpha dropped).
 * @returns data [H, W, 3]
 * @throws UserError naming the file if it cannot be read, is damaged or larger than `MAX_PIXELS`
 */
export async function readImage(path: string): Promise<Picture> {
  try {
    const { data, info } = await sharp(path, { limitInputPixels: MAX_PIXELS, failOn: 'error', ignoreIcc: true })
      .removeAlpha()
      .toColourspace('srgb')
      .raw()
      .toBuffer({ resolveWithObject: true })
    if (info.channels !== 3) throw new Error(`it has ${info.channels} channels instead of 3`)
    return { data, width: info.width, height: info.height }
  } catch (error) {
    throw new UserError(`cannot read the image ${path}: ${firstLine(error)}; replace the file, or take it off the list`)
  }
}

interface PngHeader {
  width: number
  height: number
  /** Bits per pixel. */
  bits: number
}

/** Walks the chunks of a PNG file and checks, before anything is inflated, how much could come out. */
function checkPng(bytes: Buffer): PngHeader {
  if (bytes.length < 33 || bytes.readUInt32BE(0) !== 0x89504e47 || bytes.toString('latin1', 12, 16) !== 'IHDR') {
    throw new Error('it is not a PNG file')
  }
  const width = bytes.readUInt32BE(16)
  const height = bytes.readUInt32BE(20)
  const bits = bytes.readUInt8(24)
  const color = bytes.readUInt8(25)
  if (width * height > MAX_PIXELS) throw new Error(`its ${width}x${height} pixels are more than ${MAX_PIXELS}`)
  if (color !== 0 && color !== 3) throw new Error('it holds colours; labels are grey or palette PNGs of class indices')
  const compressed: Buffer[] = []
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at)
    const type = bytes.toString('latin1', at + 4, at + 8)
    if (type === 'IDAT') compressed.push(bytes.subarray(at + 8, at + 8 + length))
    if (type === 'iCCP' && length > MAX_UNCHECKED_BYTES) throw new Error(`its colour profile has ${length} bytes`)
    at += 12 + length
  }
  const data = Buffer.concat(compressed)
  if (data.length > MAX_UNCHECKED_BYTES) {
    // Rows have one more byte each; the seven passes of an interlaced picture may round each row up again.
    const limit = height * (Math.ceil((width * bits) / 8) + 1) * 2 + 1024
    inflateSync(data, { maxOutputLength: limit })
  }
  return { width, height, bits }
}

/** One value per pixel, whatever the bit depth. */
function unpack({ data, width, height }: DecodedPng, bits: number): Uint8Array | Uint16Array | Uint8ClampedArray {
  if (bits >= 8) return data
  const stride = Math.ceil((width * bits) / 8)
  const out = new Uint8Array(width * height)
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const byte = data[y * stride + ((x * bits) >> 3)] as number
      out[y * width + x] = (byte >> (8 - bits - ((x * bits) & 7))) & ((1 << bits) - 1)
    }
  }
  return out
}

/**
 * Decodes a label map: a grey or palette PNG of class indices (of a palette the indices count, not the colours).
 * @returns data [H, W]: 0 to nclass - 1, or ignoreIndex
 * @throws UserError naming the file, and for an impossible value also the value and its first position
 */
export async function readLabel(path: string, rules: LabelRules): Promise<Picture> {
  let png: DecodedPng
  let values: ReturnType<typeof unpack>
  try {
    const { size } = await stat(path)
    if (size > MAX_LABEL_BYTES) throw new Error(`it has ${size} bytes, more than ${MAX_LABEL_BYTES}`)
    const bytes = await readFile(path)
    const { bits } = checkPng(bytes)
    png = decode(bytes, { checkCrc: true })
    values = unpack(png, bits)
    if (values.length !== png.width * png.height) throw new Error('its pixels are not complete')
  } catch (error) {
    throw new UserError(`cannot read the label ${path}: ${firstLine(error)}; replace the file, or take it off the list`)
  }
  const data = new Uint8Array(values.length)
  const wrong = (index: number) => {
    const [x, y] = [index % png.width, Math.floor(index / png.width)]
    const classes = rules.reduceZero ? `1 to ${rules.nclass} (0 is ignored)` : `0 to ${rules.nclass - 1}`
    return new UserError(
      `${path}: label value ${values[index]} at x=${x}, y=${y}, but the classes are ${classes} and ${rules.ignoreIndex} ` +
        'is ignored: correct the label, or nclass or ignore_index',
    )
  }
  for (let i = 0; i < data.length; i++) {
    const value = values[i] as number
    if (value > 255) throw wrong(i)
    data[i] = value
  }
  if (rules.reduceZero) reduceZeroLabel(data)
  for (let i = 0; i < data.length; i++) {
    const value = data[i] as number
    if (value >= rules.nclass && value !== rules.ignoreIndex) throw wrong(i)
  }
  return { data, width: png.width, height: png.height }
}

/**
 * Reads an image and its label.
 * @throws UserError also if their sizes differ
 */
export async function readPair(sample: Sample, rules: LabelRules): Promise<{ image: Picture; label: Picture }> {
  if (sample.label === null) throw new UserError(`${sample.image} has no label: add it to the list`)
  const [image, label] = await Promise.all([readImage(sample.image), readLabel(sample.label, rules)])
  if (image.width !== label.width || image.height !== label.height) {
    const turned = image.width === label.height && image.height === label.width
    const remedy = turned
      ? 'turn the stored pixels of one of them (EXIF rotation is not applied)'
      : 'give both the same size'
    throw new UserError(
      `${sample.image} has ${image.width}x${image.height} pixels, but its label ${sample.label} has ` +
        `${label.width}x${label.height}: ${remedy}`,
    )
  }
  return { image, label }
}

export interface EvaluationSample {
  image: Picture
  label: Picture
  name: string
}

/** Reads image and label of each line in order, `prefetch` of them ahead, on the threads of the decoder. */
export async function* evaluationSamples(
  list: readonly Sample[],
  config: Config,
  prefetch = 2,
): AsyncGenerator<EvaluationSample, void, undefined> {
  const rules = labelRules(config)
  const ahead: Promise<{ image: Picture; label: Picture }>[] = []
  for (let next = 0, i = 0; i < list.length; i++) {
    for (; next < list.length && next <= i + prefetch; next++) {
      const pair = readPair(list[next] as Sample, rules)
      // A failure is reported when its turn comes, which may be after it happens.
      pair.catch(() => {})
      ahead.push(pair)
    }
    const { image, label } = await (ahead.shift() as Promise<{ image: Picture; label: Picture }>)
    yield { image, label, name: (list[i] as Sample).name }
  }
}
