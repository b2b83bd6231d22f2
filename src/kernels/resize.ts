import { applyOne } from '../engine/graph.js'
import { type Call, defineOp, type Part, type RowsCall, type Tensor } from '../engine/ir.js'
import {
  ceilDiv,
  type Dispatch,
  flatGrid,
  floatBits,
  inputBuffer,
  type KernelContext,
  type Operand,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import { type Spec, spec } from '../engine/shape.js'
import { bySample, rowsOf } from './arrangement.js'
import * as shaders from './shaders.generated.js'
import { chunksOf, packed, packTypes, shader } from './shaders.js'

export interface ResizeAttrs {
  /** Height and width of the result. */
  readonly size: readonly [number, number]
  /** Whether the borders of the images coincide rather than the centres of their corner pixels. */
  readonly halfPixel?: true
  /** Where the result lies in a larger tensor, along the channels. */
  readonly part?: Part
}

/** Input coordinates per output coordinate; an output of one pixel takes input 0. */
export const scaleOf = (from: number, to: number): number => (to > 1 ? (from - 1) / (to - 1) : 0)

/** Output coordinates per input coordinate; no output follows the first one where there is only one. */
export const stepOf = (from: number, to: number): number => (to > 1 ? (to - 1) / (from - 1 || 1) : 1e9)

/** Input coordinates per output coordinate and the reverse, as words of uniforms. */
function ratios(from: number, to: number, { halfPixel }: ResizeAttrs): [scale: number, step: number] {
  return halfPixel
    ? [floatBits(from / to), floatBits(to / from)]
    : [floatBits(scaleOf(from, to)), floatBits(stepOf(from, to))]
}

function forwardDispatch(x: Spec, y: Spec, attrs: ResizeAttrs, software: boolean): Dispatch {
  const [n = 0, xHeight = 0, xWidth = 0, channels = 0] = x.shape
  const [, yHeight = 0, yWidth = 0, pitch = 0] = y.shape
  const start = attrs.part?.start ?? 0
  const { pack } = packed(channels % 4 === 0 && start % 4 === 0 ? pitch : 1)
  const packs = channels / pack
  const { chunks, each } = chunksOf(n * yHeight * packs, yWidth, software)
  const threads = n * yHeight * chunks * packs
  const grid = flatGrid(ceilDiv(threads, 64))
  const [scale] = ratios(xHeight, yHeight, attrs)
  const scales = [scale, ...ratios(xWidth, yWidth, attrs)]
  const uniforms = [
    threads,
    packs,
    xHeight,
    xWidth,
    yHeight,
    yWidth,
    chunks,
    each,
    ...scales,
    grid[0],
    pitch / pack,
    start / pack,
  ]
  const source = shader(shaders.resize, { ...constantsOf(attrs), aliases: packTypes(pack, x, y) })
  return { label: 'resizeBilinear', source, reads: [inputBuffer(0)], writes: [outputBuffer(0)], uniforms, grid }
}

const constantsOf = ({ halfPixel }: ResizeAttrs) => ({ constants: { HALF_PIXEL: halfPixel === true } })

/** The gradient along one axis: dy [lines, from, inner] → dx [lines, to, inner]. */
function gradDispatch(
  [lines, from, to, inner]: readonly [number, number, number, number],
  [read, written]: readonly [Operand, Operand],
  types: readonly [Spec, Spec],
  attrs: ResizeAttrs,
  software: boolean,
): Dispatch {
  const { pack, packs } = packed(inner)
  const { chunks, each } = chunksOf(lines * packs, to, software)
  const threads = lines * chunks * packs
  const grid = flatGrid(ceilDiv(threads, 64))
  const uniforms = [threads, packs, to, from, chunks, each, ...ratios(to, from, attrs), grid[0]]
  const source = shader(shaders.resize_grad, { ...constantsOf(attrs), aliases: packTypes(pack, ...types) })
  return { label: 'resizeBilinearGrad', source, reads: [read], writes: [written], uniforms, grid }
}

/** What a map becomes at another size. Throws where it is none. */
export const resized = (x: Spec, [height, width]: readonly [number, number]): Spec[] => {
  if (x.shape.length !== 4) throw new Error('expects [N, H, W, C]')
  if (height < 1 || width < 1) throw new Error(`cannot resize to ${height} × ${width}`)
  return [spec([x.shape[0] ?? 0, height, width, x.shape[3] ?? 0])]
}

/** Along columns first: then each row is resized by itself, with the same result. */
function forwardByRows({ inputs: [x = spec([])], outputs: [y = spec([])], attrs }: Call<ResizeAttrs>): RowsCall[] {
  const [, height = 0, width = 0] = y.shape
  const [n = 0, , xWidth = 0, channels = 0] = x.shape
  const between = spec([n, height, xWidth, channels], y.dtype)
  return [
    { attrs: { ...attrs, size: [height, xWidth] }, inputs: [x.shape], outputs: [between] },
    {
      attrs: { ...attrs, size: [1, width] },
      inputs: [rowsOf(between.shape)],
      outputs: [spec(rowsOf(y.shape), y.dtype)],
    },
  ]
}

/** Along rows first, as the kernel does. */
function gradByRows({ inputs: [dy = spec([])], outputs: [dx = spec([])], attrs }: Call<ResizeAttrs>): RowsCall[] {
  const [, height = 0, width = 0] = dx.shape
  const [n = 0, yHeight = 0, , channels = 0] = dy.shape
  const between = spec([n, yHeight, width, channels], dx.dtype)
  return [
    {
      attrs: { ...attrs, size: [1, width] },
      inputs: [rowsOf(dy.shape)],
      outputs: [spec(rowsOf(between.shape), dx.dtype)],
    },
    { attrs: { ...attrs, size: [height, width] }, inputs: [between.shape], outputs: [dx] },
  ]
}

/** Height and width of a map. */
export const sizeOf = ({ shape }: Tensor): readonly [number, number] => [shape[1] ?? 0, shape[2] ?? 0]

const resizeOp = defineOp<ResizeAttrs>('resizeBilinear', {
  precision: 'same',
  divide: { ...bySample(), rows: forwardByRows },
  shape: ([x = spec([])], { size }) => resized(x, size),
  vjp: ({ inputs: [x], attrs, grads: [dy] }) => [
    x && dy && applyOne(resizeGradOp, [dy], { ...attrs, size: sizeOf(x) }),
  ],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])], attrs, adapter }: KernelContext<ResizeAttrs>) => [
    { name: 'rows', dispatches: [forwardDispatch(x, y, attrs, adapter.software)] },
  ],
  part: {
    set: (attrs, part) => (part.axis === part.shape.length - 1 && !attrs.part ? { ...attrs, part } : undefined),
  },
  // A larger tensor follows x.
  inplace: ({ part }) => new Map(part ? [[0, 1]] : []),
})

const resizeGradOp = defineOp<ResizeAttrs>('resizeBilinearGrad', {
  precision: 'same',
  divide: { ...bySample(), rows: gradByRows },
  shape: ([dy = spec([])], { size }) => resized(dy, size),
  // Along rows first: their elements are near each other, and what is left for the other axis is smaller.
  kernel: ({ inputs: [dy = spec([])], outputs: [dx = spec([])], attrs, adapter }: KernelContext<ResizeAttrs>) => {
    const [n = 0, yHeight = 0, yWidth = 0, channels = 0] = dy.shape
    const [, xHeight = 0, xWidth = 0] = dx.shape
    const along = [n * yHeight, yWidth, xWidth, channels] as const
    const across = [n, yHeight, xHeight, xWidth * channels] as const
    const between = spec([n, yHeight, xWidth, channels])
    return [
      {
        name: 'axes',
        temporaries: [between],
        dispatches: [
          gradDispatch(along, [inputBuffer(0), temporaryBuffer(0)], [dy, between], attrs, adapter.software),
          gradDispatch(across, [temporaryBuffer(0), outputBuffer(0)], [between, dx], attrs, adapter.software),
        ],
      },
    ]
  },
})

/**
 * Bilinear resize as `torch.nn.functional.interpolate`, which smooths nothing where it shrinks. With `alignCorners` the
 * centres of the corner pixels coincide, and a result of one pixel is the first one; without, the borders of the images do.
 *
 * @param x [N, H, W, C]
 * @param size height and width of the result
 */
export function resizeBilinear(
  x: Tensor,
  size: readonly [number, number],
  { alignCorners = true }: { alignCorners?: boolean } = {},
): Tensor {
  if (size[0] === x.shape[1] && size[1] === x.shape[2]) return x
  return applyOne(resizeOp, [x], alignCorners ? { size } : { size, halfPixel: true })
}
