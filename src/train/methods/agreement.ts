import * as e from '../../engine/expr.js'
import type { Tensor } from '../../engine/ir.js'
import { confidentPixels } from '../../kernels/loss.js'
import { add, div, mul, pointwise, scale, sumAllTo } from '../../kernels/pointwise.js'
import type { PseudoLabels } from './losses.js'
import type { Tensors } from './method.js'

/** 1 where labels u32 [N, H, W] are equal, else 0. */
const equalLabels = (a: Tensor, b: Tensor): Tensor => pointwise('equalLabels', [e.formula(e.equal)], [a, b])

/** The share of `counted` pixels where `wanted` is 1; 0 where none counts. */
function share(wanted: Tensor, counted: Tensor): Tensor {
  const [total, count] = sumAllTo([wanted, counted], [])
  if (!total || !count) throw new Error('unreachable: two sums were asked for')
  return div(total, pointwise('atLeastOne', [e.formula((n) => e.max(n, e.constant(1)))], [count]))
}

/**
 * How often models agree. `agreement_pairs`: of the pixels where two of them are confident, the share where their labels
 * are equal; the mean over all pairs. `agreement_all`, of three and more: pixels where all are confident and agree, by
 * those where the first two are confident, as the published code of Diverse Co-training has it.
 *
 * @param ignore 255 where nothing counts, [N, H, W]
 */
export function agreement(models: readonly PseudoLabels[], ignore: Tensor, threshold: number): Tensors {
  const confident = models.map(({ confidence }) => confidentPixels(confidence, ignore, threshold))
  const bothConfident = (i: number, j: number): Tensor => mul(confident[i] as Tensor, confident[j] as Tensor)
  const equal = (i: number, j: number): Tensor => {
    return equalLabels(models[i]?.label as Tensor, models[j]?.label as Tensor)
  }
  const pairs = models.flatMap((_, j) => models.slice(0, j).map((_, i) => [i, j] as const))
  const shares = pairs.map(([i, j]) => share(mul(equal(i, j), bothConfident(i, j)), bothConfident(i, j)))
  const ofPairs = scale(shares.reduce(add), 1 / pairs.length)
  if (models.length < 3) return { agreement_pairs: ofPairs }
  const allEqual = models.slice(1).map((_, i) => equal(i, i + 1))
  const all = [...confident, ...allEqual].reduce(mul)
  return { agreement_pairs: ofPairs, agreement_all: share(all, bothConfident(0, 1)) }
}
