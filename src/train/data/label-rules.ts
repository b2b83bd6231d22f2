import { packColor } from './classes.js'
import type { ExifOrientation, LabelSettings } from './settings.js'

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
  /** Levels of grey whose colours a map of values names: `#ffffff` is 255 in a grey image. */
  greys?: ReadonlySet<number>
  /** Which way up the images are that labels belong to. Default: `apply`. */
  orientation?: ExifOrientation
}

/** The level of a grey, -1 of other colours. */
export const greyOf = (color: number): number => (color % 0x010101 === 0 ? color / 0x010101 : -1)

/** The rules that a configuration gives; where `palette` and `label_map` name the same colour, `label_map` counts. */
export function labelRules(config: LabelSettings): LabelRules {
  const { nclass, ignore_index: ignoreIndex, reduce_zero_label: reduceZero, palette, label_map: map = {} } = config
  const keys = Object.keys(map)
  const number = (key: string) => (key.startsWith('#') ? Number.parseInt(key.slice(1), 16) : Number(key))
  const entries = (wanted: string[]) => wanted.map((key): [number, number] => [number(key), map[key] as number])
  const values = new Map(entries(keys.filter((key) => !key.startsWith('#'))))
  const fromPalette = (palette ?? []).map((color, i): [number, number] => [packColor(color), i])
  const mapped = entries(keys.filter((key) => key.startsWith('#')))
  const colors = new Map([...fromPalette, ...mapped])
  const greys = new Set(mapped.map(([color]) => greyOf(color)).filter((level) => level >= 0))
  return {
    nclass,
    ignoreIndex,
    reduceZero,
    ...(values.size > 0 ? { values } : {}),
    ...(colors.size > 0 ? { colors } : {}),
    ...(greys.size > 0 ? { greys } : {}),
    ...(config.exif_orientation ? { orientation: config.exif_orientation } : {}),
  }
}

/** A label file as it is stored. */
export interface StoredLabel {
  readonly width: number
  readonly height: number
  /** [H, W]: grey values or palette indices, or colours 0xRRGGBB. */
  readonly values: Uint8Array | Uint16Array | Uint32Array
  readonly colored: boolean
  /** Colours 0xRRGGBB by index, where the values are indices. */
  readonly palette?: readonly number[]
}

/** What a stored value stands for, -1 for nothing. */
export function classOf(value: number, rules: LabelRules): number {
  const { nclass, ignoreIndex, reduceZero, values } = rules
  if (values) return values.get(value) ?? (value === ignoreIndex ? ignoreIndex : -1)
  if (reduceZero && (value === 0 || value === 255)) return ignoreIndex
  const index = reduceZero ? value - 1 : value
  if (index < nclass) return index
  return value === ignoreIndex ? ignoreIndex : -1
}

/** The values that occur in bytes, in ascending order. Labels have runs of equal ones, which are passed four at a time. */
export function usedBytes(values: Uint8Array): number[] {
  const isUsed = new Uint8Array(256)
  const mark = (part: Uint8Array) => {
    for (let i = 0; i < part.length; i++) isUsed[part[i] as number] = 1
  }
  const { buffer, byteOffset, length } = values
  const head = -byteOffset & 3
  const count = Math.max(0, length - head) >> 2
  const words = count > 0 ? new Uint32Array(buffer, byteOffset + head, count) : new Uint32Array()
  mark(values.subarray(0, head))
  mark(values.subarray(head + 4 * count))
  let last = -1
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as number
    if (word === last) continue
    last = word
    isUsed[word & 255] = 1
    isUsed[(word >> 8) & 255] = 1
    isUsed[(word >> 16) & 255] = 1
    isUsed[word >>> 24] = 1
  }
  return [...isUsed.keys()].filter((value) => isUsed[value] === 1)
}
