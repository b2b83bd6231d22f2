import * as e from '../../engine/expr.js'
import type { Tensor } from '../../engine/ir.js'
import { crossEntropy } from '../../kernels/loss.js'
import { mul, pointwise, scale, sum, sumTo } from '../../kernels/pointwise.js'
import { softmax, softmaxMax } from '../../kernels/softmax.js'
import type { PseudoLabels } from './losses.js'

/** So that the logarithm of a probability of 0 is finite. */
const TINY = 1e-10

/**
 * Pseudo-labels, and how confident they are in each image: the mean over its pixels of the largest probability times
 * 1 − H / ln C, with H the entropy of the C probabilities. No gradient flows through any of them.
 *
 * @param logits [N, H, W, C], at the size of the image
 * @returns further `ofImages`, f32 [N]
 */
export function labelsWithConfidence(logits: Tensor): PseudoLabels & { readonly ofImages: Tensor } {
  const [images = 0, height = 0, width = 0, classes = 0] = logits.shape
  const scores = logits.detach()
  const { confidence, label } = softmaxMax(scores)
  const negated = e.formula((p) => e.mul(p, e.log(e.add(p, e.constant(TINY)))))
  const terms = pointwise('entropy', [negated], [softmax(scores)])
  const negativeEntropy = sumTo(terms, [images, height, width, 1]).reshape(images, height, width)
  const certainty = e.formula((largest, negative) =>
    e.mul(e.add(e.constant(1), e.div(negative, e.constant(Math.log(classes)))), largest),
  )
  const pixels = pointwise('certainty', [certainty], [confidence, negativeEntropy])
  const ofImages = scale(sumTo(pixels, [images, 1, 1]), 1 / (height * width)).reshape(images)
  return { confidence: confidence.detach(), label: label.detach(), ofImages: ofImages.detach() }
}

/**
 * Cross entropy of the pixels whose confidence reaches the threshold (compared in float32) and whose label counts, divided
 * by the number of all pixels: a scalar. `ratio` is the share of these pixels.
 *
 * @param logits [N, H, W, C]
 * @param labels [N, H, W]
 */
export function thresholdedLoss(
  logits: Tensor,
  { label, confidence }: PseudoLabels,
  { threshold, ignoreIndex }: { readonly threshold: number; readonly ignoreIndex: number },
): { readonly loss: Tensor; readonly ratio: Tensor } {
  const counts = e.formula((confidence, label) =>
    e.mul(
      e.greaterEqual(confidence, e.constant(Math.fround(threshold))),
      e.sub(e.constant(1), e.equal(label, e.constant(ignoreIndex))),
    ),
  )
  const counted = pointwise('counted', [counts], [confidence, label]).detach()
  const share = 1 / label.shape.reduce((product, extent) => product * extent, 1)
  const losses = mul(crossEntropy(logits, label, { ignoreIndex }), counted)
  return { loss: scale(sum(losses), share), ratio: scale(sum(counted), share) }
}
