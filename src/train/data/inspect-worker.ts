import { parentPort } from 'node:worker_threads'
import { UserError } from '../error.js'
import { inLabelDirection, readPhoto, type Sample, sidesFault } from './dataset.js'
import { factsOf, type ImageFacts } from './image-facts.js'
import type { LabelRules } from './label-rules.js'
import { readStoredLabel, toClasses } from './labels.js'
import { type PaletteReading, paletteReading } from './palette-labels.js'
import type { Image } from './pixels.js'

/** A file pair to be looked at. */
export interface InspectionTask {
  readonly id: number
  readonly sample: Sample
  /** With rules, image and label are read and checked; without, the label's values are listed alone. */
  readonly rules: LabelRules | null
  /** Colours 0xRRGGBB that the classes have elsewhere, where the rules name none. */
  readonly usualColors: ReadonlyMap<number, number> | null
}

/** A stored value that stands for no class, in one label. */
export interface InvalidValueAt {
  readonly value: number
  readonly colored: boolean
  /** Whether the label has a palette. */
  readonly indexed: boolean
  readonly pixels: number
  readonly x: number
  readonly y: number
}

/** What was found in one pair. */
export interface Inspection {
  readonly id: number
  /** Size of the image; null where it cannot be read. */
  readonly size: { readonly width: number; readonly height: number } | null
  /** 1 to 8: 1 where the image has no EXIF orientation. */
  readonly orientation: number
  /** Whether the image has its label's sides only as its pixels are stored, although its orientation is to be applied. */
  readonly fitsStored: boolean
  /** What its pixels tell; null where it cannot be read. */
  readonly facts: ImageFacts | null
  /** Pixels per class, those that are ignored last; null where the label is absent, unreadable or has invalid values. */
  readonly pixels: readonly number[] | null
  /** How a label with a palette is read, where colours of the classes are known. */
  readonly palette: PaletteReading | null
  readonly invalidValues: readonly InvalidValueAt[]
  /** Different values in the label; at most `maxValues`. */
  readonly values: readonly number[]
  /** What is wrong with the files, a line each. */
  readonly problems: readonly string[]
}

/** A label with more values than this is a photograph. */
export const maxValues = 1024

type Draft = { -readonly [Key in keyof Inspection]: Inspection[Key] } & { problems: string[] }

const draftOf = (id: number): Draft => {
  const nothing = { size: null, facts: null, pixels: null, palette: null, invalidValues: [], values: [] }
  return { id, orientation: 1, fitsStored: false, ...nothing, problems: [] }
}

async function listValues(path: string, draft: Draft): Promise<void> {
  const { values: stored } = await readStoredLabel(path)
  const values = new Set<number>()
  for (const value of stored) if (values.size < maxValues) values.add(value)
  draft.values = [...values]
}

/**
 * Looks at a label.
 * @returns its classes, and the image turned the way it is read for them; null where there is no such pair
 */
async function inspectLabel(
  sample: Sample & { readonly label: string },
  rules: LabelRules,
  usualColors: InspectionTask['usualColors'],
  decoded: Image | null,
  draft: Draft,
): Promise<{ image: Image; label: Image } | null> {
  const stored = await readStoredLabel(sample.label)
  const image = decoded && (await inLabelDirection(decoded, stored, sample.image, rules.orientation))
  const fault = image && sidesFault(sample, image, stored, rules.orientation)
  if (fault) draft.problems.push(fault)
  if (image) draft.size = { width: image.width, height: image.height }
  draft.fitsStored = image !== decoded
  draft.palette = paletteReading(stored, rules, usualColors)
  const { label, invalid, colored } = toClasses(stored, rules, sample.label, draft.palette)
  if (invalid.length > 0) {
    draft.invalidValues = invalid.slice(0, maxValues).map(({ value, pixels, first }) => {
      return {
        value,
        colored,
        indexed: stored.palette !== undefined,
        pixels,
        x: first % stored.width,
        y: Math.floor(first / stored.width),
      }
    })
    return null
  }
  const byValue = new Array<number>(256).fill(0)
  for (const value of label.data) byValue[value] = (byValue[value] as number) + 1
  draft.pixels = [...byValue.slice(0, rules.nclass), byValue[rules.ignoreIndex] as number]
  return image && !fault ? { image, label } : null
}

async function inspect({ id, sample, rules, usualColors }: InspectionTask): Promise<Inspection> {
  const draft = draftOf(id)
  const attempt = async <T>(body: () => Promise<T>): Promise<T | null> => {
    try {
      return await body()
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      draft.problems.push(error.message)
      return null
    }
  }
  const { label } = sample
  if (!rules) {
    if (label !== null) await attempt(() => listValues(label, draft))
    return draft
  }
  const photo = await attempt(() => readPhoto(sample.image, rules.orientation))
  const image = photo?.image ?? null
  if (photo && image) {
    draft.orientation = photo.exif
    draft.size = { width: image.width, height: image.height }
  }
  const pair =
    label === null ? null : await attempt(() => inspectLabel({ ...sample, label }, rules, usualColors, image, draft))
  if (image) draft.facts = factsOf(pair?.image ?? image, pair?.label ?? null)
  return draft
}

parentPort?.on('message', (task: InspectionTask) => {
  void inspect(task).then((inspection) => parentPort?.postMessage(inspection))
})
