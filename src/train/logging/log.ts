import { existsSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { WriteError } from '../error.js'
import { AppendFile } from '../io/append-file.js'
import { reasonOf } from '../io/files.js'
import type { MetricSpec } from '../methods/method.js'

/** The events of a run as JSON lines in a file. */
export class RunLog {
  private readonly file: AppendFile

  /**
   * @param keep bytes of the file that stay, where a run is resumed; the rest belongs to steps that are done again
   * @throws WriteError if the file cannot be written
   */
  constructor(path: string, keep = 0) {
    const end = keep > 0 && existsSync(path) ? Math.min(keep, statSync(path).size) : 0
    try {
      if (end > 0) truncateSync(path, end)
      else writeFileSync(path, '')
    } catch (error) {
      throw new WriteError(path, reasonOf(error))
    }
    this.file = new AppendFile(path, end)
  }

  /** Length of the file so far. */
  get bytes(): number {
    return this.file.bytes
  }

  /** @throws WriteError if the line is not in the file yet: it will go before the next one */
  write(event: string, fields: Record<string, unknown>): void {
    this.file.append(Buffer.from(`${JSON.stringify({ event, ...fields })}\n`))
  }

  /**
   * Flushes the file to the disk.
   * @throws WriteError if lines are missing in it
   */
  sync(): void {
    this.file.sync()
  }
}

/** Seconds as `1:02:03` or `2:03`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const shown = parts[0] === 0 ? parts.slice(1) : parts
  return shown.map((part, i) => (i === 0 ? String(part) : String(part).padStart(2, '0'))).join(':')
}

/** Sums of values and their counts, by name. */
export type MeansState = Readonly<Record<string, { readonly total: number; readonly count: number }>>

/** The running means of what steps compute, for one line of the log. */
export class Means {
  private readonly sums: Map<string, { readonly total: number; readonly count: number }>

  /** @param state where a resumed run stood */
  constructor(state: MeansState = {}) {
    this.sums = new Map(Object.entries(state))
  }

  get state(): MeansState {
    return Object.fromEntries(this.sums)
  }

  add(values: Readonly<Record<string, number | undefined>>): void {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) continue
      const { total, count } = this.sums.get(name) ?? { total: 0, count: 0 }
      this.sums.set(name, { total: total + value, count: count + 1 })
    }
  }

  /** The means since the last call. */
  take(): Record<string, number> {
    const means = Object.fromEntries([...this.sums].map(([name, { total, count }]) => [name, total / count]))
    this.sums.clear()
    return means
  }
}

/** The losses that make up the total one, under their short names. */
export const lossParts = (
  means: Readonly<Record<string, number>>,
  metrics: readonly MetricSpec[],
): Record<string, number> =>
  Object.fromEntries(
    metrics.flatMap(({ name, short }) => {
      const value = means[name]
      return value === undefined || short === undefined ? [] : [[short, value]]
    }),
  )

/** The shares of pixels that were learned from, in the order of the metrics. */
export const maskRatios = (means: Readonly<Record<string, number>>, metrics: readonly MetricSpec[]): number[] =>
  metrics.flatMap(({ name, curve }) => {
    const value = means[name]
    return value === undefined || curve?.chart !== 'mask' ? [] : [value]
  })

/** `loss 1.234 (x 0.9, s1 0.2, …)  mask 0.81` */
export function showLosses(means: Readonly<Record<string, number>>, metrics: readonly MetricSpec[]): string {
  const parts = Object.entries(lossParts(means, metrics)).map(([short, value]) => `${short} ${value.toFixed(3)}`)
  const ratios = maskRatios(means, metrics)
  const masks = ratios.length > 0 ? `  mask ${ratios.map((value) => value.toFixed(3)).join('/')}` : ''
  const single = parts.length < 2 ? '' : ` (${parts.join(', ')})`
  return `loss ${(means.total_loss ?? Number.NaN).toFixed(4)}${single}${masks}`
}
