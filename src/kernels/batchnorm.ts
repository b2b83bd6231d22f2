import * as e from '../engine/expr.js'
import { apply } from '../engine/graph.js'
import { type Call, type Division, defineOp, type Op, type Tensor } from '../engine/ir.js'
import {
  type Candidate,
  ceilDiv,
  floatBits,
  inputBuffer,
  type KernelContext,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import { elements, type Spec, spec } from '../engine/shape.js'
import { arrangement } from './arrangement.js'
import { formulasOfSums, pointwise } from './pointwise.js'
import * as shaders from './shaders.generated.js'
import { packed, packTypes, rowWorkgroup, shader } from './shaders.js'

interface StatisticsAttrs {
  readonly momentum: number
  readonly eps: number
}

/** x, running mean, running variance → mean, 1 / standard deviation, and the two running statistics updated. */
const statisticsOp = defineOp<StatisticsAttrs>('batchNormStatistics', {
  precision: 'wide',
  shape: ([x = spec([])]) => {
    const channels = x.shape.at(-1) ?? 0
    // PyTorch refuses it too: the variance of one value is 0, and the unbiased one has no meaning.
    if (elements(x.shape) <= channels)
      throw new Error('training needs more than one value per channel: use a larger batch')
    return Array(4).fill(spec([channels]))
  },
  inplace: () =>
    new Map([
      [2, 1],
      [3, 2],
    ]),
  kernel: (context) => statisticsKernels(context, { uniforms: uniformsOf(context.attrs), outputs: 4 }),
  divide: {
    arrangement,
    division: (call) => divisionOf(call, joinedStatisticsOp as Op),
  },
})

/** What becomes of the moments of a channel. */
interface Finish {
  readonly uniforms: readonly number[]
  readonly outputs: number
  readonly hooks?: Readonly<Record<string, string>>
}

const uniformsOf = ({ momentum, eps }: StatisticsAttrs): number[] => [floatBits(momentum), floatBits(eps)]
const outputBuffers = (count: number) => Array.from({ length: count }, (_, i) => outputBuffer(i))

function statisticsKernels(context: KernelContext<unknown>, finish: Finish): readonly Candidate[] {
  const {
    inputs: [x = spec([])],
    adapter,
  } = context
  const channels = x.shape.at(-1) ?? 1
  const rows = elements(x.shape) / channels
  const { packs } = packed(channels)
  const { WIDTH, HEIGHT } = rowWorkgroup(packs, adapter.software)
  const groups = ceilDiv(packs, WIDTH)
  // The work of a few rows takes less time than another dispatch.
  const whole = adapter.software ? groups > 1 || rows < 4096 : rows <= 16 * HEIGHT
  const candidates = [
    wholeStatistics(context, rows, channels, finish),
    splitStatistics(context, rows, channels, finish),
  ]
  return whole ? candidates : candidates.reverse()
}

/** The moments of a few samples at a time, which `last` joins. */
function divisionOf({ inputs, outputs, attrs }: Call<unknown>, last: Op): Division {
  const [x = spec([]), ...others] = inputs
  const [samples = 1, ...sample] = x.shape
  const channels = sample.at(-1) ?? 1
  return {
    samples,
    inputs: ['divided', ...others.map(() => 'last' as const)],
    outputs: ['joined'],
    piece: (some) => {
      const { parts, perPart } = momentParts((some * elements(sample)) / channels, channels)
      return { op: momentsOp as Op, attrs: { parts, perPart }, outputs: [spec([parts, 3, channels])] }
    },
    last: { op: last, name: last.name, attrs, outputs },
  }
}

/** Parts of some rows, each with its moments: as many as give work to an adapter's threads, which take some channels each. */
const momentParts = (rows: number, channels: number) =>
  chunks(rows, Math.max(1, Math.min(256, ceilDiv(2 ** 16, channels), ceilDiv(rows, 64))))

interface MomentsAttrs {
  readonly parts: number
  readonly perPart: number
}

/** Number, mean and sum of squared deviations of parts of the rows: x [..., C] → [parts, 3, C]. */
const momentsOp = defineOp<MomentsAttrs>('batchNormMoments', {
  precision: 'wide',
  shape: ([x = spec([])], { parts }) => [spec([parts, 3, x.shape.at(-1) ?? 0])],
  kernel: ({ inputs: [x = spec([])], attrs: { parts, perPart }, adapter }) => {
    const channels = x.shape.at(-1) ?? 1
    const { pack, packs } = packed(channels)
    const constants = rowWorkgroup(packs, adapter.software)
    const dispatch = {
      label: 'batchNorm moments',
      source: shader(shaders.batchnorm_partial, {
        constants,
        aliases: typesOf(pack, x),
        hooks: { store: storeCounted },
      }),
      reads: [inputBuffer(0)],
      writes: [outputBuffer(0)],
      uniforms: [elements(x.shape) / channels, packs, parts, perPart],
      grid: [ceilDiv(packs, constants.WIDTH), ceilDiv(parts, constants.HEIGHT), 1] as const,
    }
    return [{ name: 'parts', dispatches: [dispatch] }]
  },
})

/** Batches that are divided have a pivot for each piece. */
const storeCounted = `fn store(part: u32, c: u32, count: u32, pivot: V, mean: V, deviation: V) {
  let at = part * 3 * u.channels + c;
  moments[at] = V(f32(count));
  moments[at + u.channels] = pivot + mean;
  moments[at + 2 * u.channels] = deviation;
}`

/** The statistics by the moments of parts, which may differ in their numbers of rows: [parts, 3, C], as `momentsOp` has them. */
export const joinedStatisticsOp = defineOp<StatisticsAttrs>('batchNormStatistics', {
  precision: 'wide',
  shape: ([moments = spec([])]) => Array(4).fill(spec([moments.shape.at(-1) ?? 0])),
  inplace: () =>
    new Map([
      [2, 1],
      [3, 2],
    ]),
  kernel: (context) => joinedKernels(context, { uniforms: uniformsOf(context.attrs), outputs: 4 }),
})

function joinedKernels(
  { inputs: [moments = spec([])], adapter }: KernelContext<unknown>,
  { uniforms, outputs, hooks = {} }: Finish,
): readonly Candidate[] {
  const [parts = 1, , channels = 1] = moments.shape
  const { pack, packs } = packed(channels)
  const constants = rowWorkgroup(packs, adapter.software)
  const read = { moments_of: momentsOfCounted(pack === 4 ? '.x' : ''), pivot_of: pivotOfCounted }
  const dispatch = {
    label: 'batchNorm statistics finish',
    source: shader(shaders.batchnorm_statistics, { constants, aliases: typesOf(pack), hooks: { ...read, ...hooks } }),
    reads: [inputBuffer(0)],
    writes: outputBuffers(outputs),
    uniforms: [0, packs, parts, 0, ...uniforms],
    grid: [ceilDiv(packs, constants.WIDTH), 1, 1] as const,
  }
  return [{ name: 'moments', dispatches: [dispatch] }]
}

/** Number, mean and sum of squared deviations, as `momentsOp` stores those of a part. */
const storeJoined: Finish = {
  uniforms: [0, 0],
  outputs: 1,
  hooks: {
    finish: `fn finish(c: u32, average: V, moments: Moments) {
  mean[c] = V(moments.count);
  mean[c + u.channels] = average;
  mean[c + 2 * u.channels] = moments.deviation;
}`,
  },
}

/** Number, mean and sum of squared deviations of all rows: x [..., C] → [3, C]. */
export const ownMomentsOp = defineOp<undefined>('batchNormOwnMoments', {
  precision: 'wide',
  shape: ([x = spec([])]) => [spec([3, x.shape.at(-1) ?? 0])],
  kernel: (context) => statisticsKernels(context, storeJoined),
  divide: {
    arrangement,
    division: (call) => divisionOf(call, joinedMomentsOp as Op),
  },
})

/** The moments of parts as those of all: [parts, 3, C] → [3, C]. */
const joinedMomentsOp = defineOp<undefined>('batchNormOwnMoments', {
  precision: 'wide',
  shape: ([moments = spec([])]) => [spec([3, moments.shape.at(-1) ?? 0])],
  kernel: (context) => joinedKernels(context, storeJoined),
})

/** These read what `storeCounted` wrote: means relative to that of the first part. */
const momentsOfCounted = (first: string) => `fn moments_of(part: u32, c: u32) -> Moments {
  let at = part * 3 * u.channels + c;
  return Moments(x[at]${first}, x[at + u.channels] - pivot_of(c), x[at + 2 * u.channels]);
}`
const pivotOfCounted = `fn pivot_of(c: u32) -> V {
  return x[u.channels + c];
}`

/** Chunks of rows of nearly equal lengths, none of them empty. */
function chunks(rows: number, wanted: number): { parts: number; perPart: number } {
  const perPart = ceilDiv(rows, Math.min(rows, wanted))
  return { parts: ceilDiv(rows, perPart), perPart }
}

/** WGSL types of what is read, and of the statistics. */
function typesOf(pack: 1 | 4, read: Spec = spec([])): { T: string; V: string } {
  const { T, V } = packTypes(pack, read, spec([]))
  return { T, V }
}

/** One workgroup for all rows of some channels. */
function wholeStatistics(
  { inputs, adapter }: KernelContext<unknown>,
  rows: number,
  channels: number,
  { uniforms, outputs, hooks = {} }: Finish,
): Candidate {
  const { pack, packs } = packed(channels)
  const { WIDTH, HEIGHT } = rowWorkgroup(packs, adapter.software)
  // A CPU driver runs a workgroup on one core: threads that share rows cost a barrier there, and only fill up a subgroup of
  // 8 lanes, or shorten sums over hundreds of rows.
  const useful = adapter.software ? Math.max(8 / WIDTH, 2 ** Math.floor(Math.log2(Math.max(1, rows / 256)))) : HEIGHT
  const constants = { WIDTH, HEIGHT: Math.min(HEIGHT, useful) }
  const { parts, perPart } = chunks(rows, constants.HEIGHT)
  return {
    name: 'whole',
    dispatches: [
      {
        label: 'batchNorm statistics',
        source: shader(shaders.batchnorm_statistics, { constants, aliases: typesOf(pack, inputs[0]), hooks }),
        reads: [inputBuffer(0)],
        writes: outputBuffers(outputs),
        uniforms: [rows, packs, parts, perPart, ...uniforms],
        grid: [ceilDiv(packs, constants.WIDTH), 1, 1],
      },
    ],
  }
}

/** The rows in parts, then their join. */
function splitStatistics(
  { inputs, adapter }: KernelContext<unknown>,
  rows: number,
  channels: number,
  { uniforms, outputs, hooks = {} }: Finish,
): Candidate {
  const { pack, packs } = packed(channels)
  const constants = rowWorkgroup(packs, adapter.software)
  const { WIDTH, HEIGHT } = constants
  // A large GPU wants about 65,000 threads that load; the results of many parts are joined by a workgroup for each channel.
  const limit = adapter.software ? 16 : Math.min(4096, Math.max(64, ceilDiv(2 ** 16, packs)))
  const finish = adapter.software ? constants : { WIDTH: 1, HEIGHT: 64 }
  const { parts, perPart } = chunks(rows, Math.max(HEIGHT, Math.min(limit, ceilDiv(rows, 16))))
  return {
    name: 'parts',
    temporaries: [spec([2 * parts + 1, channels])],
    dispatches: [
      {
        label: 'batchNorm statistics',
        source: shader(shaders.batchnorm_partial, { constants, aliases: typesOf(pack, inputs[0]) }),
        reads: [inputBuffer(0)],
        writes: [temporaryBuffer(0)],
        uniforms: [rows, packs, parts, perPart],
        grid: [ceilDiv(packs, WIDTH), ceilDiv(parts, HEIGHT), 1],
      },
      {
        label: 'batchNorm statistics finish',
        source: shader(shaders.batchnorm_statistics, {
          constants: finish,
          aliases: typesOf(pack),
          hooks: { moments_of: momentsOfPart, pivot_of: pivotOfParts, ...hooks },
        }),
        reads: [temporaryBuffer(0)],
        writes: outputBuffers(outputs),
        uniforms: [rows, packs, parts, perPart, ...uniforms],
        grid: [ceilDiv(packs, finish.WIDTH), 1, 1],
      },
    ],
  }
}

/** These read what batchnorm_partial.wgsl wrote. */
const momentsOfPart = `fn moments_of(part: u32, c: u32) -> Moments {
  let count = min(u.per_part, u.rows - part * u.per_part);
  let at = part * u.channels + c;
  return Moments(f32(count), x[at], x[u.parts * u.channels + at]);
}`
const pivotOfParts = `fn pivot_of(c: u32) -> V {
  return x[2u * u.parts * u.channels + c];
}`

/** Scale, shift and running statistics of a batch normalisation, each [C]. */
export interface BatchNormTensors {
  readonly weight: Tensor
  readonly bias: Tensor
  readonly runningMean: Tensor
  readonly runningVar: Tensor
}

/**
 * Batch normalisation by the statistics of the batch, over all axes but the last, as `torch.nn.BatchNorm2d` in training:
 * the biased variance normalises, the unbiased one enters the running variance.
 *
 * @param x [..., C]
 * @returns y of x's shape, and the updated running statistics, for the caller to assign
 */
export function batchNormTraining(
  x: Tensor,
  { weight, bias, runningMean, runningVar }: BatchNormTensors,
  { momentum = 0.1, eps = 1e-5 }: { momentum?: number; eps?: number } = {},
): { y: Tensor; runningMean: Tensor; runningVar: Tensor } {
  const [mean, inverse, newMean, newVar] = apply(statisticsOp, [x, runningMean, runningVar], { momentum, eps })
  if (!mean || !inverse || !newMean || !newVar) throw new Error('unreachable: the statistics are four')
  const y = pointwise('batchNorm', [normalizedFormula], [x, mean.detach(), inverse.detach(), weight, bias], {
    // The mean and the deviation depend on x too, which the derivative of the formula alone would miss.
    vjp: ({ grads: [dy] }) => {
      if (!dy) return []
      const [dBias, dWeight, centre] = parameterGradients(dy, x, mean, inverse)
      if (!dBias || !dWeight || !centre) throw new Error('unreachable: three formulas were asked for')
      return [inputGradient(dy, x, mean, inverse, weight, centre, dWeight), undefined, undefined, dWeight, dBias]
    },
  })
  return { y, runningMean: newMean, runningVar: newVar }
}

/** Of x, mean, 1 / standard deviation, weight and bias. */
export const normalizedFormula = e.formula((x, mean, inverse, weight, bias) =>
  e.add(e.mul(e.sub(x, mean), e.mul(inverse, weight)), bias),
)

/** dy, dy · x̂ and x̂, with x̂ the normalised input, of dy, x, mean and 1 / standard deviation. */
export const sumTerms = e.formula((dy, x, mean, inverse) => {
  const normalized = e.mul(e.sub(x, mean), inverse)
  return [dy, e.mul(dy, normalized), normalized]
})

/**
 * The sums of dy and of dy · x̂, with x̂ the normalised input, and the mean of dy as x's gradient needs it. The sum of x̂ is 0
 * but for the rounding of the mean, which a mean that is large beside the deviation makes large. It would enter the second sum
 * as often as dy is summed, and x's gradient, which sums up to 0, as often as there are rows: what it contributes is taken off.
 */
function parameterGradients(dy: Tensor, x: Tensor, mean: Tensor, inverse: Tensor): Tensor[] {
  const perRow = e.constant((x.shape.at(-1) ?? 1) / elements(x.shape))
  const gradients = e.formula((dBias, product, residue) => {
    const meanOfNormalized = e.mul(residue, perRow)
    return [
      dBias,
      e.sub(product, e.mul(dBias, meanOfNormalized)),
      e.sub(e.mul(dBias, perRow), e.mul(meanOfNormalized, e.mul(product, perRow))),
    ]
  })
  return formulasOfSums(sumTerms, gradients, [dy, x, mean, inverse], mean.shape)
}

/** dx = weight / deviation · (dy − mean(dy) − (x̂ − mean(x̂)) · mean(dy · x̂)), what belongs to no row being `centre`. */
function inputGradient(
  dy: Tensor,
  x: Tensor,
  mean: Tensor,
  inverse: Tensor,
  weight: Tensor,
  centre: Tensor,
  dWeight: Tensor,
): Tensor {
  const perRow = e.constant((x.shape.at(-1) ?? 1) / elements(x.shape))
  const formula = e.formula((dy, x, mean, inverse, weight, centre, dWeight) => {
    const slope = e.mul(inverse, e.mul(dWeight, perRow))
    const centred = e.sub(e.sub(dy, centre), e.mul(e.sub(x, mean), slope))
    return e.mul(e.mul(weight, inverse), centred)
  })
  return pointwise('batchNormGrad', [formula], [dy, x, mean, inverse, weight, centre, dWeight])
}

/** Of x, weight, bias, running mean and running variance. */
export const evaluationFormula = (eps: number): e.Expr =>
  e.formula((x, weight, bias, mean, variance) =>
    e.add(e.mul(e.sub(x, mean), e.div(weight, e.sqrt(e.add(variance, e.constant(eps))))), bias),
  )

/**
 * Batch normalisation by the running statistics, as `torch.nn.BatchNorm2d` in evaluation.
 *
 * @param x [..., C]
 */
export function batchNormEvaluation(
  x: Tensor,
  { weight, bias, runningMean, runningVar }: BatchNormTensors,
  { eps = 1e-5 }: { eps?: number } = {},
): Tensor {
  return pointwise('batchNorm', [evaluationFormula(eps)], [x, weight, bias, runningMean.detach(), runningVar.detach()])
}
