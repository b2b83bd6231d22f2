import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, type Dispatch, flatGrid, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { type DType, type Spec, spec } from '../engine/shape.js'
import { bySample } from './arrangement.js'
import { scale, sumTo } from './pointwise.js'
import * as shaders from './shaders.generated.js'
import { chunksOf, packed, packTypes, shader } from './shaders.js'

export interface PoolAttrs {
  readonly kernel: number
  readonly stride: number
  readonly padding: number
}

interface PoolGradAttrs extends PoolAttrs {
  /** Shape of the pooled input. */
  readonly shape: readonly number[]
}

const pooled = (extent: number, { kernel, stride, padding }: PoolAttrs): number =>
  Math.floor((extent + 2 * padding - kernel) / stride) + 1

/** Taps fit into bytes, of which four make one word, where channels come in packs. */
const tapType = (channels: number, kernel: number): DType =>
  packed(channels).pack === 4 && kernel * kernel < 256 ? 'u8' : 'u32'

const bytes = {
  pack_tap: 'fn pack_tap(value: I) -> u32 {\n  return pack4xU8(value);\n}',
  unpack_tap: 'fn unpack_tap(value: u32) -> I {\n  return unpack4xU8(value);\n}',
}

/** A dispatch whose threads walk along `columns` steps of a row of windows or of blocks. */
function poolDispatch(
  name: 'maxpool' | 'maxpool_grad',
  [x, y, tap]: readonly [Spec, Spec, Spec],
  [rows, columns]: readonly [number, number],
  { kernel, stride, padding }: PoolAttrs,
  software: boolean,
): Omit<Dispatch, 'label' | 'reads' | 'writes'> {
  const [n = 0, xHeight = 0, xWidth = 0, channels = 0] = x.shape
  const [, yHeight = 0, yWidth = 0] = y.shape
  const inPacks = tap.dtype === 'u8'
  const packs = inPacks ? channels / 4 : channels
  const { chunks, each } = chunksOf(n * rows * packs, columns, software)
  const threads = n * rows * chunks * packs
  const grid = flatGrid(ceilDiv(threads, 64))
  const hook = name === 'maxpool' ? 'pack_tap' : 'unpack_tap'
  const types = packTypes(inPacks ? 4 : 1, ...(name === 'maxpool' ? ([x, y] as const) : ([y, x] as const)))
  const source = shader(name === 'maxpool' ? shaders.maxpool : shaders.maxpool_grad, {
    constants: { KERNEL: kernel, STRIDE: stride },
    aliases: { ...types, I: inPacks ? 'vec4u' : 'u32' },
    hooks: inPacks ? { [hook]: bytes[hook] } : {},
  })
  const extents = [packs, xHeight, xWidth, yHeight, yWidth, padding]
  return { source, uniforms: [threads, ...extents, chunks, each, grid[0], rows, columns], grid }
}

const maxPoolOp = defineOp<PoolAttrs>('maxPool2d', {
  precision: 'same',
  divide: bySample(),
  shape: ([x = spec([])], attrs) => {
    const [n = 0, height = 0, width = 0, channels = 0] = x.shape
    if (x.shape.length !== 4) throw new Error('expects [N, H, W, C]')
    if (2 * attrs.padding > attrs.kernel)
      throw new Error(`padding ${attrs.padding} exceeds half of kernel ${attrs.kernel}`)
    const shape = [n, pooled(height, attrs), pooled(width, attrs), channels]
    if (shape.some((extent) => extent < 1)) throw new Error(`kernel ${attrs.kernel} is larger than the padded map`)
    return [spec(shape), spec(shape, tapType(channels, attrs.kernel))]
  },
  vjp: ({ inputs: [x], outputs: [, tap], attrs, grads: [dy] }) => [
    x && tap && dy && applyOne(maxPoolGradOp, [dy, tap], { ...attrs, shape: x.shape }),
  ],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([]), tap = spec([])], attrs, adapter }) => {
    const [, height = 0, width = 0] = y.shape
    const dispatch = poolDispatch('maxpool', [x, y, tap], [height, width], attrs, adapter.software)
    const operands = { label: 'maxPool2d', reads: [inputBuffer(0)], writes: [outputBuffer(0), outputBuffer(1)] }
    return [{ name: 'rows', dispatches: [{ ...operands, ...dispatch }] }]
  },
})

const maxPoolGradOp = defineOp<PoolGradAttrs>('maxPool2dGrad', {
  precision: 'same',
  divide: bySample((attrs, samples) => ({ ...attrs, shape: [samples, ...attrs.shape.slice(1)] })),
  shape: (_, { shape }) => [spec(shape)],
  kernel: ({ inputs: [dy = spec([]), tap = spec([])], outputs: [dx = spec([])], attrs, adapter }) => {
    const [, height = 0, width = 0] = dx.shape
    const blocks = (extent: number) => ceilDiv(extent + attrs.padding, attrs.stride)
    const dispatch = poolDispatch(
      'maxpool_grad',
      [dx, dy, tap],
      [blocks(height), blocks(width)],
      attrs,
      adapter.software,
    )
    const operands = { label: 'maxPool2dGrad', reads: [inputBuffer(0), inputBuffer(1)], writes: [outputBuffer(0)] }
    return [{ name: 'blocks', dispatches: [{ ...operands, ...dispatch }] }]
  },
})

/**
 * Max pooling as `torch.nn.MaxPool2d`: padding is −∞, and on ties the first maximum of a window gets the gradient.
 *
 * @param x [N, H, W, C]
 * @returns [N, OH, OW, C] with OH = ⌊(H + 2 padding − kernel) / stride⌋ + 1
 */
export function maxPool2d(x: Tensor, { kernel = 3, stride = 2, padding = 1 }: Partial<PoolAttrs> = {}): Tensor {
  return applyOne(maxPoolOp, [x], { kernel, stride, padding })
}

/** The mean of each map: [N, H, W, C] → [N, 1, 1, C]. */
export function globalAveragePool(x: Tensor): Tensor {
  const [n = 0, height = 0, width = 0, channels = 0] = x.shape
  // Scaled before the sum, which then is the only kernel.
  return sumTo(scale(x, 1 / (height * width)), [n, 1, 1, channels])
}
