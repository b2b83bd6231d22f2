import type { AdapterTraits } from '../adapter.js'
import { type Node, type Reading, rowSumsAccessOf, Tensor, type Trace, valueKey } from '../ir.js'
import { sameShape } from '../shape.js'
import { moveHandles } from './rewrite.js'

/**
 * Lets an operator that sums its result on the way, such as a convolution, begin the sums over rows for which another one,
 * such as the statistics of batch norm, would read the result again.
 */
export async function fuseRowSums(trace: Trace, adapter: AdapterTraits): Promise<Trace> {
  const firstReader = new Map<string, Node>()
  for (const node of trace.nodes)
    for (const key of node.inputs.map(valueKey)) if (!firstReader.has(key)) firstReader.set(key, node)
  let id = Math.max(-1, ...trace.nodes.map((node) => node.id))
  const moved = new Map<string, Tensor>()
  /** By the reader's id. */
  const fused = new Map<number, Node>()
  const gone = new Set<number>()
  for (const reader of trace.nodes) {
    for (const [at, value] of reader.inputs.entries()) {
      // The product then runs where the reader did: nothing may need its result before.
      if (firstReader.get(valueKey(value)) !== reader || gone.has(value.node.id)) continue
      const node = await merge(reader, at, adapter, id + 1)
      if (!node) continue
      id++
      fused.set(reader.id, node)
      gone.add(value.node.id)
      for (const [k, { shape, dtype }] of node.outputs.entries())
        moved.set(k === 0 ? valueKey(value) : `${reader.id}.${k - 1}`, new Tensor(node, k, shape, dtype))
      break
    }
  }
  if (moved.size === 0) return trace
  const nodes = trace.nodes.flatMap((node) => (gone.has(node.id) ? [] : [fused.get(node.id) ?? node]))
  return moveHandles({ ...trace, nodes }, moved)
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
