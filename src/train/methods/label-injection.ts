// The CutMix of AugSeg (arXiv 2212.04976): boxes of other unlabeled images, into which labeled content was put before
// where the teacher is unsure.

import * as e from '../../engine/expr.js'
import type { Tensor } from '../../engine/ir.js'
import { type Spec, spec } from '../../engine/shape.js'
import { cutmix } from '../../kernels/images.js'
import { fill, mul, pointwise } from '../../kernels/pointwise.js'
import { take } from '../../kernels/take.js'
import type { Random } from '../random.js'
import { type Draws, get, type Tensors } from './method.js'

type Size = readonly [height: number, width: number]

/**
 * Rows, or columns, that a box holds, from the first to before the last: about a center, cut off at the border, an even
 * number of about extent √(1 − λ).
 */
export function boxRange(extent: number, lambda: number, center: number): [from: number, to: number] {
  const half = Math.floor(Math.floor(extent * Math.sqrt(1 - lambda)) / 2)
  return [Math.max(center - half, 0), Math.min(center + half, extent)]
}

/** Of a beta distribution whose parameters are integers. */
const drawBeta = (random: Pick<Random, 'dirichlet'>, a: number, b: number): number =>
  random
    .dirichlet(a + b)
    .slice(0, a)
    .reduce((sum, share) => sum + share, 0)

/** Row and column of the center of a box for each image, one pair after another. */
const drawCenters = (random: Pick<Random, 'integer'>, images: number, size: Size): number[] =>
  Array.from({ length: images }, () => size.map((extent) => random.integer(Math.floor(extent / 8), extent))).flat()

/**
 * The random choices for a batch: whether it is mixed (`mix`, of [0, 1)); which image each one takes a patch from, and which
 * labeled one it may take labels from (`permutation`); below which confidence it takes them (`needed_confidence`, of
 * [0, 1)); λ and centers of the boxes of labels and of patches.
 */
export function drawMixing(
  random: Pick<Random, 'uniform' | 'integer' | 'permutation' | 'dirichlet'>,
  images: number,
  size: Size,
): Draws {
  return {
    mix: [random.uniform()],
    permutation: random.permutation(images),
    needed_confidence: Array.from({ length: images }, () => random.uniform()),
    label_lambda: [drawBeta(random, 8, 2)],
    label_centers: drawCenters(random, images, size),
    patch_lambda: [drawBeta(random, 4, 4)],
    patch_centers: drawCenters(random, images, size),
  }
}

/**
 * Inputs of a program that mixes batches: by image, where its patch is from and the labels in it; the confidence that the
 * first of these needs to get none; rows and columns of the box of labels in the patch, and of the patch, as 0 and 1.
 */
export const mixingInputs = (images: number, [height, width]: Size): Readonly<Record<string, Spec>> => ({
  patch_source: spec([images], 'u32'),
  label_source: spec([images], 'u32'),
  needed_confidence: spec([images]),
  label_rows: spec([images, height, 1]),
  label_columns: spec([images, 1, width]),
  patch_rows: spec([images, height, 1]),
  patch_columns: spec([images, 1, width]),
})

/**
 * Values of the inputs.
 * @param probability that a batch is mixed at all
 */
export function mixingValues(
  draws: Draws,
  [height, width]: Size,
  probability: number,
): Record<string, Float32Array | Uint32Array> {
  const drawn = (name: string, i = 0): number => draws[name]?.[i] ?? 0
  const source = Array.from(draws.permutation ?? [])
  const isMixed = drawn('mix') < probability
  /** Of the boxes of `images`, one after another; no rows and columns where there is no box. */
  const flags = (kind: string, images: readonly number[], axis: 0 | 1): Float32Array => {
    const extent = axis === 0 ? height : width
    const values = new Float32Array(images.length * extent)
    for (const [i, image] of images.entries()) {
      const [from, to] = boxRange(extent, drawn(`${kind}_lambda`), drawn(`${kind}_centers`, 2 * image + axis))
      if (isMixed) values.fill(1, i * extent + from, i * extent + to)
    }
    return values
  }
  const own = source.map((_, image) => image)
  return {
    patch_source: Uint32Array.from(source),
    label_source: Uint32Array.from(source, (from) => source[from] ?? 0),
    needed_confidence: Float32Array.from(source, (from) => drawn('needed_confidence', from)),
    label_rows: flags('label', source, 0),
    label_columns: flags('label', source, 1),
    patch_rows: flags('patch', own, 0),
    patch_columns: flags('patch', own, 1),
  }
}

/** What mixes the batches of a step. */
export interface Mixing {
  /** Whether the patch of each image holds labels, [N] of 0 and 1. */
  readonly holdsLabels: Tensor
  /**
   * Each image of a batch [N, …] with a patch of another one, which may itself hold a box of a labeled image. What is
   * mixed in was not mixed before, and of the labeled images nothing is seen outside of the patches.
   *
   * @param labeled that of the labeled images, or a number for all of them
   */
  mix(own: Tensor, labeled: Tensor | number): Tensor
}

/**
 * Within a trace: a CutMix of unlabeled images, which injects labeled ones where the teacher is unsure.
 * @param confidence of the teacher in each unlabeled image, f32 [N]
 */
export function labelInjection(inputs: Tensors, confidence: Tensor): Mixing {
  const [patchSource, labelSource] = [get(inputs, 'patch_source'), get(inputs, 'label_source')]
  const isUnsure = e.formula((needed, confidence) => e.greater(needed, confidence))
  const sourceConfidence = take(confidence, patchSource)
  const holdsLabels = pointwise('isUnsure', [isUnsure], [get(inputs, 'needed_confidence'), sourceConfidence])
  const box = (kind: string): Tensor => mul(get(inputs, `${kind}_rows`), get(inputs, `${kind}_columns`))
  const labelBox = mul(box('label'), holdsLabels.reshape(holdsLabels.shape[0] ?? 0, 1, 1))
  const patchBox = box('patch')
  return {
    holdsLabels,
    mix(own, labeled) {
      const ofLabeled = typeof labeled === 'number' ? fill([], labeled) : take(labeled, labelSource)
      return cutmix(own, cutmix(take(own, patchSource), ofLabeled, labelBox), patchBox)
    },
  }
}
