import type { AdapterTraits } from './adapter.js'
import { Arena } from './arena.js'
import { fastest, kernelOf, type Measurement, nameOf, promising, type Selectable, workOfCall } from './autotune.js'
import { layoutOf } from './bind.js'
import { BindingLimitError, type Device, DeviceLostError, KernelError, OutOfMemoryError } from './device.js'
import { read, tracedGraph } from './graph.js'
import { divideOf } from './ir.js'
import type { Dispatch } from './kernel.js'
import { candidatesOf } from './kernel-selection.js'
import { compile, type Program } from './program.js'
import { sampleOutputs } from './sample-outputs.js'
import { byteLength, type Data, type Spec, withSamples } from './shape.js'
import { Store } from './store.js'
import { fillVariables } from './tuning-values.js'

export interface MeasureOptions {
  /**
   * Called before the first and after each pipeline that compiled, with their number so far and that of all; one that fails
   * to compile is not counted.
   */
  readonly onCompiled?: ((done: number, total: number) => void) | undefined
  /**
   * Opens the same adapter once more: kernels are then measured on a device of their own, and one that loses it, or does not
   * come to an end, costs that device alone.
   */
  readonly reopen?: (() => Promise<Device>) | undefined
  /** Multiply-adds of one run at most, see `costOf`: larger calls are timed for fewer samples. */
  readonly largest?: number | undefined
  /** Milliseconds after which a kernel is given up, where the device can be opened again. */
  readonly patience?: number
}

/** A kernel did not come to an end in time. */
class HungError extends Error {}

/**
 * Compiles the kernels of all calls, then times those of each, one call after the other.
 * @param onMeasured called, and waited for, after each call
 */
export async function measureKernels(
  device: Device,
  calls: readonly Selectable[],
  onMeasured: (measurement: Measurement, done: number, total: number) => void | Promise<void>,
  { onCompiled = () => {}, reopen, largest = Number.POSITIVE_INFINITY, patience = 10_000 }: MeasureOptions = {},
): Promise<void> {
  const timed: { readonly call: Selectable; readonly tried: Selectable }[] = []
  for (const call of calls) {
    const worthwhile = { ...call, candidates: promising(call.candidates) }
    timed.push({ call, tried: await withFewerSamples(worthwhile, largest, device.traits) })
  }
  const own = calls.length > 0 ? await reopen?.() : undefined
  let bench = own ?? device
  const dispatches = timed.flatMap(({ tried }) => tried.candidates.flatMap((candidate) => candidate.dispatches))
  let compiled = 0
  const compilePipeline = async (dispatch: Dispatch): Promise<void> => {
    await bench.pipeline(dispatch.label, dispatch.source, layoutOf(dispatch))
    onCompiled(++compiled, dispatches.length)
  }
  onCompiled(0, dispatches.length)
  try {
    // All at once, since they compile in parallel. What fails here fails again, and is reported, where it is measured.
    await bench.wait(Promise.allSettled(dispatches.map(compilePipeline))).catch(async (error: unknown) => {
      if (!reopen || !(error instanceof DeviceLostError)) throw error
      bench = await reopen()
    })
    for (const [i, { call, tried }] of timed.entries()) {
      const unfit: string[] = []
      let times: Times | undefined
      while (!times) {
        const trial = new Trial(bench, tried, unfit, reopen ? patience : undefined)
        try {
          times = await trial.run()
        } catch (error) {
          if (!reopen || !(error instanceof DeviceLostError || error instanceof HungError)) throw error
          // Without a culprit there is nothing to leave out the next time.
          if (trial.running === undefined) throw error
          unfit.push(trial.running)
          bench.destroy()
          bench = await reopen()
        }
      }
      const kernels = call.candidates.map(kernelOf)
      const milliseconds = call.candidates.map(({ name }) => times.milliseconds.get(name) ?? null)
      const choice = kernels[fastest(milliseconds)]?.name ?? ''
      const { wrong } = times
      const faults = { ...(wrong.length > 0 ? { wrong } : {}), ...(unfit.length > 0 ? { unfit } : {}) }
      await onMeasured({ call: nameOf(call), kernels, milliseconds, choice, ...faults }, i + 1, calls.length)
    }
  } finally {
    if (own) bench.destroy()
  }
}

/**
 * A call of so many samples that it costs at most `largest`, by the kernels of the same names; the same call where it costs
 * no more, or where its operator cannot be divided.
 */
export async function withFewerSamples(call: Selectable, largest: number, adapter: AdapterTraits): Promise<Selectable> {
  const { node, candidates } = call
  const work = workOfCall(node)
  const { op, inputs, outputs, attrs } = node
  const divide = work > largest ? await divideOf(op) : undefined
  const division = divide?.division({ inputs, outputs, attrs: attrs as never })
  if (!division || division.last) return call
  const samples = Math.max(1, Math.floor((division.samples * largest) / work))
  if (samples >= division.samples) return call
  const fewer = {
    ...node,
    ...division.piece(samples),
    inputs: inputs.map((input, i) => (division.inputs[i] === 'divided' ? withSamples(input, samples) : input)),
  }
  const names = new Set(candidates.map(({ name }) => name))
  const kernels = await candidatesOf(fewer, adapter)
  return { node: fewer, candidates: kernels.filter(({ name }) => names.has(name)) }
}

const rounds = 5
/** Milliseconds that the runs of one kernel take in a round, which is waited for once. */
const roundTime = 5
const maxRuns = 200
/** Runs by which it is told how long one takes, where that is no longer than `briefTime` milliseconds. */
const briefRuns = 16
const briefTime = 10
/** A kernel that takes so many times longer than the fastest in both of the first rounds is not measured further. */
const cutoff = 2

interface Times {
  /** By the names of the kernels. */
  readonly milliseconds: ReadonlyMap<string, number>
  readonly wrong: readonly string[]
}

/** Bytes of inputs that no cache of a GPU holds. */
const beyondCaches = 2 ** 27
const mostCopies = 8

/** The kernels of one call, on one device. */
class Trial {
  /** Name of the kernel that the device is given. */
  running: string | undefined
  private readonly stores: Store[] = []
  private readonly programs = new Map<string, Program>()
  private readonly arena: Arena

  /**
   * @param unfit names of kernels that are left out
   * @param patience milliseconds after which a kernel is given up
   */
  constructor(
    private readonly device: Device,
    private readonly call: Selectable,
    private readonly unfit: readonly string[],
    private readonly patience: number | undefined,
  ) {
    this.arena = new Arena(device, 'tuning buffer')
  }

  async run(): Promise<Times> {
    const { candidates, node } = this.call
    try {
      await this.prepare()
      const differing = await this.differing(node.outputs)
      this.running = undefined
      const timers = candidates.map(({ name }) => {
        const program = differing.has(name) ? undefined : this.programs.get(name)
        return program && ((runs: number) => this.elapsed(name, program, runs))
      })
      const times = await timed(timers)
      const pairs = candidates.flatMap(({ name }, i) => (times[i] == null ? [] : [[name, times[i]] as const]))
      return { milliseconds: new Map(pairs), wrong: [...differing] }
    } finally {
      for (const program of this.programs.values()) program.destroy()
      this.arena.destroy()
      for (const store of this.stores) store.destroy()
    }
  }

  /** Inputs, as often as it takes that no cache holds them from run to run, and a program for each kernel. */
  private async prepare(): Promise<void> {
    const { node, candidates } = this.call
    const { op, name, attrs, outputs } = node
    const bytes = node.inputs.reduce((sum, spec) => sum + byteLength(spec), 1)
    const wanted = this.device.adapter.software ? 1 : Math.min(mostCopies, Math.ceil(beyondCaches / bytes))
    for (let k = 0; k < wanted; k++) {
      const store = new Store(this.device, `tuning ${k}`)
      for (const [i, { shape, dtype }] of node.inputs.entries()) store.declare(`input ${i}`, { shape, dtype })
      this.stores.push(store)
      await fillVariables(this.device, store)
    }
    const variables = this.stores[0]?.all() ?? []
    const body = () => {
      const results = tracedGraph('tuning').append({ op, name, inputs: variables.map(read), attrs, outputs })
      return Object.fromEntries(results.map((result, i) => [`output ${i}`, result]))
    }
    for (const candidate of candidates) {
      if (this.unfit.includes(candidate.name)) continue
      this.running = candidate.name
      const options = { label: `tuning ${name} ${candidate.name}`, selectKernel: () => candidate, arena: this.arena }
      const program = await compile(this.device, {}, body, options).catch(ignoreUnsupported)
      if (program) this.programs.set(candidate.name, program)
    }
  }

  /** The kernels whose results are not those of the last one: drivers are known whose matrix units compute wrongly. */
  private async differing(outputs: readonly Spec[]): Promise<Set<string>> {
    const names = outputs.map((_, i) => `output ${i}`)
    const differing = new Set<string>()
    let expected: Data[] | undefined
    for (const [name, program] of [...this.programs].reverse()) {
      this.running = name
      const found = await this.results(program, names).catch(ignoreUnsupported)
      if (!found) this.programs.delete(name)
      else if (!expected) expected = found
      else if (!found.every((data, k) => isClose(data, expected?.[k], outputs[k]))) differing.add(name)
    }
    return differing
  }

  private async results(program: Program, names: readonly string[]): Promise<Data[]> {
    program.run({})
    return this.patiently(sampleOutputs(this.device, program, names, compared))
  }

  /** Milliseconds of one run of a program, over so many of them. */
  private async elapsed(name: string, program: Program, runs: number): Promise<number> {
    this.running = name
    const [first] = this.stores
    const over = Array.from({ length: runs }, (_, k) => {
      const store = this.stores[k % this.stores.length]
      return first && store && store !== first ? new Map([[first, store]]) : new Map<Store, Store>()
    })
    const started = performance.now()
    program.runOver(over)
    await this.patiently(this.device.idle())
    return (performance.now() - started) / runs
  }

  private async patiently<T>(promise: Promise<T>): Promise<T> {
    const { patience } = this
    if (patience === undefined) return promise
    let timer: ReturnType<typeof setTimeout> | undefined
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new HungError('a kernel does not come to an end')), patience)
    })
    try {
      return await Promise.race([promise, limit])
    } finally {
      clearTimeout(timer)
      promise.catch(() => {})
    }
  }
}

/**
 * A kernel whose tensors exceed the adapter's limits or its memory, or that its driver refuses, is no candidate; others
 * still are.
 */
function ignoreUnsupported(error: unknown): undefined {
  const isKnown = [BindingLimitError, OutOfMemoryError, KernelError].some((kind) => error instanceof kind)
  if (!isKnown) throw error
}

/** Elements of a result that are compared, spread over it. */
const compared = 2 ** 16
/** What the order of sums may change, as a share of the largest result; in half precision another rounding of it, too. */
const allowance = { f32: 2 ** -12, f16: 2 ** -7 }

/** Whether results are alike, up to the rounding of sums. */
function isClose(actual: Data, expected: Data | undefined, output: Spec | undefined): boolean {
  if (!expected || !output || actual.length !== expected.length) return false
  const { dtype } = output
  const valueAt = (data: Data, i: number): number => (dtype === 'f16' ? fromHalf(data[i] ?? 0) : (data[i] ?? 0))
  let largest = 0
  let error = 0
  for (let i = 0; i < actual.length; i++) {
    const wanted = valueAt(expected, i)
    const difference = Math.abs(valueAt(actual, i) - wanted)
    if (Number.isNaN(difference)) return false
    largest = Math.max(largest, Math.abs(wanted))
    error = Math.max(error, difference)
  }
  return error <= (dtype === 'f32' || dtype === 'f16' ? allowance[dtype] * largest : 0)
}

/** The value of 16 bits of half precision. */
function fromHalf(bits: number): number {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023]
  const size = exponent === 31 ? (fraction > 0 ? Number.NaN : Number.POSITIVE_INFINITY) : undefined
  const finite = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25)
  return (bits & 0x8000 ? -1 : 1) * (size ?? finite)
}

/** Milliseconds per run of a candidate that is run so many times. */
export type TimedCandidate = (runs: number) => Promise<number>

/**
 * Times candidates in turns, so that what disturbs the machine disturbs all: the median of each; null where there is
 * none.
 */
export async function timed(candidates: readonly (TimedCandidate | undefined)[]): Promise<(number | null)[]> {
  let quickest = Number.POSITIVE_INFINITY
  for (const run of candidates) {
    if (!run) continue
    // The first run zeroes buffers and loads code.
    const first = await run(1)
    quickest = Math.min(quickest, await run(first <= briefTime ? briefRuns : 1))
  }
  const runs = Math.max(1, Math.min(maxRuns, Math.ceil(roundTime / quickest)))
  const times: number[][] = candidates.map(() => [])
  for (let round = 0; round < rounds; round++) {
    const best = times.map((list) => Math.min(...list))
    const bound = round < 2 ? Number.POSITIVE_INFINITY : cutoff * Math.min(...best)
    const left = candidates.flatMap((run, i) => (run && !((best[i] ?? 0) > bound) ? [{ run, i }] : []))
    if (left.length < 2 && round >= 2) break
    for (const { run, i } of left) times[i]?.push(await run(runs))
  }
  return times.map((list) => (list.length > 0 ? median(list) : null))
}

const median = (list: readonly number[]): number =>
  [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.POSITIVE_INFINITY
