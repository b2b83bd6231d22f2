import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  floatBits,
  inputBuffer,
  type Operand,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import { type Spec, spec } from '../engine/shape.js'
import { bySample } from './arrangement.js'
import { resized, sizeOf } from './resize.js'
import * as shaders from './shaders.generated.js'
import { packed, packTypes, shader } from './shaders.js'

export interface ResizeCubicAttrs {
  /** Height and width of the result. */
  readonly size: readonly [number, number]
  /** Pixels of the finer or coarser map that x is, per pixel of the result, along height and width. */
  readonly ratio: readonly [number, number]
}

interface Pass {
  /** Everything before the axis, extents of x and of y along it, everything behind it. */
  readonly extents: readonly [lines: number, x: number, y: number, inner: number]
  readonly ratio: number
  readonly read: Operand
  readonly written: Operand
  readonly types: readonly [read: Spec, written: Spec]
}

function dispatchOf(label: string, { extents, ratio, read, written, types }: Pass, gradient: boolean): Dispatch {
  const [lines, x, y, inner] = extents
  const { pack, packs } = packed(inner)
  const threads = lines * (gradient ? x : y) * packs
  const grid = flatGrid(ceilDiv(threads, 64))
  const uniforms = [threads, packs, x, y, floatBits(ratio), floatBits(1 / ratio), grid[0]]
  const aliases = packTypes(pack, ...types)
  const source = shader(shaders.resize_cubic, { constants: { GRADIENT: gradient }, aliases })
  return { label, source, reads: [read], writes: [written], uniforms, grid }
}

/** Across the rows of x first, then along them; the gradient goes the other way. */
function kernel(label: string, x: Spec, y: Spec, { ratio }: ResizeCubicAttrs, gradient: boolean): Candidate {
  const [n = 0, xHeight = 0, xWidth = 0, channels = 0] = x.shape
  const [, yHeight = 0, yWidth = 0] = y.shape
  const between = spec([n, yHeight, xWidth, channels])
  const across = { extents: [n, xHeight, yHeight, xWidth * channels], ratio: ratio[0] } as const
  const along = { extents: [n * yHeight, xWidth, yWidth, channels], ratio: ratio[1] } as const
  const passes = gradient ? [along, across] : [across, along]
  const [from, to] = gradient ? [y, x] : [x, y]
  const dispatches = passes.map((pass, i) => {
    const [read, written] = i === 0 ? [inputBuffer(0), temporaryBuffer(0)] : [temporaryBuffer(0), outputBuffer(0)]
    const types = i === 0 ? ([from, between] as const) : ([between, to] as const)
    return dispatchOf(label, { ...pass, read, written, types }, gradient)
  })
  return { name: 'axes', temporaries: [between], dispatches }
}

const resizeCubicOp = defineOp<ResizeCubicAttrs>('resizeCubic', {
  precision: 'wide',
  divide: bySample(),
  shape: ([x = spec([])], { size, ratio }) => {
    if (!ratio.every((each) => each > 0 && Number.isFinite(each))) throw new Error('ratios must be positive')
    return resized(x, size)
  },
  vjp: ({ inputs: [x], attrs, grads: [dy] }) => [
    x && dy && applyOne(resizeCubicGradOp, [dy], { ...attrs, size: sizeOf(x) }),
  ],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])], attrs }) => [kernel('resizeCubic', x, y, attrs, false)],
})

const resizeCubicGradOp = defineOp<ResizeCubicAttrs>('resizeCubicGrad', {
  precision: 'wide',
  divide: bySample(),
  shape: ([dy = spec([])], { size }) => resized(dy, size),
  kernel: ({ inputs: [dy = spec([])], outputs: [dx = spec([])], attrs }) => [
    kernel('resizeCubicGrad', dx, dy, attrs, true),
  ],
})

/**
 * Bicubic resize (Keys's kernel with a = -0.75) as `torch.nn.functional.interpolate` without antialiasing and without
 * aligned corners: pixel i of the result lies at (i + 0.5) · ratio - 0.5 of x.
 *
 * @param x [N, H, W, C]
 * @param size height and width of the result
 * @param ratio where PyTorch is given a `scale_factor`, 1 / scale_factor, by default H / height and W / width
 */
export function resizeCubic(
  x: Tensor,
  size: readonly [number, number],
  ratio: readonly [number, number] = [(x.shape[1] ?? 0) / size[0], (x.shape[2] ?? 0) / size[1]],
): Tensor {
  return applyOne(resizeCubicOp, [x], { size, ratio })
}
