import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, flatGrid, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { elements, isFloat, spec } from '../engine/shape.js'
import { byRow } from './arrangement.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { storedType } from './views.js'

const flipOp = defineOp<undefined>('flip', {
  precision: 'same',
  shape: ([x = spec([])]) => {
    if (!isFloat(x) || x.shape.length !== 4) throw new Error('expects floats [N, H, W, C]')
    return [x]
  },
  vjp: ({ grads: [dy] }) => [dy && flip(dy)],
  divide: byRow(),
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])] }) => {
    const count = elements(x.shape)
    const grid = flatGrid(ceilDiv(count, 64))
    const uniforms = [count, x.shape[2] ?? 1, x.shape[3] ?? 1, grid[0]]
    const operands = { reads: [inputBuffer(0)], writes: [outputBuffer(0)] }
    const source = shader(shaders.flip, { aliases: { T: storedType(x), U: storedType(y) } })
    return [{ name: 'elements', dispatches: [{ label: 'flip', source, ...operands, uniforms, grid }] }]
  },
})

/** Maps [N, H, W, C] mirrored left to right. */
export const flip = (x: Tensor): Tensor => applyOne(flipOp, [x], undefined)
