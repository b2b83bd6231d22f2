import type { AdapterTraits } from '../adapter.js'
import { input, substitute } from '../expr.js'
import { type Node, type Prologue, results, type Tensor, type Trace, valueKey } from '../ir.js'
import { byteLength, isFloat, type Spec, sameShape } from '../shape.js'
import { readersOf, relink } from './rewrite.js'

/**
 * Lets operators that pass an input through a formula as they load it, such as convolutions, compute a pointwise value that
 * they alone read: it is never stored.
 */
export function fusePrologues(trace: Trace, adapter: AdapterTraits): Trace {
  const kept = new Set(results(trace).map(valueKey))
  const nodes = new Map(trace.nodes.map((node) => [node.id, node]))
  const readers = readersOf(trace)
  for (const producer of trace.nodes) {
    const key = `${producer.id}.0`
    const loading = kept.has(key) ? undefined : loadingOf(producer)
    if (!loading) continue
    const reading = [...(readers.get(key) ?? [])].flatMap(({ id }) => nodes.get(id) ?? [])
    const merged = reading.flatMap((reader) => merge(reader, key, loading, adapter) ?? [])
    if (merged.length < reading.length || bytesGained(producer, loading, reading.length) <= 0) continue
    for (const node of merged) nodes.set(node.id, node)
    nodes.delete(producer.id)
  }
  return nodes.size === trace.nodes.length ? trace : relink({ ...trace, nodes: [...nodes.values()] })
}

/** A pointwise value, as those that read it may compute it. */
interface Loading extends Prologue {
  readonly name: string
  readonly source: Tensor
  readonly operands: readonly Tensor[]
}

/** Undefined where it is not made of one tensor of its own shape. */
function loadingOf({ op, name, inputs, outputs, attrs }: Node): Loading | undefined {
  const formula = op?.formula
  if (!formula?.elementwise || outputs.length !== 1 || !outputs.every(isFloat)) return undefined
  if (op?.inplace?.(attrs as never).size) return undefined
  const { exprs, space } = formula.get(attrs as never)
  const [expr] = exprs
  const [source, ...others] = inputs.filter(({ shape }) => sameShape(shape, space))
  if (!expr || !source || others.length > 0) return undefined
  const operands = inputs.filter((value) => value !== source)
  const places = inputs.map((value) => input(value === source ? 0 : operands.indexOf(value) + 1))
  return { name, expr: substitute(expr, places), source, operands }
}

/** The reader of a value that computes it as it loads it; undefined where that cannot be. */
function merge(reader: Node, key: string, loading: Loading, adapter: AdapterTraits): Node | undefined {
  const { op, inputs, outputs, attrs } = reader
  const { name, source, operands } = loading
  const at = inputs.findIndex((value) => valueKey(value) === key)
  const isReadOnce = inputs.filter((value) => valueKey(value) === key).length === 1
  if (!op?.prologue || !isReadOnce || !sameShape(inputs[at]?.shape ?? [], source.shape)) return undefined
  if (inputs.length + operands.length + outputs.length > adapter.maxStorageBuffers) return undefined
  const changed = op.prologue.set({ inputs, outputs, attrs: attrs as never, adapter }, at, loading)
  if (changed === undefined) return undefined
  const read = [...inputs.map((value, i) => (i === at ? source : value)), ...operands]
  return { ...reader, name: `${name}+${reader.name}`, inputs: read, attrs: changed }
}

/** What is loaded and stored less where so many readers compute a value themselves. */
function bytesGained({ inputs, outputs }: Node, { source, operands }: Loading, readers: number): number {
  const sum = (specs: readonly Spec[]) => specs.reduce((total, each) => total + byteLength(each), 0)
  return sum([...inputs, ...outputs]) + readers * (sum(outputs) - sum([source, ...operands]))
}
