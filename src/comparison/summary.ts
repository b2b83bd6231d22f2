import { duration } from '../train/logging/log.js'
import type { ComparedRun, ComparedScores } from './compared-run.js'

/** Mean over seeds, and how far they lie apart: the sample standard deviation, undefined for one seed. */
export interface Spread {
  readonly mean: number
  readonly deviation: number | undefined
}

/** A method over all seeds. */
export interface MethodSummary {
  readonly method: string
  readonly seeds: readonly number[]
  /** In percent: of the best evaluation of each run, and of its last one. */
  readonly best: Spread
  readonly last: Spread
  /** Of the best evaluations, per class. */
  readonly classes: readonly Spread[]
  /** Of training steps, in seconds. */
  readonly seconds: Spread
  /** What the training takes of the device, in bytes. */
  readonly memory: number
}

/** The spread of at least one value, in its unit. */
export function spreadOf(values: readonly number[]): Spread {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  if (values.length < 2) return { mean, deviation: undefined }
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  return { mean, deviation: Math.sqrt(squares / (values.length - 1)) }
}

/**
 * The methods in the order of their first runs.
 * @param memory by method, in bytes
 */
export function summarize(runs: readonly ComparedRun[], memory: ReadonlyMap<string, number>): MethodSummary[] {
  const methods = [...new Set(runs.map(({ method }) => method))]
  return methods.map((method) => {
    const own = runs.filter((run) => run.method === method)
    const over = (value: (scores: ComparedScores) => number, of: 'best' | 'last' = 'best') =>
      spreadOf(own.map((run) => value(run[of])))
    const count = Math.max(...own.map(({ best }) => best.iou.length))
    return {
      method,
      seeds: own.map(({ seed }) => seed),
      best: over(({ miou }) => miou),
      last: over(({ miou }) => miou, 'last'),
      classes: Array.from({ length: count }, (_, k) => over(({ iou }) => iou[k] ?? 0)),
      seconds: spreadOf(own.map(({ seconds }) => seconds)),
      memory: memory.get(method) ?? 0,
    }
  })
}

/** `54.2 ± 1.3`, or `54.2` for one seed. */
export const showSpread = ({ mean, deviation }: Spread, digits = 1): string =>
  deviation === undefined ? mean.toFixed(digits) : `${mean.toFixed(digits)} ± ${deviation.toFixed(digits)}`

/** Bytes as `40 MiB`. */
export const showBytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`

/** The comparison as a table for a terminal: a line per method, the classes on the right. */
export function summaryTable(summaries: readonly MethodSummary[], classNames: readonly string[]): string[] {
  const head = ['method', 'best mIoU', 'last mIoU', 'time', 'memory', ...classNames]
  const rows = summaries.map(({ method, best, last, seconds, memory, classes }) => [
    method,
    showSpread(best),
    showSpread(last),
    duration(seconds.mean),
    showBytes(memory),
    ...classes.map(({ mean }) => mean.toFixed(1)),
  ])
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ')
  return [line(head), '-'.repeat(line(head).length), ...rows.map(line)]
}
