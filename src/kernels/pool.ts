import { applyOne, type Tensor } from '../engine/graph.js'
import { ceilDiv, defineOp, flatGrid, input, output } from '../engine/op.js'
import { elements, type Spec, spec } from '../engine/shape.js'
import { scale } from './pointwise.js'
import { sumTo } from './reduce.js'
import { rowWorkgroup, shader } from './shaders.js'

interface PoolAttrs {
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

function poolUniforms(x: Spec, y: Spec, attrs: PoolAttrs, rows: number, gridX: number): number[] {
  const [, xHeight = 0, xWidth = 0, channels = 0] = x.shape
  const [, yHeight = 0, yWidth = 0] = y.shape
  return [rows, channels, xHeight, xWidth, yHeight, yWidth, attrs.kernel, attrs.stride, attrs.padding, gridX]
}

const maxPoolOp = defineOp<PoolAttrs>('maxPool2d', {
  shape: ([x = spec([])], attrs) => {
    const [n = 0, height = 0, width = 0, channels = 0] = x.shape
    if (x.shape.length !== 4) throw new Error('expects [N, H, W, C]')
    if (2 * attrs.padding > attrs.kernel)
      throw new Error(`padding ${attrs.padding} exceeds half of kernel ${attrs.kernel}`)
    const shape = [n, pooled(height, attrs), pooled(width, attrs), channels]
    if (shape.some((extent) => extent < 1)) throw new Error(`kernel ${attrs.kernel} is larger than the padded map`)
    return [spec(shape), spec(shape, 'u32')]
  },
  vjp: ({ inputs: [x], outputs: [, tap], attrs, grads: [dy] }) => [
    x && tap && dy && applyOne(maxPoolGradOp, [dy, tap], { ...attrs, shape: x.shape }),
  ],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])], attrs, adapter }) => {
    const constants = rowWorkgroup(y.shape[3] ?? 1, adapter.software)
    const rows = elements(y.shape.slice(0, 3))
    const grid = flatGrid(ceilDiv(rows, constants.HEIGHT))
    const uniforms = poolUniforms(x, y, attrs, rows, grid[0])
    const source = shader('maxpool', { constants })
    const writes = [output(0), output(1)]
    return [{ name: 'rows', dispatches: [{ label: 'maxPool2d', source, reads: [input(0)], writes, uniforms, grid }] }]
  },
})

const maxPoolGradOp = defineOp<PoolGradAttrs>('maxPool2dGrad', {
  shape: (_, { shape }) => [spec(shape)],
  kernel: ({ inputs: [dy = spec([])], outputs: [dx = spec([])], attrs, adapter }) => {
    const constants = rowWorkgroup(dy.shape[3] ?? 1, adapter.software)
    const rows = elements(dx.shape.slice(0, 3))
    const grid = flatGrid(ceilDiv(rows, constants.HEIGHT))
    const uniforms = poolUniforms(dx, dy, attrs, rows, grid[0])
    const source = shader('maxpool_grad', { constants })
    const reads = [input(0), input(1)]
    return [
      { name: 'rows', dispatches: [{ label: 'maxPool2dGrad', source, reads, writes: [output(0)], uniforms, grid }] },
    ]
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
  return scale(sumTo(x, [n, 1, 1, channels]), 1 / (height * width))
}
