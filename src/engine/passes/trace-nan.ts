import { labelOf, type Node, type Op, Tensor, type Trace, valueKey } from '../ir.js'
import { elements, isFloat, type Shape, spec } from '../shape.js'
import type { Store } from '../store.js'

/** A value of a program and how many of its elements are NaN or infinite. */
export interface CountedValue {
  /** Layer and operator, or which input or variable it is. */
  readonly label: string
  readonly shape: Shape
  readonly elements: number
  readonly nonFinite: number
}

/** The first value of a run that is not finite. */
export interface FirstNonFinite extends CountedValue {
  /** Computed for a gradient. */
  readonly backward: boolean
  /** What it was computed from; none where it is an input or a variable. */
  readonly inputs: readonly CountedValue[]
}

/** An operator that adds to counter `counters[0]` of its input 0 (u32 [n]) the elements of input 1 that are not finite. */
export type Counter = Op<{ readonly counters: readonly number[] }>

/** Counts what is not finite in every value of a program, as soon as the value is there: see `pass`. */
export class NanTracer {
  private readonly counted = new Map<string, number>()
  private nodes: readonly Node[] = []

  /** @param store takes the variable that holds the counts */
  constructor(
    private readonly store: Store,
    private readonly counter: Counter,
  ) {}

  /** For `compile`: puts a count behind every node. To be used once. */
  readonly pass = (trace: Trace): Trace => {
    const valuesOf = (node: Node) =>
      node.outputs.flatMap(({ shape, dtype }, index) =>
        isFloat({ dtype }) && elements(shape) > 0 ? [new Tensor(node, index, shape, dtype)] : [],
      )
    const total = trace.nodes.reduce((sum, node) => sum + valuesOf(node).length, 0)
    const variable = this.store.declare('counts', spec([total], 'u32'))
    let id = Math.max(...trace.nodes.map((node) => node.id)) + 1
    const made = { inputs: [], attrs: undefined, outputs: [variable.spec], scope: '', backward: false }
    const leaf: Node = { ...made, id, op: undefined, leaf: { variable }, name: 'variable counts' }
    let counts = new Tensor(leaf, 0, variable.spec.shape, 'u32')
    const nodes: Node[] = [leaf]
    for (const node of trace.nodes) {
      nodes.push(node)
      for (const value of valuesOf(node)) {
        const counters = [this.counted.size]
        this.counted.set(valueKey(value), this.counted.size)
        const call = { op: this.counter as Op, name: this.counter.name, inputs: [counts, value], attrs: { counters } }
        const count: Node = { ...made, ...call, id: ++id }
        nodes.push(count)
        counts = new Tensor(count, 0, variable.spec.shape, 'u32')
      }
    }
    this.nodes = trace.nodes
    return { ...trace, nodes, assigned: new Map([...trace.assigned, [variable, counts]]) }
  }

  /** The first value of the last run that is not finite, in the order of the run; undefined where all are finite. */
  async first(): Promise<FirstNonFinite | undefined> {
    const counts = await this.store.read('counts')
    const countOf = (value: Tensor): CountedValue => ({
      label: labelOf(value.node),
      shape: value.shape,
      elements: elements(value.shape),
      nonFinite: counts[this.counted.get(valueKey(value)) ?? -1] ?? 0,
    })
    for (const node of this.nodes) {
      for (const [index, { shape, dtype }] of node.outputs.entries()) {
        const value = countOf(new Tensor(node, index, shape, dtype))
        if (value.nonFinite > 0) return { ...value, backward: node.backward, inputs: node.inputs.map(countOf) }
      }
    }
    return undefined
  }
}
