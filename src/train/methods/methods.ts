import { read, scoped, type Tensor } from '../../engine/graph.js'
import type { Variable } from '../../engine/store.js'
import { cutmix, normalizeImage } from '../../kernels/augment.js'
import { concat, slice } from '../../kernels/movement.js'
import { add, div, mul, scale } from '../../kernels/pointwise.js'
import {
  type DropoutLevel,
  logits,
  lowLogits,
  type SegmentationModel,
  upsample,
  withPerturbed,
} from '../../models/segmentation.js'
import type { BatchField } from '../data/batch.js'
import { type Criterion, guidance, pseudoLabels, supervisedLoss, type Trust, weighted } from './losses.js'

/** What a method's losses are computed with. */
export interface Setting {
  readonly model: SegmentationModel
  readonly criterion: Criterion
  readonly ignoreIndex: number
  /** Confidence that the model's own pseudo-labels need. */
  readonly threshold: number
  readonly labeled: number
  readonly unlabeled: number
  /** Height and width of the crops. */
  readonly size: readonly [number, number]
}

/** The previous models' guidance. */
export interface PreviousGuide {
  /** Sum of their weighted logits of `img_u_w`, then of `img_u_w_mix`: [2 * unlabeled, H/4, W/4, nclass]. */
  readonly logits: Variable
  readonly trust: Trust
}

export type Tensors = Readonly<Record<string, Tensor>>
export type Losses = Tensors & { readonly total_loss: Tensor }

const training = { training: true }
const evaluation = { training: false }

/** The labeled loss alone. */
export function supervised(setting: Setting, inputs: Tensors): Losses {
  const scores = logits(setting.model, normalizeImage(get(inputs, 'img_x')), training)
  const loss = labeledLoss(setting, scores, inputs)
  return { total_loss: loss, loss_x: loss }
}

/**
 * UniMatch (arXiv 2208.09910), and PrevMatch (arXiv 2405.20610) where there is a guide of previous models, whose part
 * of the loss is weighted by the input `lambda`; with lambda 0 and denominator 2 the two are the same.
 */
export function semiSupervised(setting: Setting, inputs: Tensors, previous?: PreviousGuide): Losses {
  const { model, labeled, unlabeled, size, threshold } = setting
  const image = (name: BatchField): Tensor => normalizeImage(get(inputs, name))

  // Before the training-mode passes, which change the running statistics.
  const mixed = scoped('guide', () => pseudoLabels(lowLogits(model, image('img_u_w_mix'), evaluation), size))

  const dropout = model.dropoutLevels.map((level) => get(inputs, dropoutInput(level)))
  const weak = model.features(concat([image('img_x'), image('img_u_w')], 0), training)
  // Labeled, unlabeled, perturbed labeled, perturbed unlabeled: batch norm sees them all, no loss needs the third.
  const low = model.decode(withPerturbed(model, weak, dropout), training)
  const logitsX = upsample(slice(low, 0, 0, labeled), size)
  const weakLabels = scoped('guide', () => pseudoLabels(slice(low, 0, labeled, unlabeled), size))
  const perturbed = upsample(slice(low, 0, 2 * labeled + unlabeled, unlabeled), size)

  const boxes = [get(inputs, 'cutmix_box1'), get(inputs, 'cutmix_box2')] as const
  const view1 = cutmix(image('img_u_s1'), image('img_u_s1_mix'), boxes[0])
  const view2 = cutmix(image('img_u_s2'), image('img_u_s2_mix'), boxes[1])
  const strong = lowLogits(model, concat([view1, view2], 0), training)

  const students = {
    strong: [0, 1].map((view) => upsample(slice(strong, 0, view * unlabeled, unlabeled), size)) as [Tensor, Tensor],
    perturbed,
    boxes,
    ignore: get(inputs, 'ignore_mask'),
    ignoreMix: get(inputs, 'ignore_mask_mix'),
  }
  const own = scoped('guide', () => guidance(students, weakLabels, mixed, { threshold, mode: 'pixelwise' }))
  const lossX = labeledLoss(setting, logitsX, inputs)
  const base = add(lossX, weighted(own))
  const losses = { loss_x: lossX, loss_s1: own.s1, loss_s2: own.s2, loss_fp: own.fp, mask_ratio: own.maskRatio }
  if (!previous) return { total_loss: scale(base, 0.5), ...losses }

  const prev = scoped('previous', () => {
    const logits = read(previous.logits)
    const labels = (start: number) => pseudoLabels(slice(logits, 0, start, unlabeled), size)
    return guidance(students, labels(0), labels(unlabeled), previous.trust)
  })
  const total = div(add(base, mul(weighted(prev), get(inputs, 'lambda'))), get(inputs, 'denominator'))
  return {
    total_loss: total,
    ...losses,
    loss_s1_prev: prev.s1,
    loss_s2_prev: prev.s2,
    loss_fp_prev: prev.fp,
    mask_ratio_prev: prev.maskRatio,
  }
}

const labeledLoss = ({ criterion, ignoreIndex }: Setting, logits: Tensor, inputs: Tensors): Tensor =>
  scoped('labeled', () => supervisedLoss(logits, get(inputs, 'mask_x'), criterion, ignoreIndex))

/** Name of the step's input with the multipliers of a dropout level. */
export const dropoutInput = ({ name }: DropoutLevel): string => `drop_${name}`

/** An input of the step. Throws where it is not declared. */
export function get(inputs: Tensors, name: string): Tensor {
  const tensor = inputs[name]
  if (!tensor) throw new Error(`the step has no input '${name}'`)
  return tensor
}
