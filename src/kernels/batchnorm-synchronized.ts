import * as e from '../engine/expr.js'
import { apply, applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { elements, type Shape, spec } from '../engine/shape.js'
import { type BatchNormTensors, joinedStatisticsOp, normalizedFormula, ownMomentsOp, sumTerms } from './batchnorm.js'
import { type Exchange, hostKernel, sumOverRanks } from './exchange.js'
import { formulasOfSums, pointwise } from './pointwise.js'

/** The moments [3, C] of every rank → those of all ranks [ranks, 3, C], and the number of values of a channel. */
const gatheredMomentsOp = defineOp<{ readonly exchange: Exchange }>('batchNormGatheredMoments', {
  callsHost: true,
  shape: ([moments = spec([])], { exchange }) => [spec([exchange.size, ...moments.shape]), spec([])],
  kernel: (context) =>
    hostKernel('moments', context, async ([own = new Float32Array()]) => {
      const all = await context.attrs.exchange.gather(own)
      let rows = 0
      for (let i = 0; i < all.length; i += own.length) rows += all[i] ?? 0
      return [all, Float32Array.of(rows)]
    }),
})

/**
 * `batchNormTraining` by the statistics of all ranks, as `torch.nn.SyncBatchNorm`: what travels are the moments of each
 * rank's values, and in the backward pass three sums over them. The gradients of weight and bias are the rank's own.
 *
 * @param x [..., C]; ranks may have different numbers of values
 */
export function batchNormSynchronized(
  x: Tensor,
  { weight, bias, runningMean, runningVar }: BatchNormTensors,
  exchange: Exchange,
  { momentum = 0.1, eps = 1e-5 }: { momentum?: number; eps?: number } = {},
): { y: Tensor; runningMean: Tensor; runningVar: Tensor } {
  const own = applyOne(ownMomentsOp, [x], undefined)
  const [moments, rows] = apply(gatheredMomentsOp, [own], { exchange })
  if (!moments || !rows) throw new Error('unreachable: moments and their number are two')
  const statistics = apply(joinedStatisticsOp, [moments, runningMean, runningVar], { momentum, eps })
  const [mean, inverse, newMean, newVar] = statistics
  if (!mean || !inverse || !newMean || !newVar) throw new Error('unreachable: the statistics are four')
  const y = pointwise('batchNorm', [normalizedFormula], [x, mean.detach(), inverse.detach(), weight, bias], {
    vjp: ({ grads: [dy] }) => {
      if (!dy) return []
      const sums = sumsOverRows([dy, x, mean, inverse], mean.shape)
      const [total, product, residue] = sumOverRanks(sums, exchange)
      const [dBias, ownProduct] = sums
      if (!total || !product || !residue || !dBias || !ownProduct) throw new Error('unreachable: the sums are three')
      const dWeight = pointwise('batchNormWeightGrad', [withoutResidue], [ownProduct, dBias, residue, rows])
      // A kernel binds eight buffers on every adapter: what is one number per channel is computed before.
      const centre = pointwise('batchNormCentre', [meanGradient], [product, total, residue, rows])
      const slope = pointwise('batchNormSlope', [meanProduct], [product, total, residue, rows])
      const dx = pointwise('batchNormGrad', [inputGradient], [dy, x, mean, inverse, weight, centre, slope])
      return [dx, undefined, undefined, dWeight, dBias]
    },
  })
  return { y, runningMean: newMean, runningVar: newVar }
}

const identities = e.formula((a, b, c) => [a, b, c])

/** The sums of `sumTerms` over all rows of the first tensor; see `parameterGradients` of batchnorm.ts for the last one. */
function sumsOverRows(tensors: readonly Tensor[], shape: Shape): Tensor[] {
  if (elements(tensors[0]?.shape ?? []) > elements(shape)) return formulasOfSums(sumTerms, identities, tensors, shape)
  // A rank may have one value per channel.
  return sumTerms.map((term) => pointwise('batchNormTerm', [term], tensors).reshape(...shape))
}

/** Sum of dy · x̂ without what the rounding of the mean adds to it: x̂ sums up to `residue` over all ranks. */
const corrected = (product: e.Expr, total: e.Expr, residue: e.Expr, rows: e.Expr): e.Expr =>
  e.sub(product, e.mul(total, e.div(residue, rows)))
const withoutResidue = e.formula(corrected)

/** sum(dy) / n less what the rounding of the mean adds to x̂, and sum(dy · x̂) / n, with the sums and n over all ranks. */
const meanGradient = e.formula((product, total, residue, rows) =>
  e.sub(e.div(total, rows), e.mul(e.div(residue, rows), e.div(product, rows))),
)
const meanProduct = e.formula((product, total, residue, rows) => e.div(corrected(product, total, residue, rows), rows))

/** dx = weight / deviation · (dy − sum(dy) / n − x̂ · sum(dy · x̂) / n). */
const inputGradient = e.formula((dy, x, mean, inverse, weight, centre, slope) => {
  const centred = e.sub(e.sub(dy, centre), e.mul(e.mul(e.sub(x, mean), inverse), slope))
  return e.mul(e.mul(weight, inverse), centred)
})
