import { type Node, Tensor, type Trace } from '../ir.js'
import { byteLength, type Spec } from '../shape.js'
import { divisionsOf } from './divide.js'
import { follow } from './rewrite.js'

/**
 * Sees the rows of images as samples, as each operator's `divide.rows` says, where a single sample is too large to be bound
 * at once: then `divide` can take a few rows at a time. Other calls stay as they are.
 *
 * @param limit bytes that a kernel binds at most
 */
export async function rowsAsSamples(trace: Trace, limit: number): Promise<Trace> {
  const isLarge = (spec: Spec) => byteLength(spec) / (spec.shape[0] ?? 1) > limit
  if (!trace.nodes.some(({ outputs }) => outputs.some(isLarge))) return trace
  const divisions = await divisionsOf(trace)
  let id = Math.max(...trace.nodes.map((node) => node.id))
  const nodes: Node[] = []
  const moved = new Map<string, Tensor>()
  const followAll = <K>(map: ReadonlyMap<K, Tensor>) =>
    new Map([...map].map(([key, value]): [K, Tensor] => [key, follow(moved, value)]))

  for (const old of trace.nodes) {
    const inputs = old.inputs.map((value) => follow(moved, value))
    const node = { ...old, inputs }
    const call = { inputs, outputs: node.outputs, attrs: node.attrs as never }
    const calls = [...inputs, ...node.outputs].some(isLarge) ? divisions.get(node.op)?.rows?.(call) : undefined
    if (!calls) nodes.push(node)
    let values: readonly Tensor[] = inputs
    let last = node
    for (const { inputs: shapes, ...changed } of calls ?? []) {
      const operands = values.map((value, i) => value.reshape(...(shapes[i] ?? value.shape)))
      last = { ...node, ...changed, id: ++id, inputs: operands }
      nodes.push(last)
      values = last.outputs.map(({ shape, dtype }, index) => new Tensor(last, index, shape, dtype))
    }
    for (const [index, { shape, dtype }] of node.outputs.entries())
      moved.set(`${node.id}.${index}`, new Tensor(last, index, shape, dtype))
  }
  return {
    nodes,
    inputs: followAll(trace.inputs),
    outputs: followAll(trace.outputs),
    assigned: followAll(trace.assigned),
  }
}
