// Labels with a palette: their indices can be the classes, or the colours that viewers show, which programs that make
// files smaller store under any index, or as greys where there are no others.

import { classOf, greyOf, type LabelRules, type StoredLabel, usedBytes } from './label-rules.js'

/** One index of a palette label that is used, and what it stands for; -1 for nothing. */
export interface IndexReading {
  readonly index: number
  /** 0xRRGGBB; -1 where the palette ends before the index. */
  readonly color: number
  readonly byIndex: number
  readonly byColor: number
}

/** How a palette label is read. */
export interface PaletteReading {
  /** `grey`: the colours are greys, whose levels are the values. */
  readonly by: 'index' | 'color' | 'grey'
  /** Indices that stand for another class than their colours do. */
  readonly differing: readonly IndexReading[]
}

/** Whether colours are the values of a grey image: classes, not just black and the white of what is ignored. */
const areValues = (greys: readonly IndexReading[], { ignoreIndex }: LabelRules): boolean =>
  greys.every(({ byColor }) => byColor >= 0) && greys.some(({ byColor }) => byColor > 0 && byColor !== ignoreIndex)

/**
 * How a palette label is read where `colors` are the colours of the classes. By colour where they name every colour that
 * occurs, or a class for one of them that its index does not stand for. Else greys are read as in a grey image, where all
 * of them stand for something, and other colours are taken to be for show: indices count.
 */
export function readPalette(
  { values, palette = [] }: StoredLabel,
  rules: LabelRules,
  colors: ReadonlyMap<number, number>,
): PaletteReading {
  // Indices are bytes.
  const used = values instanceof Uint8Array ? usedBytes(values) : []
  const readings = used.map((index) => {
    const color = palette[index] ?? -1
    return { index, color, byIndex: classOf(index, rules), byColor: colors.get(color) ?? -1 }
  })
  const differ = (all: readonly IndexReading[]) => all.filter(({ byIndex, byColor }) => byIndex !== byColor)
  const named = readings.filter(({ byColor }) => byColor >= 0)
  const greys = readings.map((reading) => {
    const grey = greyOf(reading.color)
    return { ...reading, byColor: grey < 0 ? -1 : classOf(grey, rules) }
  })
  if (named.length === readings.length) return { by: 'color', differing: differ(readings) }
  if (areValues(greys, rules)) return { by: 'grey', differing: differ(greys) }
  if (differ(named).length > 0) return { by: 'color', differing: differ(readings) }
  return { by: 'index', differing: differ(readings).filter(({ byIndex }) => byIndex !== rules.ignoreIndex) }
}

/** Whether a grey label shows no other levels than those that a map names by their colours. */
const isNamedByColor = ({ values, colored }: StoredLabel, { greys }: LabelRules): boolean =>
  greys !== undefined &&
  !colored &&
  values instanceof Uint8Array &&
  usedBytes(values).every((level) => greys.has(level))

/**
 * A label as its rules read it: one with a palette, or in named greys, becomes colours, or greys, where these count.
 * @param reading how its palette is read
 */
export function asRead(
  stored: StoredLabel,
  rules: LabelRules,
  reading: PaletteReading | null = paletteReading(stored, rules, null),
): StoredLabel {
  const { palette, values, width, height } = stored
  // Values that are named mean the stored ones.
  if (!rules.colors || rules.values) return stored
  if (!palette) {
    if (!isNamedByColor(stored, rules)) return stored
    return { width, height, values: Uint32Array.from(values, (level) => level * 0x010101), colored: true }
  }
  if (!reading || reading.by === 'index') return stored
  if (reading.by === 'grey') {
    return { width, height, values: Uint8Array.from(values, (value) => greyOf(palette[value] ?? -1)), colored: false }
  }
  return { width, height, values: Uint32Array.from(values, (value) => palette[value] ?? -1), colored: true }
}

/** How a label with a palette is read, by the colours of the rules or, where these name none, what `usualColors` say of it. */
export function paletteReading(
  stored: StoredLabel,
  rules: LabelRules,
  usualColors: ReadonlyMap<number, number> | null,
): PaletteReading | null {
  const colors = rules.colors ?? usualColors
  if (!stored.palette || rules.values || !colors) return null
  return readPalette(stored, rules, colors)
}
