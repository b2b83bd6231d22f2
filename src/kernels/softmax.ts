import { apply, applyOne, type Tensor } from '../engine/graph.js'
import { type Candidate, ceilDiv, defineOp, flatGrid, input, output } from '../engine/op.js'
import { elements, type Spec, spec } from '../engine/shape.js'
import { mul, sub } from './pointwise.js'
import { sumTo } from './reduce.js'
import { type ShaderName, shader } from './shaders.js'

function rowsKernel(label: string, name: ShaderName, x: Spec, outputs: number): Candidate {
  const channels = x.shape.at(-1) ?? 1
  const rows = elements(x.shape) / channels
  const grid = flatGrid(ceilDiv(rows, 64))
  const writes = Array.from({ length: outputs }, (_, i) => output(i))
  const uniforms = [rows, channels, grid[0]]
  return { name: 'rows', dispatches: [{ label, source: shader(name), reads: [input(0)], writes, uniforms, grid }] }
}

const softmaxOp = defineOp<undefined>('softmax', {
  shape: ([x = spec([])]) => [x],
  // dx = y · (dy − Σ dy · y), the sum over the last axis.
  vjp: ({ outputs: [y], grads: [dy] }) => {
    if (!y || !dy) return [undefined]
    return [mul(y, sub(dy, sumTo(mul(dy, y), [...y.shape.slice(0, -1), 1])))]
  },
  kernel: ({ inputs: [x = spec([])] }) => [rowsKernel('softmax', 'softmax', x, 1)],
})

/** Softmax over the last axis. */
export const softmax = (x: Tensor): Tensor => applyOne(softmaxOp, [x], undefined)

const softmaxMaxOp = defineOp<undefined>('softmaxMax', {
  shape: ([x = spec([])]) => [spec(x.shape.slice(0, -1)), spec(x.shape.slice(0, -1), 'u32')],
  kernel: ({ inputs: [x = spec([])] }) => [rowsKernel('softmaxMax', 'softmax_max', x, 2)],
})

/**
 * The largest softmax probability over the last axis and its class, the lowest on ties; they pass no gradient on.
 *
 * @param logits [..., C]
 * @returns confidence f32 [...] and label u32 [...]
 */
export function softmaxMax(logits: Tensor): { confidence: Tensor; label: Tensor } {
  const [confidence, label] = apply(softmaxMaxOp, [logits], undefined)
  if (!confidence || !label) throw new Error('unreachable: softmaxMax has two outputs')
  return { confidence, label }
}
