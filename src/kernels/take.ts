import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, flatGrid, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { elements, spec } from '../engine/shape.js'
import { arrangement, joinedDivision } from './arrangement.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { storedType } from './views.js'

const takeOp = defineOp<undefined>('take', {
  precision: 'same',
  divide: { arrangement, division: (call) => joinedDivision(call, ['whole', 'divided']) },
  shape: ([x = spec([]), index = spec([])]) => {
    if (index.dtype !== 'u32' || index.shape.length !== 1) throw new Error('expects indices u32 [M]')
    if (x.shape.length === 0) throw new Error('expects samples [N, ...]')
    const shape = [index.shape[0] ?? 0, ...x.shape.slice(1)]
    return [spec(shape, x.dtype === 'u8' ? 'u32' : x.dtype)]
  },
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])] }) => {
    const count = elements(y.shape)
    const grid = flatGrid(ceilDiv(count, 64))
    const bytes = x.dtype === 'u8'
    const aliases = { T: bytes ? 'u32' : storedType(x), U: storedType(y) }
    const source = shader(shaders.take, { aliases, constants: { BYTES: bytes } })
    const uniforms = [count, elements(x.shape.slice(1)), grid[0]]
    const operands = { reads: [inputBuffer(0), inputBuffer(1)], writes: [outputBuffer(0)] }
    return [{ name: 'elements', dispatches: [{ label: 'take', source, ...operands, uniforms, grid }] }]
  },
})

/**
 * Samples of a tensor by their indices, such as a batch in another order; no gradient flows through it.
 *
 * @param x floats, u32 or u8 [N, ...]
 * @param index u32 [M], each below N
 * @returns [M, ...]; u32 where x holds bytes
 */
export const take = (x: Tensor, index: Tensor): Tensor => applyOne(takeOp, [x, index], undefined)
