import type { AdapterTraits } from '../adapter.js'
import { type Node, type Reading, rowSumsAccessOf, Tensor, type Trace, valueKey } from '../ir.js'
import { sameShape } from '../shape.js'
import { moveHandles, readersOf } from './rewrite.js'

/**
 * Lets an operator that sums its result on the way, such as a convolution, begin the sums over rows for which another one,
 * such as the statistics of batch norm, would read the result again. Where two would, as the gradients of batch norm in both
 * branches of a block, it begins those of both.
 */
export async function fuseRowSums(trace: Trace, adapter: AdapterTraits): Promise<Trace> {
  const position = new Map(trace.nodes.map(({ id }, at) => [id, at]))
  const readers = readersOf(trace)
  let id = Math.max(-1, ...trace.nodes.map((node) => node.id))
  const moved = new Map<string, Tensor>()
  /** By the reader's id. */
  const fused = new Map<number, Node>()
  const gone = new Set<number>()
  for (const reader of trace.nodes) {
    if (gone.has(reader.id)) continue
    for (const [at, value] of reader.inputs.entries()) {
      const [first, ...others] = readers.get(valueKey(value)) ?? []
      // The product then runs where the reader did: nothing may need its result before.
      if (first !== reader || gone.has(value.node.id)) continue
      const isThere = (input: Tensor) => (position.get(input.node.id) ?? 0) < (position.get(reader.id) ?? 0)
      const [pair] = others.flatMap((second) => {
        const both = second.inputs.every(isThere) && !gone.has(second.id) && joined(reader, second)
        return both ? [{ second, both }] : []
      })
      const ofBoth = pair && (await merge(pair.both, at, adapter, id + 1))
      const node = ofBoth ?? (await merge(reader, at, adapter, id + 1))
      if (!node) continue
      id++
      fused.set(reader.id, node)
      const made = ofBoth ? [value.node, reader, pair.second] : [value.node, reader]
      for (const old of made) if (old !== reader) gone.add(old.id)
      const places = made.flatMap((old) => old.outputs.map((_, k) => `${old.id}.${k}`))
      for (const [k, { shape, dtype }] of node.outputs.entries())
        moved.set(places[k] ?? '', new Tensor(node, k, shape, dtype))
      break
    }
  }
  if (moved.size === 0) return trace
  const nodes = trace.nodes.flatMap((node) => (gone.has(node.id) ? [] : [fused.get(node.id) ?? node]))
  return moveHandles({ ...trace, nodes }, moved)
}

/** One call that does what two readers of a value do; undefined where that cannot be. */
function joined(a: Node, b: Node): Node | undefined {
  if (!a.op?.join || a.op !== b.op) return undefined
  const isSame = (value: Tensor, other: Tensor) =>
    valueKey(value) === valueKey(other) && sameShape(value.shape, other.shape)
  const inputs = [...a.inputs]
  const places = b.inputs.map((value) => {
    const known = inputs.findIndex((other) => isSame(value, other))
    return known >= 0 ? known : inputs.push(value) - 1
  })
  const attrs = a.op.join.set([
    { attrs: a.attrs as never, inputs: a.inputs.map((_, i) => i), outputs: a.outputs.length },
    { attrs: b.attrs as never, inputs: places, outputs: b.outputs.length },
  ])
  return attrs === undefined
    ? undefined
    : { ...a, name: `${a.name}+${b.name}`, inputs, attrs, outputs: [...a.outputs, ...b.outputs] }
}

/** The producer of the reader's input `at`, which also delivers what the reader did; undefined where that cannot be. */
async function merge(reader: Node, at: number, adapter: AdapterTraits, id: number): Promise<Node | undefined> {
  const { op, inputs, outputs, attrs } = reader
  const value = inputs[at]
  const producer = value?.node
  if (!value || !producer?.op?.summing || !op?.rowSums || producer.outputs.length !== 1) return undefined
  if (!sameShape(value.shape, producer.outputs[0]?.shape ?? [])) return undefined
  if (inputs.filter((other) => valueKey(other) === valueKey(value)).length !== 1) return undefined
  const rowSums = (await rowSumsAccessOf(op))?.of({ inputs, outputs, attrs: attrs as never, adapter }, at)
  // Beside them it stores its result and what is kept of the sums.
  if (!rowSums || producer.inputs.length + rowSums.operands.length + 2 > adapter.maxStorageBuffers) return undefined
  const reading: Reading = { op, attrs, at, first: producer.inputs.length }
  const context = { inputs: producer.inputs, outputs: producer.outputs, attrs: producer.attrs as never, adapter }
  const summing = producer.op.summing.set(context, reading)
  return summing === undefined
    ? undefined
    : {
        ...producer,
        id,
        name: `${producer.name}+${reader.name}`,
        inputs: [...producer.inputs, ...inputs.filter((_, i) => i !== at)],
        attrs: summing,
        outputs: [...producer.outputs, ...outputs],
      }
}
