import { scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { type Spec, spec } from '../../engine/shape.js'
import { cutmix, normalizeImage } from '../../kernels/images.js'
import { concat, slice } from '../../kernels/movement.js'
import { add, scale } from '../../kernels/pointwise.js'
import { lowLogits, type SegmentationModel, upsample, withPerturbed } from '../../models/segmentation.js'
import type { BatchLayout, StreamSpec } from '../data/batch.js'
import { PURPOSE, Random } from '../random.js'
import {
  type ConsistencyLosses,
  consistencyLosses,
  type PseudoLabels,
  pseudoLabels,
  type StudentPredictions,
  supervisedLoss,
  weighted,
} from './losses.js'
import {
  type CommonSettings,
  type Draws,
  get,
  type Method,
  type MethodContext,
  type MetricSpec,
  type StepInfo,
  type Tensors,
} from './method.js'
import { labeledMetric, labeledStream } from './supervised.js'

/** The unlabeled images of a step: a weak view, two strong ones, and boxes for CutMix. */
export const unlabeledStream: StreamSpec = {
  name: 'unlabeled',
  split: 'unlabeled',
  purpose: { order: PURPOSE.unlabeledOrder, sample: PURPOSE.unlabeledSample },
  fields: {
    img_u_w: { view: 'weak' },
    img_u_s1: { view: 'strong', draw: 0 },
    img_u_s2: { view: 'strong', draw: 1 },
    ignore_mask: { view: 'padding' },
    cutmix_box1: { view: 'cutmixBox', draw: 0 },
    cutmix_box2: { view: 'cutmixBox', draw: 1 },
  },
}

/** A second, independent order of the unlabeled images, which fill the CutMix boxes. */
const mixStream: StreamSpec = {
  name: 'mix',
  split: 'unlabeled',
  purpose: { order: PURPOSE.mixOrder, sample: PURPOSE.mixSample },
  fields: {
    img_u_w_mix: { view: 'weak' },
    img_u_s1_mix: { view: 'strong', draw: 0 },
    img_u_s2_mix: { view: 'strong', draw: 1 },
    ignore_mask_mix: { view: 'padding' },
  },
}

export const unimatchLayout: BatchLayout = [labeledStream, unlabeledStream, mixStream]

export const unimatchMetrics: readonly MetricSpec[] = [
  { ...labeledMetric, curve: { chart: 'loss', label: 'labeled', color: 'blue' } },
  {
    name: 'loss_s1',
    short: 's1',
    curve: { chart: 'loss', label: 'strong 1', color: 'amber' },
    tensorboard: [['Loss s', 0.5]],
  },
  {
    name: 'loss_s2',
    short: 's2',
    curve: { chart: 'loss', label: 'strong 2', color: 'red' },
    tensorboard: [['Loss s', 0.5]],
  },
  {
    name: 'loss_fp',
    short: 'fp',
    curve: { chart: 'loss', label: 'features', color: 'green' },
    tensorboard: [['Loss w_fp', 1]],
  },
  {
    name: 'mask_ratio',
    curve: { chart: 'mask', label: 'model', color: 'blue' },
    tensorboard: [['Mask ratio', 1]],
  },
]

/** Draws the multipliers of channel dropout with probability 1/2: [samples, channels], each 0 or 2. */
export const drawDropout = (random: { word(): number }, samples: number, channels: number): Float32Array =>
  Float32Array.from({ length: samples * channels }, () => (random.word() < 2 ** 31 ? 2 : 0))

/** Channel dropout of the features of labeled and unlabeled images: its inputs, their draws, and their use. */
export class FeatureDropout {
  /** Multipliers by input name: [labeled + unlabeled, C]. */
  readonly inputs: Readonly<Record<string, Spec>>

  constructor(
    private readonly seed: number,
    model: SegmentationModel,
    samples: number,
  ) {
    const levels = model.dropoutLevels.map(({ name, channels }) => [`drop_${name}`, spec([samples, channels])] as const)
    this.inputs = Object.fromEntries(levels)
  }

  draw({ batchIndex }: StepInfo): Draws {
    const random = new Random(this.seed, batchIndex, PURPOSE.dropout)
    const drawn = Object.entries(this.inputs).map(
      ([
        name,
        {
          shape: [samples = 0, channels = 0],
        },
      ]) => {
        return [name, drawDropout(random, samples, channels)] as const
      },
    )
    return Object.fromEntries(drawn)
  }

  /** Within the step's trace: the multipliers of each level, in the order of the model's levels. */
  multipliers(inputs: Tensors): Tensor[] {
    return Object.keys(this.inputs).map((name) => get(inputs, name))
  }

  /** The inputs' values. */
  values(draws: Draws): Record<string, Float32Array> {
    return Object.fromEntries(Object.keys(this.inputs).map((name) => [name, Float32Array.from(draws[name] ?? [])]))
  }
}

/** What a step of UniMatch computes, for methods that add to it. */
export interface UniMatchStep {
  readonly students: StudentPredictions
  /** The labeled loss and the weighted consistency losses: twice UniMatch's total. */
  readonly sum: Tensor
  readonly metrics: Tensors
}

/** The metrics of consistency losses, by the names of log.jsonl. */
export const consistencyMetrics = ({ s1, s2, fp, maskRatio }: ConsistencyLosses, suffix = ''): Tensors => ({
  [`loss_s1${suffix}`]: s1,
  [`loss_s2${suffix}`]: s2,
  [`loss_fp${suffix}`]: fp,
  [`mask_ratio${suffix}`]: maskRatio,
})

/**
 * Traces UniMatch's forward passes and losses.
 * @param multipliers of the features' channels, see `FeatureDropout`
 */
export function unimatchStep(
  { settings, batch, size, labeled, unlabeled }: MethodContext<CommonSettings>,
  model: SegmentationModel,
  multipliers: readonly Tensor[],
): UniMatchStep {
  const image = (field: string): Tensor => normalizeImage(batch(field))
  const labelsOf = (logits: Tensor): PseudoLabels => scoped('pseudo-labels', () => pseudoLabels(logits, size))
  const training = { training: true }

  // Before the training-mode passes, which change the running statistics.
  const mixLabels = scoped('pseudo-labels', () =>
    pseudoLabels(lowLogits(model, image('img_u_w_mix'), { training: false }), size),
  )

  const weak = model.features(concat([image('img_x'), image('img_u_w')], 0), training)
  // Labeled, unlabeled, perturbed labeled, perturbed unlabeled: batch norm sees them all, no loss needs the third.
  const low = model.decode(withPerturbed(model, weak, multipliers), training)
  const logitsX = upsample(slice(low, 0, 0, labeled), size)
  const labels = labelsOf(slice(low, 0, labeled, unlabeled))
  const perturbed = upsample(slice(low, 0, 2 * labeled + unlabeled, unlabeled), size)

  const boxes = [batch('cutmix_box1'), batch('cutmix_box2')] as const
  const view1 = cutmix(image('img_u_s1'), image('img_u_s1_mix'), boxes[0])
  const view2 = cutmix(image('img_u_s2'), image('img_u_s2_mix'), boxes[1])
  const strong = lowLogits(model, concat([view1, view2], 0), training)
  const strongOf = (view: number) => upsample(slice(strong, 0, view * unlabeled, unlabeled), size)
  const students = {
    strong: [strongOf(0), strongOf(1)] as const,
    perturbed,
    boxes,
    ignore: batch('ignore_mask'),
    ignoreMix: batch('ignore_mask_mix'),
  }
  const confidence = { threshold: settings.conf_thresh, mode: 'pixelwise' } as const
  const own = scoped('consistency', () => consistencyLosses(students, labels, mixLabels, confidence))
  const { criterion, ignore_index: ignoreIndex } = settings
  const lossX = scoped('labeled', () => supervisedLoss(logitsX, batch('mask_x'), criterion, ignoreIndex))
  const sum = add(lossX, weighted(own))
  return { students, sum, metrics: { loss_x: lossX, ...consistencyMetrics(own) } }
}

/**
 * UniMatch (arXiv 2208.09910), as the PrevMatch code has it: a weak view whose confident predictions are the labels of two
 * strong views with CutMix and of itself behind channel dropout of its features.
 */
export const unimatch: Method<Record<never, never>> = {
  name: 'unimatch',
  description: 'consistency of strong views and perturbed features with a weak view (arXiv 2208.09910)',
  keys: {},
  layout: () => unimatchLayout,
  create(context) {
    const { settings, labeled, unlabeled } = context
    const model = context.model(0, 'model')
    const dropout = new FeatureDropout(settings.seed, model, labeled + unlabeled)
    return {
      trained: [model],
      deployed: [{ name: 'model', model }],
      inputs: dropout.inputs,
      metrics: unimatchMetrics,
      losses(inputs) {
        const { sum, metrics } = unimatchStep(context, model, dropout.multipliers(inputs))
        return { total: scale(sum, 0.5), metrics }
      },
      draw: (at) => dropout.draw(at),
      prepare: (_, draws) => ({ inputs: dropout.values(draws), values: { lambda: 0 } }),
    }
  },
}
