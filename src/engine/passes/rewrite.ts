import { type Node, Tensor, type Trace, valueKey } from '../ir.js'
import { showSpec } from '../shape.js'
import { identityOf, valueText } from '../value-text.js'

/** Where a pass says a value is now: a handle on it, whose shape the uses of the old value keep. */
export type Moved = ReadonlyMap<string, Tensor>

/** The nodes that read each value, by its key: in their order, and each once. */
export function readersOf({ nodes }: Pick<Trace, 'nodes'>): ReadonlyMap<string, readonly Node[]> {
  const readers = new Map<string, Node[]>()
  for (const node of nodes) {
    for (const key of new Set(node.inputs.map(valueKey))) {
      const known = readers.get(key)
      if (known) known.push(node)
      else readers.set(key, [node])
    }
  }
  return readers
}

/** A handle on the new place of a value, with the shape of the old handle. */
export function follow(moved: Moved, tensor: Tensor): Tensor {
  const target = moved.get(valueKey(tensor))
  return target && target.node !== tensor.node
    ? new Tensor(target.node, target.index, tensor.shape, tensor.dtype, tensor.detached)
    : tensor
}

/**
 * Rebuilds a trace node by node. `visit` gets each node with its inputs already moved, and returns the node that takes
 * its place: the same one, an equal earlier one, or a new one.
 */
export function rebuild(trace: Trace, visit: (node: Node) => Node): Trace {
  const moved = new Map<string, Tensor>()
  const nodes = new Set<Node>()
  for (const old of trace.nodes) {
    const inputs = old.inputs.map((value) => follow(moved, value))
    const unchanged = inputs.every((value, i) => value === old.inputs[i])
    const replaced = visit(unchanged ? old : { ...old, inputs })
    nodes.add(replaced)
    for (const [index, { shape, dtype }] of old.outputs.entries()) {
      moved.set(`${old.id}.${index}`, new Tensor(replaced, index, shape, dtype))
    }
  }
  return { nodes: [...nodes], ...followResults(trace, moved) }
}

function followResults({ inputs, outputs, assigned }: Trace, moved: Moved): Omit<Trace, 'nodes'> {
  const followAll = <K>(map: ReadonlyMap<K, Tensor>) =>
    new Map([...map].map(([key, value]): [K, Tensor] => [key, follow(moved, value)]))
  return { inputs: followAll(inputs), outputs: followAll(outputs), assigned: followAll(assigned) }
}

/** A trace with every handle on the new place of its value. */
export function moveHandles(trace: Trace, moved: Moved): Trace {
  const nodes = trace.nodes.map((node) => ({ ...node, inputs: node.inputs.map((value) => follow(moved, value)) }))
  return relink({ nodes, ...followResults(trace, moved) })
}

/** Makes every handle point at the node that now has its id: for passes that put new nodes in the place of old ones. */
export const relink = (trace: Trace): Trace => rebuild(trace, (node) => node)

/**
 * A text that is equal for calls that compute the same: operator, operands as they are seen, attributes, and how results
 * are stored, since half precision stores those of equal calls as different types.
 */
function callKey({ op, inputs, attrs, outputs }: Node): string {
  const operands = inputs.map((value) => `${valueKey(value)}${showSpec(value)}`)
  return `${op && identityOf(op)}(${operands}) ${valueText(attrs)} ${outputs.map(showSpec)}`
}

/** Computes equal calls once. */
export function shareEqual(trace: Trace): Trace {
  const known = new Map<string, Node>()
  return rebuild(trace, (node) => {
    if (!node.op || node.op.callsHost) return node
    const key = callKey(node)
    const earlier = known.get(key)
    if (earlier) return earlier
    known.set(key, node)
    return node
  })
}
