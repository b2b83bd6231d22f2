import { parentPort } from 'node:worker_threads'
import { UserError } from '../error.js'
import { readImage, type Sample } from './dataset.js'
import { type LabelRules, readStoredLabel, toClasses } from './labels.js'

/** A file pair to be looked at. */
export interface InspectionTask {
  readonly id: number
  readonly sample: Sample
  /** With rules, image and label are read and checked; without, the label's values are listed alone. */
  readonly rules: LabelRules | null
}

/** A stored value that stands for no class, in one label. */
export interface InvalidValueAt {
  readonly value: number
  readonly colored: boolean
  readonly pixels: number
  readonly x: number
  readonly y: number
}

/** What was found in one pair. */
export interface Inspection {
  readonly id: number
  /** Size of the image; null where it cannot be read. */
  readonly size: { readonly width: number; readonly height: number } | null
  /** Pixels per class, those that are ignored last; null where the label is absent, unreadable or has invalid values. */
  readonly pixels: readonly number[] | null
  readonly invalidValues: readonly InvalidValueAt[]
  /** Different values in the label; at most `mostValues`. */
  readonly values: readonly number[]
  /** What is wrong with the files, a line each. */
  readonly problems: readonly string[]
}

/** A label with more values than this is a photograph. */
export const mostValues = 1024

type Draft = { -readonly [Key in keyof Inspection]: Inspection[Key] } & { problems: string[] }

async function inspectLabel(path: string, rules: LabelRules | null, draft: Draft): Promise<void> {
  const stored = await readStoredLabel(path)
  const { width, height } = stored
  if (!rules) {
    const values = new Set<number>()
    for (const value of stored.values) if (values.size < mostValues) values.add(value)
    draft.values = [...values]
    return
  }
  if (draft.size && (draft.size.width !== width || draft.size.height !== height)) {
    const { width: imageWidth, height: imageHeight } = draft.size
    const turned = imageWidth === height && imageHeight === width
    const remedy = turned ? 'turn the stored pixels of one of them (EXIF rotation is not applied)' : 'make them equal'
    draft.problems.push(
      `${path} has ${width}x${height} pixels, but its image has ${imageWidth}x${imageHeight}: ${remedy}`,
    )
  }
  const { label, invalid } = toClasses(stored, rules, path)
  if (invalid.length > 0) {
    draft.invalidValues = invalid.slice(0, mostValues).map(({ value, pixels, first }) => {
      return { value, colored: stored.colored, pixels, x: first % width, y: Math.floor(first / width) }
    })
    return
  }
  const byValue = new Array<number>(256).fill(0)
  for (const value of label.data) byValue[value] = (byValue[value] as number) + 1
  draft.pixels = [...byValue.slice(0, rules.nclass), byValue[rules.ignoreIndex] as number]
}

async function inspect({ id, sample, rules }: InspectionTask): Promise<Inspection> {
  const draft: Draft = { id, size: null, pixels: null, invalidValues: [], values: [], problems: [] }
  const attempt = async (body: () => Promise<void>) => {
    try {
      await body()
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      draft.problems.push(error.message)
    }
  }
  if (rules) {
    await attempt(async () => {
      const { width, height } = await readImage(sample.image)
      draft.size = { width, height }
    })
  }
  const { label } = sample
  if (label !== null) await attempt(() => inspectLabel(label, rules, draft))
  return draft
}

parentPort?.on('message', (task: InspectionTask) => {
  void inspect(task).then((inspection) => parentPort?.postMessage(inspection))
})
