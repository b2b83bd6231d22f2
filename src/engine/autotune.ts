import type { AdapterTraits } from './adapter.js'
import type { Node, Trace } from './ir.js'
import type { Candidate } from './kernel.js'
import { candidatesOf, type SelectableCall } from './kernel-selection.js'
import { costOf } from './pace.js'
import { byteLength, elements, type Shape, type Spec, sameShape } from './shape.js'
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
   * Time of one run, in the order of the kernels; null where the adapter cannot run it, or where its results are wrong.
   */
  readonly milliseconds: readonly (number | null)[]
  /** Names of the kernels whose results on this adapter are not those of the last one, which is the plainest. */
  readonly wrong?: readonly string[]
  /** Names of the kernels that lost the device, or did not come to an end. */
  readonly unfit?: readonly string[]
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

/** A call that several kernels can compute. */
export interface Selectable {
  readonly node: SelectableCall
  readonly candidates: readonly Candidate[]
}

/** The name of a call: those of the same name, and of the same kernels, share a choice. */
export const nameOf = ({ node, candidates }: Selectable): string =>
  candidates.find(({ tuned }) => tuned)?.tuned?.call ?? callOf(node)

/** A kernel whose estimate is so many times the least is not measured. */
const hopeless = 1.6
/** So many of those that tell an estimate are measured at most. */
const mostEstimated = 3

/** The candidates that are worth measuring: the first, those that tell no estimate, and the best of the others. */
export function promising(candidates: readonly Candidate[]): Candidate[] {
  const estimates = candidates.flatMap(({ estimate }) => estimate ?? []).sort((a, b) => a - b)
  const bound = Math.min(hopeless * (estimates[0] ?? 0), estimates[mostEstimated - 1] ?? Number.POSITIVE_INFINITY)
  return candidates.filter(({ estimate }, i) => i === 0 || estimate === undefined || estimate <= bound)
}

/** What a call costs, see `costOf`. */
export function workOfCall({ op, inputs, outputs, attrs }: SelectableCall): number {
  const multiplyAdds = op?.multiplyAdds?.({ inputs, outputs, attrs: attrs as never }) ?? 0
  const bytes = [...inputs, ...outputs].reduce((sum, each) => sum + byteLength(each), 0)
  return costOf({ multiplyAdds, bytes })
}

/** The calls of a trace for which there is more than one kernel. */
async function selectableCalls(trace: Trace, adapter: AdapterTraits): Promise<Selectable[]> {
  const calls: Selectable[] = []
  for (const node of trace.nodes) {
    const candidates = await candidatesOf(node, adapter)
    if (candidates.length > 1) calls.push({ node, candidates })
  }
  return calls
}

export const kernelOf = ({ name, dispatches, tuned }: Candidate): Kernel => ({
  name,
  sources: tuned?.sources ?? dispatches.map(({ source }) => source),
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
  readonly selectKernel = (node: Node, candidates: readonly Candidate[]): Candidate | undefined => {
    const choice = candidates.length > 1 ? this.find({ node, candidates })?.choice : undefined
    return candidates.find(({ name }) => name === choice) ?? candidates[0]
  }

  /** The measurements by which the kernels of a trace are selected, one for each node where there is one. */
  async of(trace: Trace, adapter: AdapterTraits): Promise<Measurement[]> {
    return (await selectableCalls(trace, adapter)).flatMap((selectable) => this.find(selectable) ?? [])
  }

  /** The calls of a trace whose kernels were not measured, those of each name once: those with the most work in all first. */
  async missing(trace: Trace, adapter: AdapterTraits): Promise<Selectable[]> {
    return (await this.calls(trace, adapter)).filter((selectable) => !this.find(selectable))
  }

  /** The calls of a trace that several kernels can compute: of each name the largest, those with the most work in all first. */
  async calls(trace: Trace, adapter: AdapterTraits): Promise<Selectable[]> {
    const calls = new Map<string, { largest: Selectable; most: number; all: number }>()
    for (const selectable of await selectableCalls(trace, adapter)) {
      const key = this.keyOf(selectable)
      const work = workOfCall(selectable.node)
      const { largest, most, all } = calls.get(key) ?? { largest: selectable, most: work, all: 0 }
      calls.set(key, { largest: work > most ? selectable : largest, most: Math.max(most, work), all: all + work })
    }
    return [...calls.values()].sort((a, b) => b.all - a.all).map(({ largest }) => largest)
  }

  private find(selectable: Selectable): Measurement | undefined {
    return this.known.get(this.keyOf(selectable))
  }

  private keyOf(selectable: Selectable): string {
    return this.key(nameOf(selectable), selectable.candidates.map(kernelOf))
  }

  private key(call: string, kernels: readonly Kernel[]): string {
    const number = (source: string): number => {
      const known = this.numbers.get(source) ?? this.numbers.size
      this.numbers.set(source, known)
      return known
    }
    // Whatever their order: of calls that share a choice, the best by rule may differ.
    return [call, ...kernels.map(({ name, sources }) => `${name} ${sources.map(number)}`).sort()].join('\n')
  }
}
