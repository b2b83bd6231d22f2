import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Measurement, Tuning } from '../../engine/autotune.js'
import type { Device } from '../../engine/device.js'
import { setKernelSelection } from '../../engine/kernel-selection.js'
import { type MeasureOptions, measureKernels } from '../../engine/measure-kernels.js'
import { readTuning, TuningCache, writeTuning } from './tuning-cache.js'

/** Makes the programs of a device take the kernels that were measured to be the fastest, and measures nothing. */
export function useTuning(device: Device, tuning: Tuning): void {
  setKernelSelection(device, () => tuning.selectKernel)
}

/** Multiply-adds of a run that is timed on a GPU, at most: 0.2 TFLOP, which no desktop waits for. */
const largestRun = 1e11

export interface MeasureUnknownOptions extends MeasureOptions {
  /** How many calls of a program are measured at most: those with the most work. */
  readonly most?: number | undefined
}

/** Makes the programs of a device take the fastest kernels, and measures those that are not known before. */
export function measureUnknown(
  device: Device,
  tuning: Tuning,
  cache: TuningCache,
  onMeasured: (measurement: Measurement, done: number, total: number) => void,
  { most, ...options }: MeasureUnknownOptions = {},
): void {
  setKernelSelection(device, async (trace) => {
    const keep = async (measurement: Measurement, done: number, total: number) => {
      // At once, so that what was measured before an interruption is kept.
      tuning.add(await cache.add([measurement]))
      onMeasured(measurement, done, total)
    }
    const missing = (await tuning.missing(trace, device.traits)).slice(0, most)
    // On the CPU no kernel is known to lose a device, and there is no desktop to wait.
    const onGpu = device.adapter.software ? {} : { reopen: device.reopen, largest: largestRun }
    await measureKernels(device, missing, keep, { ...onGpu, ...options })
    return tuning.selectKernel
  })
}

/** A line for each kernel that was found to be wrong, or lost the device. */
export const faultyKernels = ({ call, wrong = [], unfit = [] }: Measurement): string[] => [
  ...wrong.map((name) => `kernels: ${name} gives wrong results on this adapter, so that it is not used: ${call}`),
  ...unfit.map((name) => `kernels: ${name} loses or blocks this adapter, so that it is not used: ${call}`),
]

/** Milliseconds between two lines of progress. */
const lineInterval = 5000

export interface RunTuningOptions {
  /** true: also measure on software adapters; false: take the first kernel of each operator. */
  readonly tune?: boolean | undefined
  /** What another process of the training has measured: its choices are taken. */
  readonly given?: readonly Measurement[] | undefined
  /** The folder of the run that is resumed. */
  readonly resumed?: string | undefined
  readonly print: (line: string) => void
}

/**
 * The choices of a training run. They are kept in its folder, and a resumed run takes those, whatever the cache
 * holds by then: kernels differ in the order of their sums, so that others would give other bits.
 */
export class RunTuning {
  private constructor(
    private readonly device: Device,
    private readonly tuning: Tuning,
    private readonly cache: TuningCache,
    private readonly isKept: boolean,
  ) {}

  /** Until `freeze`, what is not known is measured, where the options say so. */
  static begin(device: Device, { tune, given, resumed, print }: RunTuningOptions): RunTuning {
    const cache = new TuningCache(device.adapter, print)
    if (given) {
      const tuning = new Tuning(given)
      useTuning(device, tuning)
      return new RunTuning(device, tuning, cache, true)
    }
    // Runs of earlier versions kept no such file: they took the first kernels.
    const kept =
      resumed === undefined ? undefined : (readTuning(fileIn(resumed)) ?? { adapter: cache.adapter, measurements: [] })
    if (kept?.adapter === cache.adapter) {
      const tuning = new Tuning(kept.measurements)
      useTuning(device, tuning)
      return new RunTuning(device, tuning, cache, true)
    }
    if (kept) print(`kernels: chosen anew, since the run began on ${kept.adapter}: the last bits may differ`)
    const tuning = new Tuning(tune === false ? [] : cache.read())
    useTuning(device, tuning)
    if (tune ?? !device.adapter.software) {
      const show = nowAndThen(print)
      let said = false
      measureUnknown(
        device,
        tuning,
        cache,
        (measurement, done, total) => {
          for (const line of faultyKernels(measurement)) print(line)
          show(`tuning: measured ${done} of ${total} operators`, done === total)
        },
        {
          onCompiled: (done, total) => {
            if (total === 0) return
            if (!said) print(`kernels: measuring which are fastest on this adapter, once: kept in ${cache.path}`)
            said = true
            show(`tuning: compiled ${done} of ${total} kernels to measure`, done === total)
          },
        },
      )
    }
    return new RunTuning(device, tuning, cache, false)
  }

  /** From now on nothing is measured: the choices are those of the run. */
  freeze(): void {
    useTuning(this.device, this.tuning)
  }

  get measurements(): readonly Measurement[] {
    return this.tuning.measurements
  }

  /** Keeps the choices in the folder of the run. */
  save(folder: string): void {
    if (!this.isKept || !existsSync(fileIn(folder)))
      writeTuning(fileIn(folder), this.cache.adapter, this.tuning.measurements)
  }
}

/** Prints a line of progress where the last one is some seconds old, or where something is complete. */
function nowAndThen(print: (line: string) => void): (line: string, complete: boolean) => void {
  let last = performance.now()
  return (line, complete) => {
    if (!complete && performance.now() - last < lineInterval) return
    last = performance.now()
    print(line)
  }
}

const fileIn = (folder: string): string => join(folder, 'kernels.json')
