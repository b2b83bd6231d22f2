import * as e from '../engine/expr.js'
import { apply, type Tensor } from '../engine/graph.js'
import { ceilDiv, defineOp, floatBits, input, output, temporary } from '../engine/op.js'
import { elements, spec } from '../engine/shape.js'
import { mul, pointwise, sub } from './pointwise.js'
import { sumAllTo } from './reduce.js'
import { rowWorkgroup, shader } from './shaders.js'

interface StatisticsAttrs {
  readonly momentum: number
  readonly eps: number
}

/** x, running mean, running variance → mean, 1 / standard deviation, and the two running statistics updated. */
const statisticsOp = defineOp<StatisticsAttrs>('batchNormStatistics', {
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
  kernel: ({ inputs: [x = spec([])], attrs: { momentum, eps }, adapter }) => {
    const channels = x.shape.at(-1) ?? 1
    const rows = elements(x.shape) / channels
    const { WIDTH, HEIGHT } = rowWorkgroup(channels, adapter.software)
    const limit = adapter.software ? 64 : 512
    const parts = Math.min(rows, Math.max(HEIGHT, Math.min(limit, ceilDiv(rows, 16))))
    const partial = spec([parts, channels])
    return [
      {
        name: 'parts',
        temporaries: [partial, partial],
        dispatches: [
          {
            label: 'batchNorm statistics',
            source: shader('batchnorm_partial', { constants: { WIDTH, HEIGHT } }),
            reads: [input(0)],
            writes: [temporary(0), temporary(1)],
            uniforms: [rows, channels, parts],
            grid: [ceilDiv(channels, WIDTH), ceilDiv(parts, HEIGHT), 1],
          },
          {
            label: 'batchNorm statistics finish',
            source: shader('batchnorm_finish'),
            reads: [temporary(0), temporary(1)],
            writes: [output(0), output(1), output(2), output(3)],
            uniforms: [rows, channels, parts, floatBits(momentum), floatBits(eps)],
            grid: [ceilDiv(channels, 8), 1, 1],
          },
        ],
      },
    ]
  },
})

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
  const normalized = e.formula((x, mean, inverse, weight, bias) =>
    e.add(e.mul(e.sub(x, mean), e.mul(inverse, weight)), bias),
  )
  const y = pointwise('batchNorm', [normalized], [x, mean.detach(), inverse.detach(), weight, bias], {
    // The mean and the deviation depend on x too, which the derivative of the formula alone would miss.
    vjp: ({ grads: [dy] }) => {
      if (!dy) return []
      const deviation = mul(sub(x, mean), inverse)
      const [dBias, dWeight] = sumAllTo([dy, mul(dy, deviation)], weight.shape)
      if (!dBias || !dWeight) throw new Error('unreachable: two sums were asked for')
      return [inputGradient(dy, x, mean, inverse, weight, dBias, dWeight), undefined, undefined, dWeight, dBias]
    },
  })
  return { y, runningMean: newMean, runningVar: newVar }
}

/** dx = weight / deviation · (dy − mean(dy) − x̂ · mean(dy · x̂)), with x̂ the normalised input. */
function inputGradient(
  dy: Tensor,
  x: Tensor,
  mean: Tensor,
  inverse: Tensor,
  weight: Tensor,
  dBias: Tensor,
  dWeight: Tensor,
): Tensor {
  const perRow = e.constant((x.shape.at(-1) ?? 1) / elements(x.shape))
  const formula = e.formula((dy, x, mean, inverse, weight, dBias, dWeight) => {
    const normalized = e.mul(e.sub(x, mean), inverse)
    const centred = e.sub(e.sub(dy, e.mul(dBias, perRow)), e.mul(normalized, e.mul(dWeight, perRow)))
    return e.mul(e.mul(weight, inverse), centred)
  })
  return pointwise('batchNormGrad', [formula], [dy, x, mean, inverse, weight, dBias, dWeight])
}

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
  const formula = e.formula((x, weight, bias, mean, variance) =>
    e.add(e.mul(e.sub(x, mean), e.div(weight, e.sqrt(e.add(variance, e.constant(eps))))), bias),
  )
  return pointwise('batchNorm', [formula], [x, weight, bias, runningMean.detach(), runningVar.detach()])
}
