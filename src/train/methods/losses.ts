import type { Tensor } from '../../engine/ir.js'
import { cutmix } from '../../kernels/images.js'
import {
  type ConfidenceOptions,
  confidenceWeightedLoss,
  confidentRatio,
  crossEntropy,
  crossEntropyMean,
  ohemCrossEntropy,
} from '../../kernels/loss.js'
import { add, scale } from '../../kernels/pointwise.js'
import { resizedSoftmaxMax } from '../../kernels/softmax.js'

/** Where nothing counts, nothing is learned. */
const empty = 'zero'

/** The criterion of the labeled images, as in the configuration. */
export interface Criterion {
  readonly name: 'CELoss' | 'OHEM'
  readonly kwargs: {
    readonly thresh?: number | undefined
    readonly min_kept?: number | undefined
    readonly ignore_index?: number | undefined
  }
}

/** Loss of labeled images: logits [N, H, W, C], target [N, H, W] → []. A batch without a pixel that counts has loss 0. */
export function supervisedLoss(
  logits: Tensor,
  target: Tensor,
  { name, kwargs }: Criterion,
  ignoreIndex: number,
): Tensor {
  if (name === 'CELoss') return crossEntropyMean(logits, target, { ignoreIndex, empty })
  const { thresh: threshold = 0.7, min_kept: minKept = 256 } = kwargs
  return ohemCrossEntropy(logits, target, { threshold, minKept, ignoreIndex, empty }).loss
}

/** Pseudo-labels: `confidence` f32 and `label` u32, both [N, H, W]. */
export interface PseudoLabels {
  readonly confidence: Tensor
  readonly label: Tensor
}

/**
 * Class and its probability per pixel of an image of `size`, as constants: no gradient flows into a teacher.
 *
 * @param logits at the decoder's size, [N, h, w, C]
 */
export function pseudoLabels(logits: Tensor, size: readonly [number, number]): PseudoLabels {
  const { confidence, label } = resizedSoftmaxMax(logits.detach(), size)
  return { confidence: confidence.detach(), label: label.detach() }
}

/** What the losses of the unlabeled images are computed from. */
export interface StudentPredictions {
  /** Logits of the two strong views, whose boxes hold the images of the second batch: [N, H, W, C]. */
  readonly strong: readonly [Tensor, Tensor]
  /** Logits of the weak view behind perturbed features, [N, H, W, C]. */
  readonly perturbed: Tensor
  /** Boxes of the strong views, [N, H, W] of 0 and 1. */
  readonly boxes: readonly [Tensor, Tensor]
  /** Padding of both batches: 255 where nothing counts, [N, H, W]. */
  readonly ignore: Tensor
  readonly ignoreMix: Tensor
}

export interface ConsistencyLosses {
  readonly s1: Tensor
  readonly s2: Tensor
  readonly fp: Tensor
  /** Share of the pixels whose pseudo-label reaches the threshold. */
  readonly maskRatio: Tensor
}

/** Losses of the students against one teacher's pseudo-labels of the weak views of both batches. */
export function consistencyLosses(
  students: StudentPredictions,
  labels: PseudoLabels,
  mixLabels: PseudoLabels,
  confidence: Pick<ConfidenceOptions, 'threshold' | 'mode'>,
): ConsistencyLosses {
  const loss = (logits: Tensor, target: PseudoLabels, ignore: Tensor): Tensor =>
    confidenceWeightedLoss(crossEntropy(logits, target.label), target.confidence, ignore, { ...confidence, empty })
  const strong = (view: 0 | 1): Tensor => {
    const box = students.boxes[view]
    const target = {
      label: cutmix(labels.label, mixLabels.label, box),
      confidence: cutmix(labels.confidence, mixLabels.confidence, box),
    }
    return loss(students.strong[view], target, cutmix(students.ignore, students.ignoreMix, box))
  }
  return {
    s1: strong(0),
    s2: strong(1),
    fp: loss(students.perturbed, labels, students.ignore),
    maskRatio: confidentRatio(labels.confidence, students.ignore, confidence.threshold, { empty }),
  }
}

/** 0.25 s1 + 0.25 s2 + 0.5 fp. */
export const weighted = ({ s1, s2, fp }: ConsistencyLosses): Tensor =>
  add(add(scale(s1, 0.25), scale(s2, 0.25)), scale(fp, 0.5))
