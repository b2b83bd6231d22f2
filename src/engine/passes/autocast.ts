import { type Node, type Op, results, Tensor, type Trace, valueKey } from '../ir.js'
import { type DType, elements, isFloat, type Spec } from '../shape.js'
import { relink } from './rewrite.js'

/** The call that stores a value as another type. */
export type Cast = (
  value: Spec,
  dtype: 'f32' | 'f16',
) => { readonly op: Op; readonly name: string; readonly attrs: unknown }

/**
 * Half precision: stores as f16 what each operator's `precision` allows, as PyTorch's autocast does. Kernels read every
 * operand by its own type and compute in f32, so that only element types change; an f32 operand of a product, such as a
 * weight, gets a working copy that all its readers share, and so does an f16 operand of what reads f32 only. What the
 * program delivers, variables take and updates replace stays f32.
 *
 * Runs behind differentiation, so that gradients get the type of what they are gradients of, and before fusion, which
 * then takes in the casts.
 */
export function autocast(trace: Trace, cast: Cast): Trace {
  const delivered = new Set(results(trace).map(valueKey))
  const copies = new Map<string, Tensor>()
  const values = new Map<string, Tensor>()
  const nodes: Node[] = []
  let id = Math.max(-1, ...trace.nodes.map((node) => node.id))

  const copyOf = (value: Tensor, dtype: 'f32' | 'f16', { scope, backward }: Node): Tensor => {
    if (!isFloat(value) || value.dtype === dtype) return value
    const key = valueKey(value)
    let copy = copies.get(key)
    if (!copy) {
      const { shape = value.shape } = value.node.outputs[value.index] ?? {}
      const outputs: Spec[] = [{ shape, dtype }]
      const inputs = [new Tensor(value.node, value.index, shape, value.dtype)]
      const node: Node = { id: ++id, ...cast({ shape, dtype: value.dtype }, dtype), inputs, outputs, scope, backward }
      nodes.push(node)
      copy = new Tensor(node, 0, shape, dtype)
      copies.set(key, copy)
    }
    return new Tensor(copy.node, 0, value.shape, dtype, value.detached)
  }

  for (const old of trace.nodes) {
    const { precision } = old.op ?? {}
    const typed = old.inputs.map((value) => {
      const now = values.get(valueKey(value)) ?? value
      return new Tensor(now.node, now.index, value.shape, now.dtype, value.detached)
    })
    const isProduct = precision === 'half' || precision === 'sum'
    const readsAny = precision === 'same' || precision === 'wide'
    const inputs = readsAny ? typed : typed.map((value) => copyOf(value, isProduct ? 'f16' : 'f32', old))
    const stored: DType = precision === 'half' || (precision === 'same' && isHalf(inputs)) ? 'f16' : 'f32'
    const replaced = old.op?.inplace?.(old.attrs as never)
    const outputs = old.outputs.map((spec, index): Spec => {
      const isFull = replaced?.has(index) || old.op?.fullOutputs?.includes(index)
      const stays = spec.dtype !== 'f32' || isFull || delivered.has(`${old.id}.${index}`)
      return stays ? spec : { ...spec, dtype: stored }
    })
    const node = { ...old, inputs, outputs }
    nodes.push(node)
    for (const [index, { shape, dtype }] of outputs.entries())
      values.set(`${old.id}.${index}`, new Tensor(node, index, shape, dtype))
  }
  return relink({ ...trace, nodes })
}

/** Whether the largest of the floating-point operands, which smaller ones broadcast to, are f16. */
function isHalf(inputs: readonly Tensor[]): boolean {
  const floats = inputs.filter(isFloat)
  const most = Math.max(0, ...floats.map(({ shape }) => elements(shape)))
  const largest = floats.filter(({ shape }) => elements(shape) === most)
  return largest.length > 0 && largest.every(({ dtype }) => dtype === 'f16')
}
