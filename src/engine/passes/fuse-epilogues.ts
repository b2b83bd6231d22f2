import type { AdapterTraits } from '../adapter.js'
import { input, substitute } from '../expr.js'
import { type Node, results, type Tensor, type Trace, valueKey } from '../ir.js'
import { isFloat, sameShape } from '../shape.js'
import { dropDead } from './drop-dead.js'
import { readersOf, rebuild } from './rewrite.js'

/**
 * Lets an operator with an epilogue, such as a convolution, pass its result through the pointwise formula that alone
 * reads it: the result itself is never stored.
 */
export function fuseEpilogues(trace: Trace, adapter: AdapterTraits): Trace {
  const kept = new Set(results(trace).map(valueKey))
  const readers = readersOf(trace)
  const isReadOnce = (value: Tensor) => !kept.has(valueKey(value)) && readers.get(valueKey(value))?.length === 1
  const fused = rebuild(trace, (node) => {
    for (const value of inOrder(node.inputs, adapter)) {
      const merged = isReadOnce(value) && merge(value, node, adapter)
      if (merged) return merged
    }
    return node
  })
  return dropDead(fused)
}

/**
 * Of several sums, such as gradients of a weight that are added up, the last is computed when the others are there. Of
 * several products one that can go on to sums of the rows of what it then stores.
 */
function inOrder(values: readonly Tensor[], adapter: AdapterTraits): Tensor[] {
  const time = ({ node }: Tensor) => (node.op?.precision === 'sum' ? node.id : 0)
  const sumsRows = ({ node: { op, inputs, outputs, attrs } }: Tensor) =>
    Number(op?.summing?.fits({ inputs, outputs, attrs: attrs as never, adapter }) ?? false)
  return [...values].sort((a, b) => time(b) - time(a) || sumsRows(b) - sumsRows(a))
}

/** The producer of `value` with the formula of its reader as its epilogue; undefined where that cannot be. */
function merge(value: Tensor, reader: Node, adapter: AdapterTraits): Node | undefined {
  const producer = value.node
  const formula = reader.op?.formula
  if (!producer.op?.epilogue || !reader.op || !formula?.elementwise || reader.outputs.length !== 1) return undefined
  const { exprs, space } = formula.get(reader.attrs as never)
  const shape = producer.outputs[value.index]?.shape ?? []
  if (reader.op.inplace?.(reader.attrs as never).size || !reader.outputs.every(isFloat)) return undefined
  if (!exprs[0] || !sameShape(value.shape, space) || !sameShape(shape, space)) return undefined
  const uses = reader.inputs.filter((other) => valueKey(other) === valueKey(value))
  if (!uses.every((use) => sameShape(use.shape, space))) return undefined
  const others = reader.inputs.filter((other) => valueKey(other) !== valueKey(value))
  if (producer.inputs.length + others.length + 1 > adapter.maxStorageBuffers) return undefined
  const place = (operand: Tensor) => input(valueKey(operand) === valueKey(value) ? 0 : others.indexOf(operand) + 1)
  const expr = substitute(exprs[0], reader.inputs.map(place))
  const attrs = producer.op.epilogue.set(producer.attrs as never, expr, adapter)
  if (attrs === undefined) return undefined
  const { op, scope } = producer
  return {
    ...reader,
    op,
    name: `${producer.name}+${reader.name}`,
    inputs: [...producer.inputs, ...others],
    attrs,
    scope,
  }
}
