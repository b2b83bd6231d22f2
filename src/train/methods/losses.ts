import type { Tensor } from '../../engine/ir.js'
import { cutmix } from '../../kernels/augment.js'
import {
  confidenceWeightedLoss,
  confidentRatio,
  crossEntropy,
  crossEntropyMean,
  ohemCrossEntropy,
} from '../../kernels/loss.js'
import { add, scale } from '../../kernels/pointwise.js'
import { resizedSoftmaxMax } from '../../kernels/softmax.js'

/** The criterion of the labeled images, as in the configuration. */
export interface Criterion {
  readonly name: 'CELoss' | 'OHEM'
  readonly kwargs: {
    readonly thresh?: number | undefined
    readonly min_kept?: number | undefined
    readonly ignore_index?: number | undefined
  }
}

/** Loss of labeled images: logits [N, H, W, C], target [N, H, W] → []. */
export function supervisedLoss(
  logits: Tensor,
  target: Tensor,
  { name, kwargs }: Criterion,
  ignoreIndex: number,
): Tensor {
  if (name === 'CELoss') return crossEntropyMean(logits, target, { ignoreIndex })
  const { thresh: threshold = 0.7, min_kept: minKept = 256 } = kwargs
  return ohemCrossEntropy(logits, target, { threshold, minKept, ignoreIndex }).loss
}

/** How much a guide is believed: `pixelavg` weighs by its mean confidence, `pixelwise` drops what is below `threshold`. */
export interface Trust {
  readonly threshold: number
  readonly mode: 'pixelwise' | 'pixelavg'
}

/** Pseudo-labels: `confidence` f32 and `label` u32, both [N, H, W]. */
export interface PseudoLabels {
  readonly confidence: Tensor
  readonly label: Tensor
}

/**
 * Class and its probability per pixel of an image of `size`, as constants: no gradient flows into a guide.
 *
 * @param logits at the decoder's size, [N, H/4, W/4, C]
 */
export function pseudoLabels(logits: Tensor, size: readonly [number, number]): PseudoLabels {
  const { confidence, label } = resizedSoftmaxMax(logits.detach(), size)
  return { confidence: confidence.detach(), label: label.detach() }
}

/** What the unlabeled images' losses are computed from. */
export interface Students {
  /** Logits of the two strong views, whose boxes hold the images of the second batch. */
  readonly strong: readonly [Tensor, Tensor]
  /** Logits of the weak view behind perturbed features. */
  readonly perturbed: Tensor
  /** Boxes of the strong views, [N, H, W] of 0 and 1. */
  readonly boxes: readonly [Tensor, Tensor]
  /** Padding of both batches: 255 where nothing counts, [N, H, W]. */
  readonly ignore: Tensor
  readonly ignoreMix: Tensor
}

export interface Guidance {
  readonly s1: Tensor
  readonly s2: Tensor
  readonly fp: Tensor
  /** Share of the pixels whose pseudo-label reaches the threshold. */
  readonly maskRatio: Tensor
}

/** Losses of the students against one guide's pseudo-labels of the weak views of both batches. */
export function guidance(students: Students, own: PseudoLabels, mixed: PseudoLabels, trust: Trust): Guidance {
  const loss = (logits: Tensor, { label, confidence }: PseudoLabels, ignore: Tensor): Tensor =>
    confidenceWeightedLoss(crossEntropy(logits, label), confidence, ignore, trust)
  const strong = (view: 0 | 1): Tensor => {
    const box = students.boxes[view]
    const labels = {
      label: cutmix(own.label, mixed.label, box),
      confidence: cutmix(own.confidence, mixed.confidence, box),
    }
    return loss(students.strong[view], labels, cutmix(students.ignore, students.ignoreMix, box))
  }
  return {
    s1: strong(0),
    s2: strong(1),
    fp: loss(students.perturbed, own, students.ignore),
    maskRatio: confidentRatio(own.confidence, students.ignore, trust.threshold),
  }
}

/** 0.25 s1 + 0.25 s2 + 0.5 fp. */
export const weighted = ({ s1, s2, fp }: Guidance): Tensor => add(add(scale(s1, 0.25), scale(s2, 0.25)), scale(fp, 0.5))
