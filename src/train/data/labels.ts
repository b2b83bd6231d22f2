import { UserError } from '../error.js'
import { firstLineOf, readWhole } from '../io/files.js'
import { decodePng, type PngPixels } from '../io/png.js'
import { classOf, type LabelRules, type StoredLabel, usedBytes } from './label-rules.js'
import { asRead, type PaletteReading } from './palette-labels.js'
import type { Image } from './pixels.js'

/** A value that stands for no class. */
export interface InvalidValue {
  readonly value: number
  pixels: number
  /** Index of the first pixel. */
  readonly first: number
}

/** Images larger than this are refused before they are decoded as a whole. */
export const maxDecodedPixels = 2 ** 26
const maxLabelBytes = 2 ** 28

/** One value per pixel. */
function valuesOf({ width, height, channels, samples }: PngPixels): StoredLabel['values'] {
  if (channels === 1) return samples
  const sample = (at: number) => samples[at] as number
  if (samples instanceof Uint16Array) throw new Error('its colours have 16 bits; labels in colours have 8')
  const values = new Uint32Array(width * height)
  for (let i = 0, at = 0; i < values.length; i++, at += channels) {
    values[i] = (sample(at) << 16) | (sample(at + 1) << 8) | sample(at + 2)
  }
  return values
}

/**
 * Decodes a label file: a grey, palette or RGB PNG. Of a palette the indices are the values, with its colours beside them.
 * @throws UserError naming the file
 */
export async function readStoredLabel(path: string, maxPixels = maxDecodedPixels): Promise<StoredLabel> {
  try {
    const bytes = await readWhole(path, maxLabelBytes)
    if (!bytes) throw new Error(`it has more than ${maxLabelBytes} bytes`)
    const png = await decodePng(bytes, maxPixels)
    const { width, height, channels, palette } = png
    return { width, height, values: valuesOf(png), colored: channels === 3, ...(palette && { palette }) }
  } catch (error) {
    throw new UserError(
      `cannot read the label ${path}: ${firstLineOf(error)}; replace the file, or take it off the list`,
    )
  }
}

/** A label as classes. */
export interface ClassLabel {
  /** data [H, W]: 0 to nclass - 1, or ignoreIndex, also for the invalid values */
  readonly label: Image
  /** In the order of rows. */
  readonly invalid: readonly InvalidValue[]
  /** Whether invalid values are colours. */
  readonly colored: boolean
}

/** The classes of bytes, in the same array where all are classes already; undefined where one is no class. */
function classesOfBytes(values: Uint8Array, rules: LabelRules): Uint8Array | undefined {
  const used = usedBytes(values)
  const classes = used.map((value) => classOf(value, rules))
  if (classes.some((index) => index < 0)) return undefined
  if (used.every((value, i) => classes[i] === value)) return values
  const table = new Uint8Array(256)
  for (const [i, value] of used.entries()) table[value] = classes[i] as number
  const data = new Uint8Array(values.length)
  for (let i = 0; i < data.length; i++) data[i] = table[values[i] as number] as number
  return data
}

/**
 * Turns stored values into classes; of a label with a palette its colours where the rules name them, see `readPalette`.
 * @param reading how its palette is read, where that is known already
 * @throws UserError where the label has colours and the rules have none
 */
export function toClasses(
  stored: StoredLabel,
  rules: LabelRules,
  path: string,
  reading?: PaletteReading | null,
): ClassLabel {
  const { width, height, values, colored } = asRead(stored, rules, reading)
  if (colored && !rules.colors) {
    throw new UserError(
      `the label ${path} holds colours: give the colours of the classes as 'palette', or store class indices`,
    )
  }
  const classes = values instanceof Uint8Array && !colored ? classesOfBytes(values, rules) : undefined
  if (classes) return { label: { data: classes, width, height }, invalid: [], colored }
  const data = new Uint8Array(values.length)
  const known = new Map<number, number>()
  const invalid = new Map<number, InvalidValue>()
  let last = -1
  let index = -1
  for (let i = 0; i < data.length; i++) {
    const value = values[i] as number
    if (value !== last) {
      last = value
      const found = known.get(value)
      index = found ?? (colored ? (rules.colors?.get(value) ?? -1) : classOf(value, rules))
      if (found === undefined) known.set(value, index)
    }
    if (index >= 0) data[i] = index
    else {
      data[i] = rules.ignoreIndex
      const entry = invalid.get(value)
      if (entry) entry.pixels++
      else invalid.set(value, { value, pixels: 1, first: i })
    }
  }
  return { label: { data, width, height }, invalid: [...invalid.values()], colored }
}

/** A stored value as people write it. */
export const showValue = (value: number, colored: boolean): string =>
  colored ? `#${value.toString(16).padStart(6, '0')}` : String(value)

/**
 * What is wrong with a value, and the remedy.
 * @param indexed whether it is of a label with a palette
 */
export function explainInvalid(value: number, colored: boolean, rules: LabelRules, indexed = false): string {
  const { nclass, ignoreIndex, reduceZero, values } = rules
  const shown = showValue(value, colored)
  if (colored) {
    const otherwise = indexed ? ', or give the indices of its palette there (0: 0, 1: 1, ...)' : ''
    return (
      `the colour ${shown} is not in the palette: correct the label, or add the colour to label_map ` +
      `('${shown}': ${ignoreIndex} to ignore it)${otherwise}`
    )
  }
  if (values) {
    return `${shown} is not in label_map: correct the label, or add it (${shown}: ${ignoreIndex} to ignore it)`
  }
  const classes = reduceZero ? `1 to ${nclass} (0 is ignored)` : `0 to ${nclass - 1}`
  const remedy = 'correct the label, or nclass or ignore_index, or give a label_map'
  return `the classes are ${classes} and ${ignoreIndex} is ignored: ${remedy}`
}

/**
 * Reads a label file.
 * @returns data [H, W]: 0 to nclass - 1, or ignoreIndex
 * @throws UserError naming the file, and for an impossible value also the value and its first position
 */
export async function readLabel(path: string, rules: LabelRules, maxPixels = maxDecodedPixels): Promise<Image> {
  const stored = await readStoredLabel(path, maxPixels)
  const { label, invalid, colored } = toClasses(stored, rules, path)
  const [first] = invalid
  if (!first) return label
  const [x, y] = [first.first % label.width, Math.floor(first.first / label.width)]
  throw new UserError(
    `${path}: label value ${showValue(first.value, colored)} at x=${x}, y=${y}, but ` +
      explainInvalid(first.value, colored, rules, stored.palette !== undefined),
  )
}
