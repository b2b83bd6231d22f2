import type { AdapterTraits } from '../adapter.js'
import { type Node, results, Tensor, type Trace, valueKey } from '../ir.js'
import { sameShape, spec } from '../shape.js'
import { moveHandles, readersOf } from './rewrite.js'

/**
 * Where nothing but slices of its channels is read of a result, such as the gradient of a concatenation, each slice is
 * computed by itself: then nothing is copied, and each passes through the formulas, and into the sums, of its own readers.
 */
export function splitChannels(trace: Trace, adapter: AdapterTraits): Trace {
  const kept = new Set(results(trace).map(valueKey))
  const readers = readersOf(trace)
  let id = Math.max(-1, ...trace.nodes.map((node) => node.id))
  const moved = new Map<string, Tensor>()
  const replacements = new Map<number, Node[]>()
  for (const producer of trace.nodes) {
    const slices = kept.has(`${producer.id}.0`) ? [] : (readers.get(`${producer.id}.0`) ?? [])
    const split = slices.map((slice) => partOf(producer, slice, adapter))
    if (split.length === 0 || split.includes(undefined)) continue
    replacements.set(producer.id, [])
    for (const [i, slice] of slices.entries()) {
      const { operand, part } = split[i] ?? {}
      if (!operand || !part) continue
      const [{ shape, dtype } = spec([])] = operand.outputs
      const cut = { ...operand, id: ++id }
      const inputs = producer.inputs.map((value, at) => (at === part.at ? new Tensor(cut, 0, shape, dtype) : value))
      const node: Node = { ...producer, id: ++id, inputs, attrs: part.attrs, outputs: slice.outputs }
      replacements.set(slice.id, [cut, node])
      const [output = spec([])] = slice.outputs
      moved.set(`${slice.id}.0`, new Tensor(node, 0, output.shape, output.dtype))
    }
  }
  if (moved.size === 0) return trace
  return moveHandles({ ...trace, nodes: trace.nodes.flatMap((node) => replacements.get(node.id) ?? [node]) }, moved)
}

/** The call for the channels that a slice takes of a producer's result, and the slice of an operand that it reads. */
function partOf(producer: Node, slice: Node, adapter: AdapterTraits) {
  const { op, inputs, attrs, outputs } = producer
  const [result, ...others] = outputs
  const [value] = slice.inputs
  if (!op?.channels || !slice.op?.partOfInput || !value || !result || others.length > 0) return undefined
  if (slice.inputs.length !== 1 || !sameShape(value.shape, result.shape)) return undefined
  const { axis, start } = slice.op.partOfInput({ ...slice, attrs: slice.attrs as never })
  if (axis !== result.shape.length - 1) return undefined
  const size = slice.outputs[0]?.shape[axis] ?? 0
  const part = op.channels.part({ inputs, outputs, attrs: attrs as never, adapter }, start, size)
  const cut = part && inputs[part.at]
  return part && cut ? { part, operand: { ...producer, ...part.slice, inputs: [cut] } } : undefined
}
