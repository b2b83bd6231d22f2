import { applyOne, type Tensor } from '../engine/graph.js'
import { ceilDiv, defineOp, flatGrid, input, output } from '../engine/op.js'
import { elements, spec } from '../engine/shape.js'
import { shader } from './shaders.js'

const flipOp = defineOp<undefined>('flip', {
  shape: ([x = spec([])]) => {
    if (x.dtype !== 'f32' || x.shape.length !== 4) throw new Error('expects f32 [N, H, W, C]')
    return [x]
  },
  vjp: ({ grads: [dy] }) => [dy && flip(dy)],
  kernel: ({ inputs: [x = spec([])] }) => {
    const count = elements(x.shape)
    const grid = flatGrid(ceilDiv(count, 64))
    const uniforms = [count, x.shape[2] ?? 1, x.shape[3] ?? 1, grid[0]]
    const operands = { reads: [input(0)], writes: [output(0)] }
    return [{ name: 'elements', dispatches: [{ label: 'flip', source: shader('flip'), ...operands, uniforms, grid }] }]
  },
})

/** Maps [N, H, W, C] mirrored left to right. */
export const flip = (x: Tensor): Tensor => applyOne(flipOp, [x], undefined)
