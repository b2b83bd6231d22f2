import { type Node, valueKey } from '../engine/ir.js'
import { valueText } from '../engine/value-text.js'
import type { AttentionAttrs } from '../kernels/attention.js'
import type { BatchedMatmulAttrs } from '../kernels/batched-matmul-panels.js'
import { type LayerNormAttrs, layerNormFormula } from '../kernels/layernorm.js'
import type { PermuteAttrs } from '../kernels/permute.js'
import type { Emitter, Value } from './emitter.js'
import { formulaOf } from './formulas.js'
import { type Extent, inputsOf, resultOf, type Twin } from './twin.js'

/** Inputs of a call with their axes in the order of the trace. */
const plainInputs = (emitter: Emitter, node: Twin<Node>): Value[] =>
  emitter.inputs(node).map((value) => emitter.plain(value))

function transposed(emitter: Emitter, value: Value, perm: readonly number[], name: string): Value {
  const extents = perm.map((axis): Extent => value.extents[axis] ?? [1, 1])
  return emitter.node(name, 'Transpose', [value.name], { extents, channelsFirst: false }, { perm })
}

/** The formula that normalises rows by their statistics, as the operator that computes those too. */
export function emitLayerNorm(emitter: Emitter, node: Twin<Node>, name: string): Value | undefined {
  const expr = formulaOf(node.a)?.expr
  const [x, mean, inverse, weight, bias] = inputsOf(node)
  if (!expr || !x || !mean || !inverse || !weight || !bias || valueText(expr) !== valueText(layerNormFormula)) {
    return undefined
  }
  const { op, attrs, inputs } = mean.a.node
  const [source] = inputs
  const isOfX = source !== undefined && valueKey(source) === valueKey(x.a) && inverse.a.node === mean.a.node
  if (op?.name !== 'layerNormStatistics' || !isOfX || mean.a.index !== 0 || inverse.a.index !== 1) return undefined
  const rows = emitter.plain(emitter.value(x))
  const names = [rows, emitter.value(weight), emitter.value(bias)].map((value) => value.name)
  const { eps } = attrs as LayerNormAttrs
  const result = { extents: resultOf(node), channelsFirst: false }
  return emitter.node(name, 'LayerNormalization', names, result, { axis: -1, epsilon: { float: eps } })
}

export function emitPermute(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const [x] = plainInputs(emitter, node)
  if (!x) throw new Error(`${name} has no input`)
  return transposed(emitter, x, (node.a.attrs as PermuteAttrs).axes, name)
}

export function emitBatchedMatmul(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const { transposeA, transposeB } = node.a.attrs as BatchedMatmulAttrs
  const factors = plainInputs(emitter, node).map((factor, k) => {
    if (!(k === 0 ? transposeA : transposeB)) return factor
    const rank = factor.extents.length
    const perm = factor.extents.map((_, axis) => (axis < rank - 2 ? axis : 2 * rank - 3 - axis))
    return transposed(emitter, factor, perm, emitter.unique(`${name}/transpose`))
  })
  const result = { extents: resultOf(node), channelsFirst: false }
  return emitter.node(
    name,
    'MatMul',
    factors.map((factor) => factor.name),
    result,
  )
}

/** Attention by its steps, with the heads as an axis of batches. */
export function emitAttention(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const { heads, scale } = node.a.attrs as AttentionAttrs
  const extents = resultOf(node)
  const [samples = [0, 0], queries = [0, 0], [channels] = [0, 0]] = extents
  const keys: Extent = [node.a.inputs[1]?.shape[1] ?? 0, node.b.inputs[1]?.shape[1] ?? 0]
  const size = channels / heads
  const fixed = (extent: number): Extent => [extent, extent]
  const plain = (list: readonly Extent[]) => ({ extents: list, channelsFirst: false })
  const step = (what: string) => emitter.unique(`${name}/${what}`)
  // Extents 0 stay as they are.
  const split = emitter.integers([0, 0, heads, size])
  const [q, k, v] = plainInputs(emitter, node).map((value, i) => {
    const rows = i === 0 ? queries : keys
    const parts = emitter.node(
      step('heads'),
      'Reshape',
      [value.name, split],
      plain([samples, rows, fixed(heads), fixed(size)]),
    )
    return transposed(emitter, parts, i === 1 ? [0, 2, 3, 1] : [0, 2, 1, 3], step('transpose'))
  })
  if (!q || !k || !v) throw new Error(`${name} has no queries, keys or values`)
  const square = plain([samples, fixed(heads), queries, keys])
  const scaled = emitter.node(step('scaled'), 'Mul', [q.name, emitter.scalar(scale)], q)
  const scores = emitter.node(step('scores'), 'MatMul', [scaled.name, k.name], square)
  const weights = emitter.node(step('weights'), 'Softmax', [scores.name], square, { axis: -1 })
  const sums = plain([samples, fixed(heads), queries, fixed(size)])
  const mixed = emitter.node(step('mixed'), 'MatMul', [weights.name, v.name], sums)
  const joined = transposed(emitter, mixed, [0, 2, 1, 3], step('transpose'))
  return emitter.node(name, 'Reshape', [joined.name, emitter.integers([0, 0, channels])], plain(extents))
}
