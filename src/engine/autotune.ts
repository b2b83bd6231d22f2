import type { AdapterTraits } from './adapter.js'
import { Arena } from './arena.js'
import { layoutOf } from './bind.js'
import { BindingLimitError, type Device, KernelError, OutOfMemoryError } from './device.js'
import { read, tracedGraph } from './graph.js'
import type { Node, Trace } from './ir.js'
import type { Candidate, Dispatch } from './kernel.js'
import { candidatesOf, type SelectKernel } from './kernel-selection.js'
import { costOf } from './pace.js'
import { compile, type Program } from './program.js'
import { byteLength, type Data, elements, type Shape, type Spec, sameShape } from './shape.js'
import { Store } from './store.js'
import { valueText } from './value-text.js'

/** A kernel that was measured: its name, and the texts of its shaders. With another text it is another kernel. */
export interface Kernel {
  readonly name: string
  readonly sources: readonly string[]
}

/** The kernels of an operator at shapes of one class, timed on one adapter. */
export interface Measurement {
  /** Operator, classes of the inputs' shapes, and attributes. */
  readonly call: string
  /** All there were, in the operator's order: the first is taken where nothing was measured. */
  readonly kernels: readonly Kernel[]
  /**
   * Time of one run, in the order of the kernels; null where the adapter cannot run it, see `ignoreUnsupported`, or where
   * its results are wrong.
   */
  readonly milliseconds: readonly (number | null)[]
  /** Names of the kernels whose results on this adapter are not those of the last one, which is the plainest. */
  readonly wrong?: readonly string[]
  /** Name of the kernel to use. */
  readonly choice: string
}

/** The share of the first kernel's time that another one must save to be preferred: less may be noise. */
const margin = 0.05

/** Index of the fastest, or of the first unless that is slower by more than the margin. */
export function fastest(milliseconds: readonly (number | null)[]): number {
  const times = milliseconds.map((time) => time ?? Number.POSITIVE_INFINITY)
  const best = times.indexOf(Math.min(...times))
  return (times[best] ?? 0) < (1 - margin) * (times[0] ?? 0) ? best : 0
}

/** Channels exactly, and the number of rows to a power of two: images of many sizes share few classes. */
function classOf(shape: Shape): string {
  const rows = elements(shape.slice(0, -1))
  return shape.length < 2 ? `[${shape}]` : `[~${2 ** Math.round(Math.log2(rows))}, ${shape.at(-1)}]`
}

/** What the selection of a kernel may depend on, as a text. */
export function callOf({
  name,
  inputs,
  outputs,
  attrs,
}: Pick<Node, 'name' | 'outputs' | 'attrs'> & { inputs: readonly Spec[] }): string {
  const specs = inputs.map(({ shape, dtype }) => dtype + classOf(shape))
  // An attribute that repeats the shape of a result is of a class as well.
  const isResult = (value: unknown): value is number[] =>
    Array.isArray(value) && value.length > 1 && outputs.some(({ shape }) => sameShape(shape, value as number[]))
  const text = valueText(attrs, (value) => (isResult(value) ? JSON.stringify(classOf(value)) : undefined))
  return `${name}(${specs.join(', ')}) ${attrs === undefined ? '' : text}`
}

/** A node that several kernels can compute. */
export interface SelectableNode {
  readonly node: Node
  readonly candidates: readonly Candidate[]
}

/** What a call costs, see `costOf`. */
function workOfCall({ op, inputs, outputs, attrs }: Node): number {
  const multiplyAdds = op?.multiplyAdds?.({ inputs, outputs, attrs: attrs as never }) ?? 0
  const bytes = [...inputs, ...outputs].reduce((sum, each) => sum + byteLength(each), 0)
  return costOf({ multiplyAdds, bytes })
}

/** The nodes of a trace for which there is more than one kernel. */
const selectableNodes = (trace: Trace, adapter: AdapterTraits): SelectableNode[] =>
  trace.nodes
    .map((node) => ({ node, candidates: candidatesOf(node, adapter) }))
    .filter(({ candidates }) => candidates.length > 1)

const kernelOf = ({ name, dispatches }: Candidate): Kernel => ({
  name,
  sources: dispatches.map(({ source }) => source),
})

/** Measurements of one adapter, by which kernels are chosen. The first one of a call stays. */
export class Tuning {
  private readonly known = new Map<string, Measurement>()
  /** Numbers the texts of shaders, so that keys are short. */
  private readonly numbers = new Map<string, number>()

  constructor(measurements: Iterable<Measurement> = []) {
    this.add(measurements)
  }

  add(measurements: Iterable<Measurement>): void {
    for (const measurement of measurements) {
      const key = this.key(measurement.call, measurement.kernels)
      if (!this.known.has(key)) this.known.set(key, measurement)
    }
  }

  get measurements(): Measurement[] {
    return [...this.known.values()]
  }

  /** The kernel that was the fastest; the first one where that is not known. */
  readonly selectKernel: SelectKernel = (node, candidates) => {
    const choice = candidates.length > 1 ? this.find({ node, candidates })?.choice : undefined
    return candidates.find(({ name }) => name === choice) ?? candidates[0]
  }

  /** The measurements by which the kernels of a trace are selected, one for each node where there is one. */
  of(trace: Trace, adapter: AdapterTraits): Measurement[] {
    return selectableNodes(trace, adapter).flatMap((selectable) => this.find(selectable) ?? [])
  }

  /** The nodes of a trace whose kernels were not measured, each call once: those with the most work in all first. */
  missing(trace: Trace, adapter: AdapterTraits): SelectableNode[] {
    const calls = new Map<string, { selectable: SelectableNode; work: number }>()
    for (const selectable of selectableNodes(trace, adapter)) {
      if (this.find(selectable)) continue
      const key = this.keyOf(selectable)
      const known = calls.get(key) ?? { selectable, work: 0 }
      calls.set(key, { ...known, work: known.work + workOfCall(selectable.node) })
    }
    return [...calls.values()].sort((a, b) => b.work - a.work).map(({ selectable }) => selectable)
  }

  private find(selectable: SelectableNode): Measurement | undefined {
    return this.known.get(this.keyOf(selectable))
  }

  private keyOf({ node, candidates }: SelectableNode): string {
    return this.key(callOf(node), candidates.map(kernelOf))
  }

  private key(call: string, kernels: readonly Kernel[]): string {
    const number = (source: string): number => {
      const known = this.numbers.get(source) ?? this.numbers.size
      this.numbers.set(source, known)
      return known
    }
    return [call, ...kernels.map(({ name, sources }) => `${name} ${sources.map(number)}`)].join('\n')
  }
}

/**
 * Compiles the kernels of all nodes, then times those of each node, one node after the other.
 * @param onMeasured called, and waited for, after each node
 * @param onCompiled called before the first and after each pipeline that compiled, with their number so far and that of
 *   all; one that fails to compile is not counted
 */
export async function measureKernels(
  device: Device,
  nodes: readonly SelectableNode[],
  onMeasured: (measurement: Measurement, done: number, total: number) => void | Promise<void>,
  onCompiled: (done: number, total: number) => void = () => {},
): Promise<void> {
  const dispatches = nodes.flatMap(({ candidates }) => candidates.flatMap((candidate) => candidate.dispatches))
  let compiled = 0
  const compilePipeline = async (dispatch: Dispatch): Promise<void> => {
    await device.pipeline(dispatch.label, dispatch.source, layoutOf(dispatch))
    onCompiled(++compiled, dispatches.length)
  }
  onCompiled(0, dispatches.length)
  // All at once, since they compile in parallel. What fails here fails again, and is reported, where it is measured.
  await device.wait(Promise.allSettled(dispatches.map(compilePipeline)))
  for (const [i, { node, candidates }] of nodes.entries()) {
    const { milliseconds, wrong } = await timesOf(device, { node, candidates })
    const kernels = candidates.map(kernelOf)
    const choice = kernels[fastest(milliseconds)]?.name ?? ''
    const differing = wrong.length > 0 ? { wrong } : {}
    await onMeasured({ call: callOf(node), kernels, milliseconds, choice, ...differing }, i + 1, nodes.length)
  }
}

const rounds = 5
/** Milliseconds that the runs of one kernel take in a round, which is waited for once. */
const roundTime = 10
const maxRuns = 100
/** A kernel that takes so many times longer than the fastest in both of the first rounds is not measured further. */
const cutoff = 2

async function timesOf(
  device: Device,
  { node, candidates }: SelectableNode,
): Promise<Required<Pick<Measurement, 'milliseconds' | 'wrong'>>> {
  const store = new Store(device, 'tuning')
  const arena = new Arena(device, 'tuning buffer')
  const programs: (Program | undefined)[] = []
  try {
    const inputs = node.inputs.map(({ shape, dtype }, i) =>
      store.declare(`input ${i}`, { shape, dtype }, numbers({ shape, dtype })),
    )
    const body = () => {
      const { op, name, attrs, outputs } = node
      const results = tracedGraph('tuning').append({ op, name, inputs: inputs.map(read), attrs, outputs })
      return Object.fromEntries(results.map((result, i) => [`output ${i}`, result]))
    }
    for (const candidate of candidates) {
      const options = { label: `tuning ${node.name} ${candidate.name}`, selectKernel: () => candidate, arena }
      programs.push(await compile(device, {}, body, options).catch(ignoreUnsupported))
    }
    const differing = await differingOf(programs, node.outputs)
    const timers = programs.map((program, i) => {
      return program && !differing.has(i) ? (runs: number) => elapsed(device, program, runs) : undefined
    })
    return { milliseconds: await timed(timers), wrong: [...differing].map((i) => candidates[i]?.name ?? '') }
  } finally {
    for (const program of programs) program?.destroy()
    arena.destroy()
    store.destroy()
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

/** The programs whose results are not those of the last one: drivers are known whose matrix units compute wrongly. */
async function differingOf(programs: readonly (Program | undefined)[], outputs: readonly Spec[]): Promise<Set<number>> {
  const names = outputs.map((_, i) => `output ${i}`)
  const differing = new Set<number>()
  const last = programs.findLastIndex((program) => program !== undefined)
  let expected: Data[] | undefined
  for (const i of [...programs.keys()].reverse()) {
    const program = programs[i]
    if (!program) continue
    program.run({})
    const found = await program.readAll(names)
    if (i === last) expected = found
    else if (!found.every((data, k) => isClose(data, expected?.[k], outputs[k]))) differing.add(i)
  }
  return differing
}

/** Whether results are alike, up to the rounding of sums. */
function isClose(actual: Data, expected: Data | undefined, output: Spec | undefined): boolean {
  if (!expected || !output || actual.length !== expected.length) return false
  const { dtype } = output
  const valueAt = (data: Data, i: number): number => (dtype === 'f16' ? fromHalf(data[i] ?? 0) : (data[i] ?? 0))
  const stride = Math.max(1, Math.floor(actual.length / compared))
  let largest = 0
  let error = 0
  for (let i = 0; i < actual.length; i += stride) {
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

/** Milliseconds of one run of a program, over so many of them. */
async function elapsed(device: Device, program: Program, runs: number): Promise<number> {
  const started = performance.now()
  for (let k = 0; k < runs; k++) program.run({})
  await device.idle()
  return (performance.now() - started) / runs
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
    // The first run zeroes buffers and loads code.
    await run?.(1)
    if (run) quickest = Math.min(quickest, await run(1))
  }
  const runs = Math.max(1, Math.min(maxRuns, Math.ceil(roundTime / quickest)))
  const times: number[][] = candidates.map(() => [])
  for (let round = 0; round < rounds; round++) {
    const best = times.map((list) => Math.min(...list))
    const bound = round < 2 ? Number.POSITIVE_INFINITY : cutoff * Math.min(...best)
    const promising = candidates.flatMap((run, i) => (run && !((best[i] ?? 0) > bound) ? [{ run, i }] : []))
    if (promising.length < 2 && round >= 2) break
    for (const { run, i } of promising) times[i]?.push(await run(runs))
  }
  return times.map((list) => (list.length > 0 ? median(list) : null))
}

const median = (list: readonly number[]): number =>
  [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.POSITIVE_INFINITY

/** Numbers between -1/2 and 1/2, alike at every call; undefined, which means zeros, for integers. */
function numbers({ shape, dtype }: Spec): Data | undefined {
  const mixed = (i: number) => Math.imul(i, 0x9e3779b1) >>> 8
  if (dtype === 'f32') return new Float32Array(elements(shape)).map((_, i) => mixed(i) / 2 ** 24 - 0.5)
  // Any sign and fraction under the exponent of 1/4.
  return dtype === 'f16' ? new Uint16Array(elements(shape)).map((_, i) => 0x3400 | (mixed(i) & 0x83ff)) : undefined
}
