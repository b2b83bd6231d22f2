import type { Shape } from '#dist/engine/shape.js'
import { normalizeCoefficients } from '#dist/kernels/coefficients.js'
import { nonFiniteCounts } from '#dist/kernels/finite.js'
import { cutmix, normalizeImage } from '#dist/kernels/images.js'
import { type AdamWOptions, accumulate, adamw, movingAverage, sgd } from '#dist/kernels/update.js'
import {
  body,
  constant,
  type Family,
  family,
  floats,
  integers,
  mask,
  normal,
  type Setting,
  type Source,
  uniform,
} from './case.js'
import * as reference from './reference/index.js'

const cutmixFamily = family(
  'cutmix',
  ({ base, other, box }: { base: Source; other: Source; box: Source }) =>
    body({
      inputs: { base, other, box },
      run: (t) => ({ out: cutmix(t.base, t.other, t.box) }),
      reference: (v) => ({ out: reference.cutmix(v.base, v.other, v.box) }),
      exact: true,
    }),
  {
    images: { base: normal([3, 5, 7, 3]), other: normal([3, 5, 7, 3]), box: mask([3, 5, 7], 0.4, 1) },
    features: { base: normal([2, 3, 5, 17]), other: normal([2, 3, 5, 17]), box: mask([2, 3, 5], 0.4, 1) },
    confidences: { base: normal([3, 5, 7]), other: normal([3, 5, 7]), box: mask([3, 5, 7], 0.4, 1) },
    'byte labels': { base: bytes([3, 5, 7]), other: bytes([3, 5, 7]), box: mask([3, 5, 7], 0.4, 1) },
    'word labels': { base: bytes([3, 5, 7], 'u32'), other: bytes([3, 5, 7], 'u32'), box: mask([3, 5, 7], 0.4, 1) },
    'no box': { base: normal([1, 5, 5, 3]), other: normal([1, 5, 5, 3]), box: mask([1, 5, 5], 0, 1) },
  },
  ({ crop, batch }: Setting) => ({
    images: {
      base: normal([batch, crop, crop, 3]),
      other: normal([batch, crop, crop, 3]),
      box: mask([batch, crop, crop], 0.3, 1),
    },
  }),
)

function bytes(shape: Shape, dtype: 'u8' | 'u32' = 'u8'): Source {
  return integers(shape, dtype, (random) => random.integer(256))
}

const normalize = family(
  'normalizeImage',
  ({ shape, dtype }: { shape: Shape; dtype?: 'u8' | 'u32' }) =>
    body({
      inputs: { x: bytes(shape, dtype) },
      run: (t) => ({ out: normalizeImage(t.x) }),
      reference: (v) => ({ out: reference.normalizeImage(v.x) }),
    }),
  {
    odd: { shape: [2, 5, 7, 3] },
    'one pixel': { shape: [1, 1, 1, 3] },
    long: { shape: [1, 97, 89, 3] },
    words: { shape: [2, 5, 7, 3], dtype: 'u32' },
  },
  ({ crop, batch }) => ({ images: { shape: [batch, crop, crop, 3] } }),
)

const normalizeGrid = family(
  'normalizeCoefficients',
  (shape: Shape) =>
    body({
      inputs: { x: floats(shape, (random) => random.integer(2049) - 1024) },
      run: (t) => ({ out: normalizeCoefficients(t.x) }),
      reference: (v) => ({ out: reference.normalizeCoefficients(v.x) }),
      differentiable: [],
    }),
  { odd: [2, 5, 7, 64], 'one cell': [1, 1, 1, 64], long: [1, 17, 89, 64] },
  ({ crop, batch }) => ({ images: [batch, Math.ceil(crop / 4), Math.ceil(crop / 4), 64] }),
)

const sgdFamily = family(
  'sgd',
  ({ shape, ...options }: { shape: Shape; momentum?: number; weightDecay?: number }) =>
    body({
      inputs: {
        parameter: normal(shape),
        momentumBuffer: normal(shape, { scale: 0.1 }),
        gradient: normal(shape, { scale: 0.1 }),
        learningRate: uniform([], 0.001, 0.1),
      },
      run: (t) => ({ ...sgd(t, options) }),
      reference: (v) => ({ ...reference.sgd(v, options) }),
      state: { parameter: 'parameter', momentumBuffer: 'momentumBuffer' },
    }),
  {
    weight: { shape: [3, 3, 5, 7] },
    bias: { shape: [17] },
    'one element': { shape: [1] },
    'without momentum': { shape: [33], momentum: 0 },
    'without decay': { shape: [65], weightDecay: 0 },
    'strong decay': { shape: [5, 7], weightDecay: 0.5 },
    long: { shape: [3, 3, 65, 33] },
  },
  () => ({ '3x3 of 512 channels': { shape: [3, 3, 512, 512] } }),
)

interface AdamWCase extends AdamWOptions {
  readonly shape: Shape
  /** The step whose corrections are used, from 1 on. */
  readonly step: number
  readonly gradient?: number
}

const adamwFamily = family(
  'adamw',
  ({ shape, step, gradient = 0.1, ...options }: AdamWCase) => {
    const [beta1, beta2] = options.betas ?? [0.9, 0.999]
    return body({
      inputs: {
        parameter: normal(shape),
        average: normal(shape, { scale: step > 1 ? 0.1 : 0 }),
        squareAverage: uniform(shape, 0, step > 1 ? 0.1 : 0),
        gradient: normal(shape, { scale: gradient }),
        learningRate: uniform([], 0.001, 0.1),
        correction1: constant([], 1 - beta1 ** step),
        correction2: constant([], 1 - beta2 ** step),
      },
      run: ({ correction1, correction2, ...t }) => ({
        ...adamw({ ...t, corrections: [correction1, correction2] }, options),
      }),
      reference: (v) => ({ ...reference.adamw(v, options) }),
      state: { parameter: 'parameter', average: 'average', squareAverage: 'squareAverage' },
    })
  },
  {
    weight: { shape: [3, 3, 5, 7], step: 5 },
    'first step': { shape: [17, 3], step: 1 },
    'one element': { shape: [1], step: 2 },
    'a late step': { shape: [33], step: 100_000 },
    'without decay': { shape: [65], step: 3, weightDecay: 0 },
    'strong decay, other betas': { shape: [5, 7], step: 3, weightDecay: 0.5, betas: [0.5, 0.9] },
    'gradients below eps': { shape: [5, 7], step: 1, gradient: 1e-9 },
    'no gradient': { shape: [12], step: 1, gradient: 0 },
    long: { shape: [3, 3, 65, 33], step: 7 },
  },
  () => ({ 'all of 512 channels': { shape: [4, 512, 512], step: 5 } }),
)

const movingAverageFamily = family(
  'movingAverage',
  ({ shape, decay }: { shape: Shape; decay: number }) =>
    body({
      inputs: { average: normal(shape), value: normal(shape), decay: constant([], decay) },
      run: (t) => ({ out: movingAverage(t.average, t.value, t.decay) }),
      reference: (v) => ({ out: reference.movingAverage(v.average, v.value, v.decay) }),
      state: { out: 'average' },
      exact: decay === 0,
    }),
  {
    'first step': { shape: [3, 5, 7], decay: 0 },
    late: { shape: [17], decay: 0.996 },
    'of a scalar': { shape: [], decay: 0.5 },
    long: { shape: [3, 3, 65, 33], decay: 0.99 },
  },
  () => ({ '3x3 of 512 channels': { shape: [3, 3, 512, 512], decay: 0.996 } }),
)

const accumulateFamily = family(
  'accumulate',
  ({ shape, keep }: { shape: Shape; keep: number }) =>
    body({
      // What a sum begins with need not be finite.
      inputs: {
        total: keep === 0 ? constant(shape, Number.NaN) : normal(shape),
        value: normal(shape),
        keep: constant([], keep),
      },
      run: (t) => ({ total: accumulate(t.total, t.value, t.keep) }),
      reference: (v) => ({ total: reference.accumulate(v.total, v.value, v.keep) }),
      state: { total: 'total' },
      full: ['total'],
      differentiable: ['total', 'value'],
    }),
  {
    'one more': { shape: [3, 3, 5, 7], keep: 1 },
    'the first': { shape: [17], keep: 0 },
    scalar: { shape: [], keep: 1 },
  },
  () => ({ '3x3 of 512 channels': { shape: [3, 3, 512, 512], keep: 1 } }),
)

/** Numbers of which some are NaN or infinite, of either sign; the largest finite ones are not. */
const broken = (shape: Shape, share: number): Source =>
  floats(shape, (random) => {
    const odd = [Number.NaN, Infinity, -Infinity]
    const extreme = [3.4028234663852886e38, -3.4028234663852886e38, 1e-45, 0]
    return random.uniform() < share ? (odd[random.integer(3)] ?? 0) : (extreme[random.integer(4)] ?? 0)
  })

const nonFiniteFamily = family(
  'nonFiniteCounts',
  (shapes: readonly (readonly [Shape, number])[]) =>
    body({
      inputs: Object.fromEntries(shapes.map(([shape, share], i) => [`x${i}`, broken(shape, share)])),
      run: (t) => ({ out: nonFiniteCounts(Object.values(t)) }),
      reference: (v) => ({ out: reference.nonFiniteCounts(Object.values(v)) }),
      differentiable: [],
      exact: true,
    }),
  {
    'a few': [
      [[3, 3, 5, 7], 0.1],
      [[17], 0],
      [[1], 1],
    ],
    'more than one dispatch': Array.from({ length: 16 }, (_, i) => [[i + 1, 5], i % 3 === 0 ? 0.5 : 0] as const),
    long: [[[3, 3, 65, 133], 0.001]],
  },
  () => ({ 'seven weights': Array.from({ length: 7 }, () => [[3, 3, 256, 256], 0] as const) }),
)

export const trainingFamilies: Family[] = [
  cutmixFamily,
  normalize,
  normalizeGrid,
  sgdFamily,
  adamwFamily,
  movingAverageFamily,
  accumulateFamily,
  nonFiniteFamily,
]
