import { elements, type Shape } from '#dist/engine/shape.js'
import { batchNormEvaluation, batchNormTraining } from '#dist/kernels/batchnorm.js'
import { batchNormSynchronized } from '#dist/kernels/batchnorm-synchronized.js'
import { sumOverRanks } from '#dist/kernels/exchange.js'
import { layerNorm } from '#dist/kernels/layernorm.js'
import { globalAveragePool, maxPool2d } from '#dist/kernels/pool.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { resizeCubic } from '#dist/kernels/resize-cubic.js'
import {
  body,
  constant,
  type Family,
  family,
  floats,
  mapSizes,
  normal,
  type Setting,
  type Source,
  tied,
  uniform,
} from './case.js'
import { equalRanks } from './equal-ranks.js'
import * as reference from './reference/index.js'

const statistics = (channels: number) => ({
  weight: normal([channels], { scale: 0.3, offset: 1 }),
  bias: normal([channels], { scale: 0.3 }),
  runningMean: normal([channels], { scale: 0.5 }),
  runningVar: uniform([channels], 0.5, 1.5),
})

const rowsOf = (shape: Shape): number => elements(shape.slice(0, -1))

interface BatchNormCase {
  readonly shape: Shape
  readonly offset?: number
  readonly spread?: number
  readonly tolerance?: number
  readonly gradientScale?: number
  readonly step?: number
}

const batchNormShapes = ({ crop, batch }: Setting): Record<string, BatchNormCase> => {
  const { s2, s4, s16 } = mapSizes(crop)
  return {
    stem: { shape: [batch, s2, s2, 128] },
    'layer1 planes': { shape: [batch, s4, s4, 64] },
    'stride 4, 256': { shape: [batch, s4, s4, 256] },
    'stride 16, 2048': { shape: [batch, s16, s16, 2048] },
  }
}

export const batchNorm = family(
  'batchNormTraining',
  ({ shape, offset = 0, spread = 1, ...numerics }: BatchNormCase) =>
    body({
      inputs: { x: normal(shape, { scale: spread, offset }), ...statistics(shape.at(-1) ?? 1) },
      run: ({ x, ...rest }) => batchNormTraining(x, rest),
      reference: ({ x, ...rest }) => ({ ...reference.batchNormTraining(x, rest) }),
      differentiable: ['x', 'weight', 'bias'],
      passing: ['y'],
      full: ['runningMean', 'runningVar'],
      terms: rowsOf(shape),
      ...numerics,
    }),
  {
    odd: { shape: [2, 5, 7, 3] },
    'one sample': { shape: [1, 3, 3, 17] },
    // With two values a channel the gradient of x cancels almost totally: what is left is far below what is added up.
    'two values a channel': { shape: [2, 1, 1, 5], spread: 10, gradientScale: 1, step: 1e-5 },
    'eight values a channel': { shape: [8, 1, 1, 33] },
    '65 channels': { shape: [3, 9, 11, 65] },
    // The one gradient of the weight is a sum of 126 terms of either sign.
    'one channel': { shape: [2, 9, 7, 1], gradientScale: 11 },
    'many rows': { shape: [2, 37, 41, 4] },
    // The mean itself rounds to the float32 spacing at 1000 (6e-5), which shifts every normalised value by as much.
    'large offset': { shape: [4, 7, 9, 7], offset: 1000, tolerance: 1e-4 },
    // A constant channel: the deviations are rounding errors, and eps alone keeps them finite.
    'constant channels': { shape: [2, 4, 4, 3], spread: 0, offset: 0.5, step: 1e-7 },
    'small spread': { shape: [2, 5, 6, 5], spread: 1e-3, step: 1e-7 },
  },
  batchNormShapes,
)

/** x twice along the first axis. */
const doubled = ({ shape: [samples = 1, ...rest], data }: reference.Values): reference.Values => ({
  shape: [2 * samples, ...rest],
  data: Float64Array.of(...data, ...data),
})

export const batchNormSync = family(
  'batchNormSynchronized',
  ({ shape, ...numerics }: BatchNormCase) =>
    body({
      inputs: { x: normal(shape), ...statistics(shape.at(-1) ?? 1) },
      run: ({ x, ...rest }) => batchNormSynchronized(x, rest, equalRanks(2)),
      reference: ({ x, ...rest }) => {
        const { y, ...others } = reference.batchNormTraining(doubled(x), rest)
        return { y: { shape: x.shape, data: y.data.slice(0, x.data.length) }, ...others }
      },
      differentiable: ['x', 'weight', 'bias'],
      passing: ['y'],
      full: ['runningMean', 'runningVar'],
      terms: 2 * rowsOf(shape),
      ...numerics,
    }),
  {
    odd: { shape: [2, 5, 7, 3] },
    '65 channels': { shape: [3, 9, 11, 65] },
    'many rows': { shape: [2, 37, 41, 4] },
  },
)

export const rankSum = family(
  'sumOverRanks',
  ({ shape }: { readonly shape: Shape }) =>
    body({
      inputs: { a: normal(shape), b: normal([7]) },
      run: ({ a, b }) => {
        const [sumOfA, sumOfB] = sumOverRanks([a, b], equalRanks(3), 2)
        if (!sumOfA || !sumOfB) throw new Error('unreachable: two sums were asked for')
        return { sumOfA, sumOfB }
      },
      reference: ({ a, b }) => {
        const summed = ({ shape, data }: reference.Values) => ({ shape, data: data.map((x) => 1.5 * x) })
        return { sumOfA: summed(a), sumOfB: summed(b) }
      },
      differentiable: ['a', 'b'],
    }),
  { odd: { shape: [3, 5] }, 'one element': { shape: [1] } },
)

export const batchNormEval = family(
  'batchNormEvaluation',
  ({ shape }: BatchNormCase) =>
    body({
      inputs: { x: normal(shape), ...statistics(shape.at(-1) ?? 1) },
      run: ({ x, ...rest }) => ({ y: batchNormEvaluation(x, rest) }),
      reference: ({ x, ...rest }) => ({ y: reference.batchNormEvaluation(x, rest) }),
      differentiable: ['x', 'weight', 'bias'],
      terms: rowsOf(shape),
    }),
  {
    odd: { shape: [2, 5, 7, 3] },
    'one pixel': { shape: [1, 1, 1, 65] },
    'many rows': { shape: [1, 37, 41, 4] },
  },
  batchNormShapes,
)

interface LayerNormCase extends BatchNormCase {
  readonly eps?: number
}

export const layerNormFamily = family(
  'layerNorm',
  ({ shape, offset = 0, spread = 1, eps, ...numerics }: LayerNormCase) => {
    const channels = shape.at(-1) ?? 1
    return body({
      inputs: {
        x: normal(shape, { scale: spread, offset }),
        weight: normal([channels], { scale: 0.3, offset: 1 }),
        bias: normal([channels], { scale: 0.3 }),
      },
      run: ({ x, ...rest }) => ({ out: layerNorm(x, rest, eps === undefined ? {} : { eps }) }),
      reference: (v) => ({ out: reference.layerNorm(v.x, v.weight, v.bias, eps) }),
      differentiable: ['x', 'weight', 'bias'],
      terms: Math.max(channels, rowsOf(shape)),
      ...numerics,
    })
  },
  {
    odd: { shape: [2, 17, 7] },
    map: { shape: [2, 5, 7, 12] },
    'one row': { shape: [65] },
    '64 channels': { shape: [2, 9, 64] },
    '320 channels': { shape: [3, 320] },
    '515 channels': { shape: [3, 515], eps: 1e-6 },
    'many rows': { shape: [2, 311, 4] },
    // What is normalised is 0, whatever x: its gradient is rounding errors of what is added up.
    'one channel': { shape: [9, 1], gradientScale: 300 },
    // The mean itself rounds to the float32 spacing at 1000 (6e-5), which shifts every normalised value by as much.
    'large offset': { shape: [5, 67], offset: 1000, tolerance: 1e-4 },
    'small spread': { shape: [4, 33], spread: 1e-3, step: 1e-7, eps: 1e-6 },
  },
  ({ crop, batch }): Record<string, LayerNormCase> => {
    const { s4, s16 } = mapSizes(crop)
    return { 'stride 4': { shape: [batch, s4 * s4, 64] }, 'stride 16': { shape: [batch, s16 * s16, 320] } }
  },
)

export const maxPool = family(
  'maxPool2d',
  ({ x, kernel = 3, stride = 2, padding = 1 }: { x: Source; kernel?: number; stride?: number; padding?: number }) =>
    body({
      inputs: { x },
      run: (t) => ({ out: maxPool2d(t.x, { kernel, stride, padding }) }),
      reference: (v, at) => ({ out: reference.maxPool2d(v.x, { kernel, stride, padding }, at.x) }),
      differentiable: ['x'],
      terms: kernel * kernel,
    }),
  {
    odd: { x: normal([2, 7, 9, 3]) },
    even: { x: normal([2, 8, 6, 5]) },
    ties: { x: tied([2, 9, 8, 17], -2, 2) },
    constant: { x: constant([1, 7, 6, 3], 0.25) },
    // Padding must not win over values below 0.
    negative: { x: floats([1, 6, 7, 4], (random) => -1 - Math.abs(random.normal())) },
    'one pixel': { x: normal([3, 1, 1, 65]) },
    'one row': { x: normal([1, 1, 8, 7]) },
    '2x2 without padding': { x: normal([2, 5, 6, 3]), kernel: 2, stride: 2, padding: 0 },
    '3x3, stride 1': { x: tied([1, 5, 6, 3], 0, 3), stride: 1 },
  },
  ({ crop, batch }) => ({ stem: { x: normal([batch, mapSizes(crop).s2, mapSizes(crop).s2, 128]) } }),
)

export const averagePool = family(
  'globalAveragePool',
  (shape: Shape) =>
    body({
      inputs: { x: normal(shape, { offset: 0.5 }) },
      run: (t) => ({ out: globalAveragePool(t.x) }),
      reference: (v) => ({ out: reference.globalAveragePool(v.x) }),
      differentiable: ['x'],
      terms: (shape[1] ?? 1) * (shape[2] ?? 1),
    }),
  { odd: [2, 5, 7, 3], 'one pixel': [1, 1, 1, 17], 'many pixels': [3, 33, 31, 5], wide: [1, 3, 4, 130] },
  ({ crop, batch }) => ({ pyramid: [batch, mapSizes(crop).s16, mapSizes(crop).s16, 2048] }),
)

interface ResizeCase {
  readonly shape: Shape
  readonly to: readonly [number, number]
  readonly alignCorners?: boolean
}

export const resize = family(
  'resizeBilinear',
  ({ shape, to, alignCorners = true }: ResizeCase) =>
    body({
      inputs: { x: normal(shape) },
      run: (t) => ({ out: resizeBilinear(t.x, to, { alignCorners }) }),
      reference: (v) => ({ out: reference.resizeBilinear(v.x, to, alignCorners) }),
      differentiable: ['x'],
      // A fraction carries the rounding of the place it is taken from, which grows with the size of the map.
      tolerance:
        2 ** -23 *
        (8 + 2 * Math.max(shape[1] ?? 1, shape[2] ?? 1) + (to[0] * to[1]) / ((shape[1] ?? 1) * (shape[2] ?? 1))),
    }),
  {
    'up, odd': { shape: [2, 5, 7, 3], to: [17, 13] },
    'up, exact multiples': { shape: [1, 17, 17, 5], to: [65, 65] },
    down: { shape: [1, 9, 11, 7], to: [4, 5] },
    'down and up': { shape: [2, 3, 9, 4], to: [8, 4] },
    'from 1x1': { shape: [2, 1, 1, 65], to: [5, 6] },
    'to 1x1': { shape: [2, 5, 6, 3], to: [1, 1] },
    '1x1 to 1x1': { shape: [1, 1, 1, 7], to: [1, 1] },
    same: { shape: [1, 6, 7, 17], to: [6, 7] },
    'from one row': { shape: [1, 1, 6, 3], to: [4, 11] },
    'to one column': { shape: [1, 5, 6, 3], to: [9, 1] },
    'from 2x2': { shape: [1, 2, 2, 33], to: [7, 3] },
    'half pixels, up, odd': { shape: [2, 5, 7, 3], to: [17, 13], alignCorners: false },
    'half pixels, four times': { shape: [1, 5, 7, 4], to: [20, 28], alignCorners: false },
    'half pixels, many columns': { shape: [1, 3, 65, 2], to: [5, 131], alignCorners: false },
    'half pixels, down': { shape: [1, 9, 11, 7], to: [4, 5], alignCorners: false },
    'half pixels, to half': { shape: [1, 8, 6, 3], to: [4, 3], alignCorners: false },
    'half pixels, down and up': { shape: [2, 3, 9, 4], to: [8, 4], alignCorners: false },
    'half pixels, from 1x1': { shape: [2, 1, 1, 5], to: [5, 6], alignCorners: false },
    'half pixels, to 1x1': { shape: [2, 5, 6, 3], to: [1, 1], alignCorners: false },
    'half pixels, same': { shape: [1, 6, 7, 17], to: [6, 7], alignCorners: false },
  },
  ({ crop, batch }): Record<string, ResizeCase> => {
    const { s4, s16 } = mapSizes(crop)
    return {
      'pyramid to stride 4': { shape: [batch, s16, s16, 256], to: [s4, s4] },
      'logits to image': { shape: [batch, s4, s4, 21], to: [crop, crop] },
    }
  },
)

interface CubicCase {
  readonly shape: Shape
  readonly to: readonly [number, number]
  /** Added to the size in the ratio of the sizes, as vision transformers do with their position table. */
  readonly offset?: number
}

export const resizeCubicFamily = family(
  'resizeCubic',
  ({ shape, to, offset = 0 }: CubicCase) => {
    const [, height = 1, width = 1] = shape
    const ratio = [height / (to[0] + offset), width / (to[1] + offset)] as const
    return body({
      inputs: { x: normal(shape) },
      run: (t) => ({ out: resizeCubic(t.x, to, ratio) }),
      reference: (v) => ({ out: reference.resizeCubic(v.x, to, ratio) }),
      differentiable: ['x'],
      // A fraction carries the rounding of the place it is taken from, which grows with the size of the map.
      tolerance: 2 ** -23 * (8 + 4 * Math.max(height, width) + (to[0] * to[1]) / (height * width)),
    })
  },
  {
    'up, odd': { shape: [2, 5, 7, 3], to: [17, 13] },
    'up, four channels': { shape: [1, 4, 4, 8], to: [9, 9], offset: 0.1 },
    'one row more': { shape: [1, 4, 4, 12], to: [5, 5], offset: 0.1 },
    down: { shape: [1, 7, 9, 5], to: [2, 3], offset: 0.1 },
    'down and up': { shape: [2, 5, 5, 4], to: [3, 7], offset: 0.1 },
    'to 1x1': { shape: [1, 5, 6, 3], to: [1, 1], offset: 0.1 },
    'from 1x1': { shape: [2, 1, 1, 65], to: [5, 6] },
    'from 2x2': { shape: [1, 2, 2, 3], to: [7, 3] },
    'the same size': { shape: [1, 6, 7, 4], to: [6, 7] },
    'the same size, scaled': { shape: [1, 6, 7, 4], to: [6, 7], offset: 0.1 },
  },
  (): Record<string, CubicCase> => ({
    'position table of DINOv2, 798 pixels': { shape: [1, 37, 37, 384], to: [57, 57], offset: 0.1 },
  }),
)

export const mapFamilies: Family[] = [
  batchNorm,
  batchNormSync,
  rankSum,
  batchNormEval,
  layerNormFamily,
  maxPool,
  averagePool,
  resize,
  resizeCubicFamily,
]
