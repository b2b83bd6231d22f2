import { existsSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { WriteError } from '../error.js'
import { GrowingFile } from '../io/append-file.js'
import { reasonOf } from '../io/files.js'
import type { StepResult } from '../trainer/trainer.js'

/** The events of a run as JSON lines in a file. */
export class RunLog {
  private readonly file: GrowingFile

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
    this.file = new GrowingFile(path, end)
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

/** The numbers of a step by name. */
export const numbersOf = ({
  lr_used,
  loss_scale,
  skipped_steps,
  nonFinite,
  ...numbers
}: StepResult): Record<string, number> => numbers

const shortNames = [
  ['loss_x', 'x'],
  ['loss_s1', 's1'],
  ['loss_s2', 's2'],
  ['loss_fp', 'fp'],
  ['loss_s1_prev', 'prev s1'],
  ['loss_s2_prev', 'prev s2'],
  ['loss_fp_prev', 'prev fp'],
] as const

/** The parts of the loss under short names. */
export const lossParts = (means: Readonly<Record<string, number>>): Record<string, number> =>
  Object.fromEntries(
    shortNames.flatMap(([name, short]) => {
      const value = means[name]
      return value === undefined ? [] : [[short, value]]
    }),
  )

/** `loss 1.234 (x 0.9, s1 0.2, …)  mask 0.81` */
export function showLosses(means: Readonly<Record<string, number>>): string {
  const parts = Object.entries(lossParts(means)).map(([short, value]) => `${short} ${value.toFixed(3)}`)
  const ratios = [means.mask_ratio, means.mask_ratio_prev].filter((value) => value !== undefined)
  const masks = ratios.length > 0 ? `  mask ${ratios.map((value) => value.toFixed(3)).join('/')}` : ''
  const single = parts.length < 2 ? '' : ` (${parts.join(', ')})`
  return `loss ${(means.total_loss ?? Number.NaN).toFixed(4)}${single}${masks}`
}
