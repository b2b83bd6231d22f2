import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, flatGrid, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { elements, spec } from '../engine/shape.js'
import { bySample } from './arrangement.js'
import { where } from './pointwise.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { storedType } from './views.js'

/**
 * `other` inside the box, `base` outside, bit for bit.
 *
 * @param base [N, H, W, C] or [N, H, W], images or labels
 * @param other the same shape
 * @param box u8 [N, H, W], 1 inside
 */
export function cutmix(base: Tensor, other: Tensor, box: Tensor): Tensor {
  const [n = 0, height = 0, width = 0] = box.shape
  return where(base.shape.length === 4 ? box.reshape(n, height, width, 1) : box, other, base)
}

const normalizeImageOp = defineOp<undefined>('normalizeImage', {
  precision: 'half',
  divide: bySample(),
  shape: ([x = spec([])]) => {
    const isBytes = x.dtype === 'u8' || x.dtype === 'u32'
    if (!isBytes || x.shape.at(-1) !== 3) throw new Error('expects bytes [N, H, W, 3]')
    return [spec(x.shape)]
  },
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])] }) => {
    const count = elements(x.shape) / 3
    const grid = flatGrid(ceilDiv(count, 64))
    const source = shader(shaders.normalize_image, {
      aliases: { U: storedType(y) },
      constants: { BYTES: x.dtype === 'u8' },
    })
    const dispatch = {
      label: 'normalizeImage',
      source,
      reads: [inputBuffer(0)],
      writes: [outputBuffer(0)],
      uniforms: [count, grid[0]],
      grid,
    }
    return [{ name: 'pixels', dispatches: [dispatch] }]
  },
})

/** RGB bytes, u8 or u32 [N, H, W, 3], as float32, normalised by ImageNet's mean and deviation per channel. */
export const normalizeImage = (x: Tensor): Tensor => applyOne(normalizeImageOp, [x], undefined)
