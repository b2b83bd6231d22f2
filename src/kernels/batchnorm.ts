import * as e from '../engine/expr.js'
import { apply } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { elements } from '../engine/shape.js'
import { statisticsOp } from './batchnorm-statistics.js'
import { formulasOfSums, pointwise } from './pointwise.js'

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
