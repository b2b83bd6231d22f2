import { apply, applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { type Candidate, ceilDiv, flatGrid, floatBits, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { elements, type Spec, spec } from '../engine/shape.js'
import { byRow, bySample } from './arrangement.js'
import { mul, sub, sumTo } from './pointwise.js'
import { resized, scaleOf, stepOf } from './resize.js'
import type { Shader } from './shaders.generated.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { storedType } from './views.js'

function rowsKernel(label: string, file: Shader, x: Spec, outputs: number): Candidate {
  const channels = x.shape.at(-1) ?? 1
  const rows = elements(x.shape) / channels
  const grid = flatGrid(ceilDiv(rows, 64))
  const writes = Array.from({ length: outputs }, (_, i) => outputBuffer(i))
  const uniforms = [rows, channels, grid[0]]
  return {
    name: 'rows',
    dispatches: [
      {
        label,
        source: shader(file, { aliases: { T: storedType(x) } }),
        reads: [inputBuffer(0)],
        writes,
        uniforms,
        grid,
      },
    ],
  }
}

const softmaxOp = defineOp<undefined>('softmax', {
  precision: 'wide',
  divide: byRow(),
  shape: ([x = spec([])]) => [spec(x.shape)],
  // dx = y · (dy − Σ dy · y), the sum over the last axis.
  vjp: ({ outputs: [y], grads: [dy] }) => {
    if (!y || !dy) return [undefined]
    return [mul(y, sub(dy, sumTo(mul(dy, y), [...y.shape.slice(0, -1), 1])))]
  },
  kernel: ({ inputs: [x = spec([])] }) => [rowsKernel('softmax', shaders.softmax, x, 1)],
})

/** Softmax over the last axis. */
export const softmax = (x: Tensor): Tensor => applyOne(softmaxOp, [x], undefined)

const softmaxMaxOp = defineOp<undefined>('softmaxMax', {
  precision: 'wide',
  divide: byRow(),
  shape: ([x = spec([])]) => [spec(x.shape.slice(0, -1)), spec(x.shape.slice(0, -1), 'u32')],
  kernel: ({ inputs: [x = spec([])] }) => [rowsKernel('softmaxMax', shaders.softmax_max, x, 2)],
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

interface ResizedAttrs {
  /** Height and width of the result. */
  readonly size: readonly [number, number]
}

const resizedSoftmaxMaxOp = defineOp<ResizedAttrs>('resizedSoftmaxMax', {
  precision: 'wide',
  divide: bySample(),
  shape: ([x = spec([])], { size }) => {
    const shape = resized(x, size)[0]?.shape.slice(0, 3) ?? []
    return [spec(shape), spec(shape, 'u32')]
  },
  kernel: ({ inputs: [x = spec([])], attrs: { size } }) => {
    const [n = 0, xHeight = 0, xWidth = 0, channels = 0] = x.shape
    const [yHeight, yWidth] = size
    const step = stepOf(xWidth, yWidth)
    const threads = n * yHeight * xWidth
    const grid = flatGrid(ceilDiv(threads, 64))
    const factors = [scaleOf(xHeight, yHeight), scaleOf(xWidth, yWidth), step].map(floatBits)
    const uniforms = [threads, channels, xHeight, xWidth, yHeight, yWidth, ...factors, grid[0]]
    const constants = { SLOTS: Math.max(1, Math.min(8, Math.ceil(step))) }
    const source = shader(shaders.resized_softmax_max, { constants, aliases: { T: storedType(x) } })
    const dispatch = {
      label: 'resizedSoftmaxMax',
      source,
      reads: [inputBuffer(0)],
      writes: [outputBuffer(0), outputBuffer(1)],
    }
    return [{ name: 'columns', dispatches: [{ ...dispatch, uniforms, grid }] }]
  },
})

/**
 * `softmaxMax` of logits that are resized first as `resizeBilinear` does, in one pass that never stores them.
 *
 * @param logits [N, H, W, C]
 * @param size height and width of the result
 * @returns confidence f32 and label u32, both [N, ...size]; they pass no gradient on
 */
export function resizedSoftmaxMax(
  logits: Tensor,
  size: readonly [number, number],
): { confidence: Tensor; label: Tensor } {
  if (size[0] === logits.shape[1] && size[1] === logits.shape[2]) return softmaxMax(logits)
  const [confidence, label] = apply(resizedSoftmaxMaxOp, [logits], { size })
  if (!confidence || !label) throw new Error('unreachable: resizedSoftmaxMax has two outputs')
  return { confidence, label }
}
