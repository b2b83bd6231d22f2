import * as e from '../../engine/expr.js'
import type { Tensor } from '../../engine/ir.js'
import { flip } from '../../kernels/flip.js'
import { cutmix } from '../../kernels/images.js'
import { confidenceWeightedLoss, confidentRatio, crossEntropy } from '../../kernels/loss.js'
import { confusionMatrix } from '../../kernels/metrics.js'
import { slice } from '../../kernels/movement.js'
import {
  add,
  atLeast,
  broadcastTo,
  div,
  mul,
  pointwise,
  scale,
  sum,
  sumTo,
  toU32,
  where,
} from '../../kernels/pointwise.js'
import { take } from '../../kernels/take.js'
import type { PseudoLabels } from './losses.js'

const pixelsOf = ({ shape }: Tensor): number => shape.slice(1).reduce((product, extent) => product * extent, 1)

/** Confidence as a byte, cut off: u32 [N, H, W] of 0 to 255. */
export const quantizedConfidence = (confidence: Tensor): Tensor => toU32(scale(confidence, 255))

/** 1 where a confidence that went through a byte still reaches a threshold, compared in float32. */
export function confidentBytes(bytes: Tensor, threshold: number): Tensor {
  const levels = Array.from({ length: 256 }, (_, level) => Math.fround(level / 255))
  const least = levels.findIndex((level) => level >= Math.fround(threshold))
  return atLeast(bytes, least)
}

/** A loss and the weight of each pixel's cross-entropy in it. */
export interface WeightedLoss {
  /** A scalar. */
  readonly loss: Tensor
  /** [N, 1, 1], or a scalar for the whole batch. */
  readonly weight: Tensor
}

/**
 * The loss of a CutMix view: each image weighs its cross-entropy by the share of its pixels that are confident; the mean is
 * over the pixels whose cross-entropy is not 0, and 0 where there is none.
 *
 * @param logits [N, H, W, C]
 * @param target u8 or u32 [N, H, W]
 * @param confidence as bytes, u8 or u32 [N, H, W]
 */
export function cutMixLoss(logits: Tensor, target: Tensor, confidence: Tensor, threshold: number): WeightedLoss {
  const each = crossEntropy(logits, target)
  const [n = 0] = target.shape
  const confident = confidentBytes(confidence, threshold)
  const weight = scale(sumTo(confident, [n, 1, 1]), 1 / pixelsOf(target)).detach()
  const counted = pointwise('counted', [e.formula((loss) => e.greater(loss, e.constant(0)))], [each]).detach()
  const atLeastOne = pointwise('atLeastOne', [e.formula((n) => e.max(n, e.constant(1)))], [sum(counted)])
  return { loss: div(sum(mul(mul(each, counted), weight)), atLeastOne), weight }
}

/**
 * The loss of a ClassMix view: the mean cross-entropy times the share of the batch's pixels that are confident.
 *
 * @param logits [N, H, W, C]
 */
export function classMixLoss(logits: Tensor, { label, confidence }: PseudoLabels, threshold: number): WeightedLoss {
  const share = 1 / ((label.shape[0] ?? 1) * pixelsOf(label))
  const weight = scale(sum(atLeast(confidence, threshold)), share).detach()
  return { loss: mul(scale(sum(crossEntropy(logits, label)), share), weight), weight }
}

/**
 * The loss of a strong view against the pseudo-labels of the weak one: the sum of the cross-entropies of confident pixels,
 * divided by the annotated pixels of other images, which alone count.
 *
 * @param logits [N, H, W, C]
 * @param target label map of those images, u8 or u32 [N, H, W]
 */
export function strongViewLoss(
  logits: Tensor,
  { label, confidence }: PseudoLabels,
  target: Tensor,
  threshold: number,
  ignoreIndex: number,
): { loss: Tensor; ratio: Tensor } {
  const isIgnored = e.formula((x) => e.mul(e.equal(x, e.constant(ignoreIndex)), e.constant(255)))
  const ignore = pointwise('ignored', [isIgnored], [target], { dtypes: ['u32'] })
  const options = { threshold, mode: 'pixelwise', empty: 'zero' } as const
  return {
    loss: confidenceWeightedLoss(crossEntropy(logits, label), confidence, ignore, options),
    ratio: confidentRatio(confidence, ignore, threshold, options),
  }
}

/**
 * Labels of images with boxes from one another, some of which are then mirrored left to right.
 *
 * @param label u32 [N, H, W]
 * @param sources u32 [N]: the image that fills each image's box
 * @param box u8 [N, H, W], 1 inside
 * @param mirrored [N], not 0 where the image is mirrored
 */
export function cutMixLabels(label: Tensor, sources: Tensor, box: Tensor, mirrored: Tensor): Tensor {
  const [n = 0, height = 0, width = 0] = label.shape
  const pasted = cutmix(label, take(label, sources), box).reshape(n, height, width, 1)
  const map = scale(pasted, 1)
  return toU32(where(mirrored.reshape(n, 1, 1, 1), flip(map), map)).reshape(n, height, width)
}

/**
 * The classes that the label map of each image has: 1 or 0, [N, classes].
 *
 * @param label u32 [N, H, W]
 * @param images the numbers 0 to N - 1, f32 [N]
 */
export function presentClasses(label: Tensor, classes: number, images: Tensor): Tensor {
  const [n = 0] = label.shape
  // Pixels of each class in each image are counted as those of predictions are for each class.
  const side = Math.max(n, classes)
  const zeros = pointwise('zero', [e.constant(0)], [], { space: [side, side], dtypes: ['u32'] })
  const imageOf = toU32(broadcastTo(images.reshape(n, 1, 1), label.shape))
  const counts = confusionMatrix(zeros, label, imageOf, { ignoreIndex: side })
  const isPresent = pointwise('present', [e.formula((count) => e.greater(count, e.constant(0)))], [counts])
  return slice(slice(isPresent, 0, 0, n), 1, 0, classes)
}

/**
 * The pixels of half of the classes, rounded down, that the label map of each image has: those of the highest priorities.
 *
 * @param label u32 [N, H, W]
 * @param priority [N, C], different numbers for each image: random ones draw the classes
 * @param images the numbers 0 to N - 1, f32 [N]
 * @returns 1 or 0, [N, H, W]
 */
export function classMask(label: Tensor, priority: Tensor, images: Tensor): Tensor {
  const [n = 0, height = 0, width = 0] = label.shape
  const classes = priority.shape[1] ?? 0
  const present = presentClasses(label, classes, images)
  const isHigher = e.formula((other, own, isThere) => e.mul(isThere, e.greater(other, own)))
  const [across, down] = [(x: Tensor) => x.reshape(n, 1, classes), (x: Tensor) => x.reshape(n, classes, 1)]
  const higher = pointwise('higher', [isHigher], [across(priority), down(priority), across(present)])
  const rank = sumTo(higher, [n, classes, 1]).reshape(n, classes)
  const chooses = e.formula((isThere, rank, count) =>
    e.mul(isThere, e.greaterEqual(count, e.mul(e.constant(2), e.add(rank, e.constant(1))))),
  )
  const chosen = pointwise('chosen', [chooses], [present, rank, sumTo(present, [n, 1])])
  const place = add(scale(label, 1), scale(images.reshape(n, 1, 1), classes))
  const flat = toU32(place).reshape(n * height * width)
  return take(chosen.reshape(n * classes), flat).reshape(n, height, width)
}

/** Images, or maps of them, where a mask is 1; elsewhere those that `sources` u32 [N] tells for each. */
export function mixedByMask(mask: Tensor, x: Tensor, sources: Tensor): Tensor {
  const [n = 0, height = 0, width = 0] = mask.shape
  const condition = x.shape.length === 4 ? mask.reshape(n, height, width, 1) : mask
  return where(condition, x, take(x, sources))
}
