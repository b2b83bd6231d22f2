import { readFile, stat } from 'node:fs/promises'
import { UserError } from '../error.js'
import { decodePng, type PngPixels } from '../io/png.js'
import type { Image } from './pixels.js'
import type { LabelSettings } from './settings.js'

/** How the values of label files become classes. */
export interface LabelRules {
  nclass: number
  ignoreIndex: number
  /** 0 is "ignore", classes are stored as 1 to nclass. */
  reduceZero: boolean
  /** Class of each value; others are refused. Without it the values are the classes. */
  values?: ReadonlyMap<number, number>
  /** Class of each colour 0xRRGGBB; others are refused. Without it images in colours are. */
  colors?: ReadonlyMap<number, number>
}

export function labelRules(config: LabelSettings): LabelRules {
  const { nclass, ignore_index: ignoreIndex, reduce_zero_label: reduceZero, palette, label_map: map = {} } = config
  const keys = Object.keys(map)
  const number = (key: string) => (key.startsWith('#') ? Number.parseInt(key.slice(1), 16) : Number(key))
  const entries = (wanted: string[]) => wanted.map((key): [number, number] => [number(key), map[key] as number])
  const values = new Map(entries(keys.filter((key) => !key.startsWith('#'))))
  const fromPalette = (palette ?? []).map(([r, g, b], i): [number, number] => [(r << 16) | (g << 8) | b, i])
  const colors = new Map([...fromPalette, ...entries(keys.filter((key) => key.startsWith('#')))])
  return {
    nclass,
    ignoreIndex,
    reduceZero,
    ...(values.size > 0 ? { values } : {}),
    ...(colors.size > 0 ? { colors } : {}),
  }
}

/** A label file as it is stored. */
export interface StoredLabel {
  readonly width: number
  readonly height: number
  /** [H, W]: grey values or palette indices, or colours 0xRRGGBB. */
  readonly values: Uint8Array | Uint16Array | Uint32Array
  readonly colored: boolean
}

/** A value of a label that stands for no class. */
export interface InvalidValue {
  readonly value: number
  pixels: number
  /** Index of the first pixel. */
  readonly first: number
}

/** Images larger than this are refused before they are decoded as a whole. */
export const MAX_PIXELS = 2 ** 26
const MAX_LABEL_BYTES = 2 ** 28

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
 * Decodes a label file: a grey, palette or RGB PNG. Of a palette the indices count, not the colours.
 * @throws UserError naming the file
 */
export async function readStoredLabel(path: string, maxPixels = MAX_PIXELS): Promise<StoredLabel> {
  try {
    const file = await stat(path)
    if (!file.isFile()) throw new Error('it is not a file')
    if (file.size > MAX_LABEL_BYTES) throw new Error(`it has ${file.size} bytes, more than ${MAX_LABEL_BYTES}`)
    const png = await decodePng(await readFile(path), maxPixels)
    return { width: png.width, height: png.height, values: valuesOf(png), colored: png.channels === 3 }
  } catch (error) {
    const [line = ''] = (error instanceof Error ? error.message : String(error)).trim().split('\n')
    throw new UserError(
      `cannot read the label ${path}: ${line.replace(/:$/, '')}; replace the file, or take it off the list`,
    )
  }
}

/** What a stored value stands for, -1 for nothing. */
function classOf(value: number, rules: LabelRules): number {
  const { nclass, ignoreIndex, reduceZero, values } = rules
  if (values) return values.get(value) ?? (value === ignoreIndex ? ignoreIndex : -1)
  if (reduceZero && (value === 0 || value === 255)) return ignoreIndex
  const index = reduceZero ? value - 1 : value
  if (index < nclass) return index
  return value === ignoreIndex ? ignoreIndex : -1
}

/**
 * Turns stored values into classes.
 * @returns data [H, W]: 0 to nclass - 1, or ignoreIndex, also for the invalid values, which come in the order of rows
 * @throws UserError where the label has colours and the rules have none
 */
export function toClasses(
  stored: StoredLabel,
  rules: LabelRules,
  path: string,
): { label: Image; invalid: InvalidValue[] } {
  const { width, height, values, colored } = stored
  if (colored && !rules.colors) {
    throw new UserError(
      `the label ${path} holds colours: give the colours of the classes as 'palette', or store class indices`,
    )
  }
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
  return { label: { data, width, height }, invalid: [...invalid.values()] }
}

/** A stored value as people write it. */
export const showValue = (value: number, colored: boolean): string =>
  colored ? `#${value.toString(16).padStart(6, '0')}` : String(value)

/** What is wrong with a value, and the remedy. */
export function explainInvalid(value: number, colored: boolean, rules: LabelRules): string {
  const { nclass, ignoreIndex, reduceZero, values } = rules
  const shown = showValue(value, colored)
  if (colored) {
    return (
      `the colour ${shown} is not in the palette: correct the label, or add the colour to label_map ` +
      `('${shown}': ${ignoreIndex} to ignore it)`
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
export async function readLabel(path: string, rules: LabelRules, maxPixels = MAX_PIXELS): Promise<Image> {
  const stored = await readStoredLabel(path, maxPixels)
  const { label, invalid } = toClasses(stored, rules, path)
  const [first] = invalid
  if (!first) return label
  const [x, y] = [first.first % label.width, Math.floor(first.first / label.width)]
  const { colored } = stored
  throw new UserError(
    `${path}: label value ${showValue(first.value, colored)} at x=${x}, y=${y}, but ` +
      explainInvalid(first.value, colored, rules),
  )
}
