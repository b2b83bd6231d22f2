import { readFileSync } from 'node:fs'
import type { Chart, Series } from '../drawing/page.js'
import { UserError } from '../error.js'
import type { MetricSpec } from '../methods/method.js'

/** A line of log.jsonl: `event` and its fields. */
export interface LogEvent {
  readonly event: string
  readonly [field: string]: unknown
}

/**
 * The lines of a log.jsonl. The last one is left out where it is incomplete.
 * @throws UserError if the file cannot be read or another line is not an event
 */
export function readLog(path: string): LogEvent[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new UserError(`cannot read ${path}: ${error instanceof Error ? error.message : error}`)
  }
  const lines = text.split('\n')
  // What follows the last line break is empty, or a line that was being written.
  return lines.slice(0, -1).map((line, i) => {
    const event = parse(line)
    if (!event) throw new UserError(`${path}: line ${i + 1} is not an event of a training log`)
    return event
  })
}

function parse(line: string): LogEvent | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return isEvent(value) ? value : undefined
  } catch {
    return undefined
  }
}

const isEvent = (value: unknown): value is LogEvent =>
  typeof value === 'object' && value !== null && 'event' in value && typeof value.event === 'string'

/** A number of an event; undefined where there is none or it is not finite. */
export const numberOf = (event: LogEvent, field: string): number | undefined => {
  const value = event[field]
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

/** Numbers of an event, such as one per class; undefined where the field is not a list. */
export const numbersIn = (event: LogEvent, field: string): (number | undefined)[] | undefined => {
  const value = event[field]
  if (!Array.isArray(value)) return undefined
  return value.map((entry: unknown) => (typeof entry === 'number' && Number.isFinite(entry) ? entry : undefined))
}

interface Curve {
  readonly label: string
  readonly color: Series['color']
  readonly dashed?: true
  readonly value: (event: LogEvent) => number | undefined
}

const field =
  (name: string, scale = 1) =>
  (event: LogEvent): number | undefined => {
    const value = numberOf(event, name)
    return value === undefined ? undefined : value * scale
  }

interface Plan {
  readonly id: string
  readonly title: string
  readonly unit: Chart['unit']
  readonly event: string
  readonly curves: readonly Curve[]
}

const plansOf = (metrics: readonly MetricSpec[]): readonly Plan[] => [
  {
    ...{ id: 'loss', title: 'Losses', unit: '', event: 'train' },
    curves: [{ label: 'total', color: 'ink', value: field('total_loss') }, ...curvesOf(metrics, 'loss', 1)],
  },
  {
    ...{ id: 'miou', title: 'Mean IoU', unit: '%', event: 'evaluation' },
    curves: [
      { label: 'best', color: 'muted', dashed: true, value: field('best') },
      { label: 'mIoU', color: 'blue', value: field('miou') },
    ],
  },
  {
    ...{ id: 'mask', title: 'Mask ratio', unit: '%', event: 'train' },
    curves: curvesOf(metrics, 'mask', 100),
  },
  {
    ...{ id: 'lr', title: 'Learning rate', unit: '', event: 'train' },
    curves: [{ label: 'learning rate', color: 'blue', value: field('lr') }],
  },
  {
    ...{ id: 'scale', title: 'Loss scale', unit: '', event: 'train' },
    curves: [{ label: 'loss scale', color: 'blue', value: field('loss_scale') }],
  },
  {
    ...{ id: 'time', title: 'Time per step', unit: 'ms', event: 'train' },
    curves: [
      { label: 'step', color: 'blue', value: field('seconds', 1000) },
      { label: 'waiting for data', color: 'amber', value: field('data', 1000) },
    ],
  },
]

function curvesOf(metrics: readonly MetricSpec[], wanted: 'loss' | 'mask', scale: number): Curve[] {
  return metrics.flatMap(({ name, curve }) => {
    if (curve?.chart !== wanted) return []
    const { chart, ...look } = curve
    return [{ ...look, value: field(name, scale) }]
  })
}

/** More points than a screen is wide show nothing more. */
const maxPoints = 1000

/**
 * The charts of a run; a chart or a curve without any value is left out.
 * @param metrics of the run's method
 */
export function chartsOf(events: readonly LogEvent[], metrics: readonly MetricSpec[]): Chart[] {
  return plansOf(metrics).flatMap(({ id, title, unit, event, curves }) => {
    const points = events.filter((e) => e.event === event && numberOf(e, 'iteration') !== undefined)
    const buckets = group(points, Math.ceil(points.length / maxPoints))
    const series = curves
      .map(({ value, ...look }) => ({ ...look, values: buckets.map((bucket) => mean(bucket.map(value))) }))
      .filter(({ values }) => values.some((value) => value !== null))
    const x = buckets.map((bucket) => numberOf(bucket.at(-1) ?? { event }, 'iteration') ?? 0)
    return series.length > 0 ? [{ id, title, unit, x, series }] : []
  })
}

/** Neighbours in groups of `size`. */
function group<T>(values: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(values.length / Math.max(1, size)) }, (_, i) =>
    values.slice(i * size, (i + 1) * size),
  )
}

/** Mean of the values that are there, with as many digits as a chart can show. */
function mean(values: readonly (number | undefined)[]): number | null {
  const given = values.filter((value) => value !== undefined)
  if (given.length === 0) return null
  return Number((given.reduce((sum, value) => sum + value, 0) / given.length).toPrecision(6))
}

/** What the last evaluation says of a class, in percent. */
export interface ClassRow {
  readonly name: string
  readonly iou: number | undefined
  /** Against the evaluation before. */
  readonly change: number | undefined
  readonly accuracy: number | undefined
  /** Of the class in all pixels. */
  readonly share: number | undefined
  /** IoU of all evaluations. */
  readonly history: readonly (number | undefined)[]
}

/** The classes of the last evaluation; none before the first. */
export function classRows(events: readonly LogEvent[], names: readonly string[]): ClassRow[] {
  const evaluations = events.filter(({ event }) => event === 'evaluation')
  const last = evaluations.at(-1)
  if (!last) return []
  const scores = evaluations.map((evaluation) => numbersIn(evaluation, 'iou'))
  const accuracy = numbersIn(last, 'accuracy')
  const share = numbersIn(last, 'share')
  return (scores.at(-1) ?? []).map((value, k) => {
    const history = scores.map((iou) => iou?.[k])
    const before = history.at(-2)
    const change = value === undefined || before === undefined ? undefined : value - before
    return { name: names[k] ?? `class ${k}`, iou: value, change, accuracy: accuracy?.[k], share: share?.[k], history }
  })
}

/** Seconds spent in training steps, without evaluations. */
export function trainingSeconds(events: readonly LogEvent[]): number {
  let previous = 0
  let seconds = 0
  for (const event of events) {
    const iteration = event.event === 'train' ? numberOf(event, 'iteration') : undefined
    if (iteration === undefined) continue
    seconds += (numberOf(event, 'seconds') ?? 0) * (iteration - previous)
    previous = iteration
  }
  return seconds
}
