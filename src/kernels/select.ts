import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, type Dispatch, inputBuffer, outputBuffer, temporaryBuffer } from '../engine/kernel.js'
import { elements, spec } from '../engine/shape.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'

interface KthAttrs {
  readonly k: number
}

const kthSmallestOp = defineOp<KthAttrs>('kthSmallest', {
  shape: ([x = spec([])], { k }) => {
    if (k < 1 || k > elements(x.shape)) throw new Error(`there is no ${k}th smallest of ${elements(x.shape)} elements`)
    return [spec([])]
  },
  kernel: ({ inputs: [x = spec([])], attrs: { k }, adapter }) => {
    if (x.dtype !== 'f32') throw new Error(`kthSmallest: elements are ${x.dtype}, not f32`)
    const count = elements(x.shape)
    const groups = Math.max(1, Math.min(ceilDiv(count, 1024), adapter.software ? 8 : 256))
    const uniforms = [count, k, groups]
    const histogram = spec([4, 256], 'u32')
    const clear: Dispatch = {
      label: 'kthSmallest clear',
      source: shader(shaders.clear),
      reads: [],
      writes: [temporaryBuffer(0)],
      uniforms: [4 * 256, 16],
      grid: [16, 1, 1],
    }
    const passes = [0, 1, 2, 3].map(
      (pass): Dispatch => ({
        label: 'kthSmallest',
        source: shader(shaders.kth_smallest, { constants: { PASS: pass } }),
        reads: [inputBuffer(0)],
        writes: [temporaryBuffer(0)],
        uniforms,
        grid: [groups, 1, 1],
      }),
    )
    const finish: Dispatch = {
      label: 'kthSmallest finish',
      source: shader(shaders.kth_smallest_finish),
      reads: [temporaryBuffer(0)],
      writes: [outputBuffer(0)],
      uniforms,
      grid: [1, 1, 1],
    }
    return [{ name: 'radix', temporaries: [histogram], dispatches: [clear, ...passes, finish] }]
  },
})

/** The k-th smallest element (k from 1) of a tensor of non-negative floats, exactly: a scalar without gradient. */
export const kthSmallest = (x: Tensor, k: number): Tensor => applyOne(kthSmallestOp, [x], { k })
