import { type Data, elements, type Shape, spec } from '#dist/engine/shape.js'
import {
  confidenceWeightedLoss,
  confidentRatio,
  crossEntropy,
  crossEntropyMean,
  ohemCrossEntropy,
} from '#dist/kernels/loss.js'
import { confusionMatrix } from '#dist/kernels/metrics.js'
import { resizedSoftmaxMax, softmax, softmaxMax } from '#dist/kernels/softmax.js'
import {
  body,
  constant,
  type Family,
  family,
  floats,
  integers,
  labels,
  mapSizes,
  mask,
  normal,
  type Source,
  tied,
} from './case.js'
import * as reference from './reference/index.js'

const logitShapes: Record<string, Source> = {
  'one class': normal([2, 3, 5, 1]),
  '5 classes': normal([2, 5, 7, 5], { scale: 3 }),
  '21 classes': normal([1, 9, 7, 21], { scale: 3 }),
  '65 classes': normal([3, 1, 5, 65], { scale: 3 }),
  'one pixel': normal([1, 1, 1, 19]),
  ties: tied([2, 7, 5, 7], 0, 2),
  equal: constant([1, 3, 3, 21], -4),
  // exp() of the logits themselves overflows, and of their differences underflows.
  large: normal([1, 5, 7, 17], { scale: 300, offset: 900 }),
}

export const softmaxFamily = family(
  'softmax',
  (x: Source) =>
    body({
      inputs: { x },
      run: (t) => ({ out: softmax(t.x) }),
      reference: (v) => ({ out: reference.softmax(v.x) }),
      differentiable: ['x'],
      terms: x.spec.shape.at(-1) ?? 1,
      // Probabilities near 1: dy − Σ dy · y is a difference of nearly equal numbers, a hundred times smaller than they.
      ...(x === logitShapes.large ? { tolerance: 1e-4 } : {}),
    }),
  logitShapes,
  ({ crop, batch }) => ({ logits: normal([batch, crop, crop, 21]) }),
)

const softmaxMaxFamily = family(
  'softmaxMax',
  (x: Source) =>
    body({
      inputs: { x },
      run: (t) => ({ ...softmaxMax(t.x) }),
      reference: (v) => ({ ...reference.softmaxMax(v.x) }),
      terms: x.spec.shape.at(-1) ?? 1,
    }),
  logitShapes,
  ({ crop, batch }) => ({ logits: normal([batch, crop, crop, 21]) }),
)

interface ResizedCase {
  readonly shape: Shape
  readonly to: readonly [number, number]
}

const resizedSoftmaxMaxFamily = family(
  'resizedSoftmaxMax',
  ({ shape, to }: ResizedCase) =>
    body({
      inputs: { x: normal(shape, { scale: 3 }) },
      run: (t) => ({ ...resizedSoftmaxMax(t.x, to) }),
      reference: (v) => ({ ...reference.softmaxMax(reference.resizeBilinear(v.x, to)) }),
      terms: 4 * (shape.at(-1) ?? 1),
      // A fraction carries the rounding of the place it is taken from, times the differences of logits.
      tolerance: 2 ** -23 * (16 + 12 * Math.max(shape[1] ?? 1, shape[2] ?? 1)),
    }),
  {
    'four times': { shape: [2, 5, 7, 5], to: [17, 25] },
    'a little more than four times': { shape: [1, 5, 6, 21], to: [20, 24] },
    'up and down': { shape: [2, 9, 3, 4], to: [4, 8] },
    'down and up': { shape: [1, 3, 9, 7], to: [8, 4] },
    'many times': { shape: [1, 2, 2, 19], to: [7, 33] },
    'from 1x1': { shape: [2, 1, 1, 6], to: [5, 6] },
    'to 1x1': { shape: [2, 5, 6, 3], to: [1, 1] },
    same: { shape: [1, 6, 7, 3], to: [6, 7] },
    'one class': { shape: [1, 3, 3, 1], to: [5, 9] },
  },
  ({ crop, batch }): Record<string, ResizedCase> => {
    const { s4 } = mapSizes(crop)
    return { 'logits to image': { shape: [batch, s4, s4, 21], to: [crop, crop] } }
  },
)

interface Labelled {
  readonly logits: Source
  readonly target: Source
}

export const labelled = (
  shape: Shape,
  { classes = 5, scale = 2, ignored = 0.2, dtype = 'u8' as 'u8' | 'u32' } = {},
): Labelled => ({ logits: normal([...shape, classes], { scale }), target: labels(shape, classes, ignored, dtype) })

const labelledShapes: Record<string, Labelled> = {
  '5 classes': labelled([2, 5, 7]),
  '21 classes, words': labelled([1, 9, 7], { classes: 21, dtype: 'u32' }),
  'one pixel': labelled([1, 1, 1], { ignored: 0 }),
  'two classes': labelled([3, 3, 5], { classes: 2 }),
  'none ignored': labelled([2, 3, 5], { classes: 19, ignored: 0 }),
  'most ignored': labelled([1, 9, 9], { ignored: 0.95 }),
  'large logits': labelled([1, 5, 7], { classes: 17, scale: 200 }),
  'many pixels': labelled([2, 41, 43], { classes: 3 }),
}

const benchLabelled = ({ crop, batch }: { crop: number; batch: number }) => ({
  logits: labelled([batch, crop, crop], { classes: 21 }),
})

const operators = {
  crossEntropy: [crossEntropy, reference.crossEntropy],
  crossEntropyMean: [crossEntropyMean, reference.crossEntropyMean],
} as const

function crossEntropyBody(
  operator: keyof typeof operators,
  inputs: Labelled,
  expected: { readonly terms?: number; readonly zeroGradient?: boolean },
) {
  const [run, expect] = operators[operator]
  return body({
    inputs: { ...inputs },
    run: (t) => ({ out: run(t.logits, t.target) }),
    reference: (v) => ({ out: expect(v.logits, v.target) }),
    differentiable: ['logits'],
    ...expected,
  })
}

export const perPixel = family(
  'crossEntropy',
  (inputs: Labelled) => crossEntropyBody('crossEntropy', inputs, { terms: inputs.logits.spec.shape.at(-1) ?? 1 }),
  { ...labelledShapes, 'all ignored': labelled([1, 3, 5], { ignored: 1 }) },
  benchLabelled,
)

export const mean = family(
  'crossEntropyMean',
  (inputs: Labelled) => crossEntropyBody('crossEntropyMean', inputs, { terms: elements(inputs.target.spec.shape) }),
  labelledShapes,
  benchLabelled,
)

const meanOfNone = family(
  'crossEntropyMean of nothing',
  (inputs: Labelled) => crossEntropyBody('crossEntropyMean', inputs, { zeroGradient: true }),
  { 'all ignored': labelled([2, 3, 5], { ignored: 1 }) },
)

/** Logits in which groups of pixels are the same, so that their probabilities tie exactly. */
const repeated = (shape: Shape, different: number): Source => ({
  spec: spec(shape),
  draw: (random) => {
    const classes = shape.at(-1) ?? 1
    const kinds = Array.from({ length: different }, () => Array.from({ length: classes }, () => 2 * random.normal()))
    const data: Data = new Float32Array(elements(shape))
    for (let at = 0; at < data.length; at += classes) data.set(kinds[random.integer(different)] ?? [], at)
    return data
  },
})

/** Logits that are sure of some class, which is the target in a part of the pixels: those are easy. */
function easy(shape: Shape, classes: number): Labelled {
  const target = labels(shape, classes)
  return {
    target,
    logits: {
      spec: spec([...shape, classes]),
      draw: (random) => {
        const data = new Float32Array(elements([...shape, classes]))
        for (let at = 0; at < data.length; at += classes) {
          for (let c = 0; c < classes; c++) data[at + c] = random.normal()
          data[at + random.integer(classes)] = 8
        }
        return data
      },
    },
  }
}

interface OhemCase extends Labelled {
  readonly threshold: number
  readonly minKept: number
  readonly zeroGradient?: boolean
}

const ohem = family(
  'ohemCrossEntropy',
  ({ logits, target, threshold, minKept, zeroGradient = false }: OhemCase) =>
    body({
      inputs: { logits, target },
      run: (t) => ({ ...ohemCrossEntropy(t.logits, t.target, { threshold, minKept }) }),
      reference: (v, at) => ({
        ...reference.ohemCrossEntropy(v.logits, v.target, { threshold, minKept }, at.logits),
      }),
      differentiable: ['logits'],
      passing: ['loss'],
      terms: elements(target.spec.shape),
      zeroGradient,
    }),
  {
    'the threshold decides': { ...labelled([2, 5, 7]), threshold: 0.7, minKept: 8 },
    'the k-th decides': { ...labelled([2, 5, 7], { scale: 3 }), threshold: 0.01, minKept: 17 },
    'easy pixels': { ...easy([2, 7, 5], 3), threshold: 0.7, minKept: 60 },
    'all valid pixels': { ...labelled([1, 3, 5], { ignored: 0 }), threshold: 0.1, minKept: 15 },
    'more than there are': { ...labelled([1, 3, 5]), threshold: 0.1, minKept: 1000 },
    'minKept 0': { ...labelled([1, 3, 5]), threshold: 0.1, minKept: 0 },
    'the first': { ...labelled([1, 5, 5]), threshold: 0, minKept: 1 },
    ties: { ...labelled([2, 5, 7], { classes: 3 }), logits: repeated([2, 5, 7, 3], 4), threshold: 0.01, minKept: 20 },
    'words, many pixels': { ...labelled([2, 41, 43], { classes: 7, dtype: 'u32' }), threshold: 0.05, minKept: 1500 },
    'one pixel': { ...labelled([1, 1, 1], { ignored: 0 }), threshold: 0.7, minKept: 1 },
    'all ignored': { ...labelled([1, 3, 5], { ignored: 1 }), threshold: 0.7, minKept: 5, zeroGradient: true },
  },
  ({ crop, batch }) => ({
    logits: {
      ...labelled([batch, crop, crop], { classes: 19 }),
      threshold: 0.7,
      minKept: Math.round((batch * crop * crop) / 16),
    },
  }),
)

interface WeightedCase {
  readonly shape: Shape
  readonly mode: reference.ConfidenceMode
  readonly threshold?: number
  readonly ignored?: number
  readonly dtype?: 'u8' | 'u32'
}

const weightedRows: Record<string, Omit<WeightedCase, 'mode'>> = {
  'three samples': { shape: [3, 5, 7] },
  'one sample, words': { shape: [1, 9, 7], dtype: 'u32' },
  'threshold 0': { shape: [2, 3, 5], threshold: 0 },
  'threshold 0.95, none ignored': { shape: [2, 5, 5], threshold: 0.95, ignored: 0 },
  'many pixels': { shape: [2, 67, 61], threshold: 0.95, ignored: 0.5 },
}

const inModes = (rows: Record<string, Omit<WeightedCase, 'mode'>>): Record<string, WeightedCase> =>
  Object.fromEntries(
    (['pixelwise', 'pixelratio', 'pixelavg'] as const).flatMap((mode) =>
      Object.entries(rows).map(([name, row]) => [`${mode}, ${name}`, { ...row, mode }]),
    ),
  )

/** One confidence in four is the threshold itself, which counts. */
const confidences = (shape: Shape, threshold: number): Source =>
  floats(shape, (random) => (random.integer(4) ? random.uniform() : threshold))

const weighted = family(
  'confidenceWeightedLoss',
  ({ shape, mode, threshold = 0.7, ignored = 0.2, dtype = 'u8' }: WeightedCase) =>
    body({
      inputs: {
        loss: floats(shape, (random) => Math.abs(random.normal())),
        confidence: confidences(shape, threshold),
        ignore: mask(shape, ignored, 255, dtype),
      },
      run: (t) => ({ out: confidenceWeightedLoss(t.loss, t.confidence, t.ignore, { threshold, mode }) }),
      reference: (v) => ({
        out: reference.confidenceWeightedLoss(v.loss, v.confidence, v.ignore, { threshold, mode }),
      }),
      differentiable: ['loss'],
      terms: elements(shape),
    }),
  inModes(weightedRows),
  ({ crop, batch }) => inModes({ pixels: { shape: [batch, crop, crop] } }),
)

const confident = family(
  'confidentRatio',
  ({ shape, threshold = 0.7, ignored = 0.2, dtype = 'u8' }: Omit<WeightedCase, 'mode'>) =>
    body({
      inputs: {
        confidence: confidences(shape, threshold),
        ignore: mask(shape, ignored, 255, dtype),
      },
      run: (t) => ({ out: confidentRatio(t.confidence, t.ignore, threshold) }),
      reference: (v) => ({ out: reference.confidentRatio(v.confidence, v.ignore, threshold) }),
    }),
  weightedRows,
)

interface MatrixCase {
  readonly shape: Shape
  readonly classes: number
  readonly dtype?: 'u8' | 'u32'
  readonly ignored?: number
}

const confusion = family(
  'confusionMatrix',
  ({ shape, classes, dtype = 'u8', ignored = 0.2 }: MatrixCase) =>
    body({
      inputs: {
        counts: integers([classes, classes], 'u32', (random) => random.integer(1000)),
        predicted: integers(shape, 'u32', (random) => random.integer(classes)),
        target: labels(shape, classes, ignored, dtype),
      },
      run: (t) => ({ out: confusionMatrix(t.counts, t.predicted, t.target) }),
      reference: (v) => ({ out: reference.confusionMatrix(v.counts, v.predicted, v.target) }),
      state: { out: 'counts' },
    }),
  {
    '5 classes': { shape: [2, 5, 7], classes: 5 },
    'two classes, words': { shape: [1, 9, 7], classes: 2, dtype: 'u32' },
    'one class': { shape: [1, 3, 3], classes: 1 },
    '150 classes': { shape: [1, 33, 31], classes: 150 },
    'many pixels': { shape: [1, 129, 131], classes: 21 },
    'all ignored': { shape: [1, 3, 5], classes: 3, ignored: 1 },
  },
  ({ crop, batch }) => ({ labels: { shape: [batch, crop, crop], classes: 21 } }),
)

export const classificationFamilies: Family[] = [
  softmaxFamily,
  softmaxMaxFamily,
  resizedSoftmaxMaxFamily,
  perPixel,
  mean,
  meanOfNone,
  ohem,
  weighted,
  confident,
  confusion,
]
