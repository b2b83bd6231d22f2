import { z } from 'zod'
import { scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { spec } from '../../engine/shape.js'
import { normalizeImage } from '../../kernels/images.js'
import { concat, slice } from '../../kernels/movement.js'
import { add, scale, sum } from '../../kernels/pointwise.js'
import { logits, lowLogits, upsample } from '../../models/segmentation.js'
import type { BatchLayout, Geometry } from '../data/batch.js'
import { PURPOSE, Random } from '../random.js'
import { labelsWithConfidence, thresholdedLoss } from './augseg-losses.js'
import { drawMixing, labelInjection, mixingInputs, mixingValues } from './label-injection.js'
import { supervisedLoss } from './losses.js'
import { meanTeacherDecay, updateMeanTeacher } from './mean-teacher.js'
import { get, type Losses, type Method, type MetricSpec, type Tensors } from './method.js'
import { resizeFactors } from './resize-factors.js'
import { labeledMetric, labeledStream } from './supervised.js'

const resize = z
  .strictObject({
    kind: z
      .enum(['long_side', 'scale'])
      .default('long_side')
      .describe(
        'Whether the longer side is drawn, uniformly among integers, or one factor for both sides, uniformly. Neither ' +
          'depends on the size of the image.',
      ),
    base: z
      .union([z.int().min(1), z.tuple([z.int().min(1), z.int().min(1)])], {
        error: 'expected a longer side in pixels, or [height, width]',
      })
      .default(500)
      .meta({ title: 'whole number, or `[height, width]`' })
      .describe('What is resized to at a factor of 1: a longer side for `long_side`, height and width for `scale`.'),
    ratio: resizeFactors,
  })
  .refine(({ kind, base }) => Array.isArray(base) === (kind === 'scale'), {
    error: 'expected a base of [height, width] for the kind scale, and of one number for long_side',
  })
  .prefault({})
  .describe('How images are resized before they are cropped.')

const keys = {
  augseg: z
    .strictObject({
      sup_only_epoch: z.int().min(0).default(0).describe('So many epochs learn from labeled images alone at first.'),
      ema_decay: z
        .number()
        .min(0)
        .lt(1)
        .default(0.999)
        .describe('Share of itself that the teacher keeps in a step, at most; it grows towards it, from 0.'),
      threshold: z
        .number()
        .min(-1)
        .max(1)
        .default(0.95)
        .describe('Pseudo-labels need at least this confidence; below 0 all count.'),
      loss_weight: z.number().min(0).default(1).describe('Weight of the loss of the unlabeled images.'),
      extra_weak: z
        .boolean()
        .default(false)
        .describe("Whether the batch norms of the student see the unlabeled images' weak view as well."),
      cutmix_prob: z.number().min(0).max(1).default(1).describe('Probability that a batch is mixed.'),
      strong_num: z.int().min(1).max(11).default(3).describe('At most so many operations change a strong view.'),
      resize,
    })
    .prefault({})
    .describe('Settings of AugSeg.'),
}

export type AugSegSettings = z.infer<typeof keys.augseg>

/** Of padding: about the mean colour of ImageNet. */
const PADDING = [123, 116, 103] as const

function geometryOf({ kind, base, ratio: [from, to] }: AugSegSettings['resize']): Geometry {
  const common = { flipsFirst: true, padding: PADDING }
  if (kind === 'scale' && Array.isArray(base)) return { ...common, resize: { scale: [from, to], base } }
  const long = Number(base)
  return { ...common, resize: { longSide: [Math.trunc(from * long), Math.trunc(to * long)] } }
}

function layoutOf({ resize, strong_num: most }: AugSegSettings): BatchLayout {
  const geometry = geometryOf(resize)
  return [
    { ...labeledStream, geometry },
    {
      name: 'unlabeled',
      split: 'unlabeled',
      purpose: { order: PURPOSE.unlabeledOrder, sample: PURPOSE.unlabeledSample },
      geometry,
      fields: { img_u_w: { view: 'weak' }, img_u_s: { view: 'intensity', draw: 0, most } },
    },
  ]
}

const metrics: readonly MetricSpec[] = [
  { ...labeledMetric, curve: { chart: 'loss', label: 'labeled', color: 'blue' } },
  {
    name: 'loss_u',
    short: 'u',
    curve: { chart: 'loss', label: 'unlabeled', color: 'amber' },
    tensorboard: [['Loss u', 1]],
  },
  {
    name: 'mask_ratio',
    curve: { chart: 'mask', label: 'teacher', color: 'blue' },
    tensorboard: [['Mask ratio', 1]],
  },
  { name: 'confidence', tensorboard: [['Confidence', 1]] },
  { name: 'injected_ratio', tensorboard: [['Injected ratio', 1]] },
]

/** Learning rate of a step, which follows the polynomial from the first one on. */
export const augsegLearningRate = (base: number, iteration: number, iterations: number): number =>
  base * (1 - iteration / iterations) ** 0.9

/**
 * Share of itself that the teacher keeps behind a step: none through the first epoch of semi-supervised training, so that
 * it is a copy of the student, then as `meanTeacherDecay` has it behind the n-th step of that training, counted from 0.
 */
export function teacherDecay(
  iteration: number,
  iterationsPerEpoch: number,
  { sup_only_epoch: warmUp, ema_decay: most }: Pick<AugSegSettings, 'sup_only_epoch' | 'ema_decay'>,
): number {
  if (iteration < (warmUp + 1) * iterationsPerEpoch) return 0
  return meanTeacherDecay(iteration - warmUp * iterationsPerEpoch, most)
}

const WARM_UP = 'warm-up'
const SEMI_SUPERVISED = 'semi-supervised'

const mean = (x: Tensor): Tensor => scale(sum(x), 1 / (x.shape[0] ?? 1))

/**
 * AugSeg (arXiv 2212.04976): the pseudo-labels of a mean teacher for strong views of random intensity-based augmentations,
 * behind a CutMix that injects labeled images where the teacher is unsure. Its steps are those of the official code; the
 * network is the one of the other methods, which lacks what the official one has: dilations of 2, 4, 8 in its last stage, a
 * pooling that rounds up, and a bias of the low-level projection.
 */
export const augseg: Method<typeof keys> = {
  name: 'augseg',
  description: 'a mean teacher, random intensity augmentations and injected labels (arXiv 2212.04976)',
  keys,
  layout: ({ augseg: own }) => layoutOf(own),
  check({ augseg: own, batch_size: images }, fail) {
    if (own.sup_only_epoch > 0 && images < 2) {
      throw fail(
        'in the warm-up one image gives the batch norm of the pooled map one value per channel: use at least 2',
      )
    }
  },
  create(context) {
    const { settings, batch, size, labeled, unlabeled } = context
    const { augseg: own, seed, criterion, ignore_index: ignoreIndex } = settings
    if (labeled !== unlabeled) {
      throw new Error(
        `augseg mixes labeled with unlabeled images: a batch needs as many of each, not ${labeled} and ${unlabeled}`,
      )
    }
    const student = context.model(0, 'model')
    const teacher = context.model(1, 'teacher', student)
    const isWarmUp = (epoch: number): boolean => epoch < own.sup_only_epoch

    const labeledLoss = (scores: Tensor): Tensor =>
      scoped('labeled', () => supervisedLoss(scores, batch('mask_x'), criterion, ignoreIndex))

    function warmUpLosses(): Losses {
      const loss = labeledLoss(logits(student, normalizeImage(batch('img_x')), { training: true }))
      return { total: loss, metrics: { loss_x: loss } }
    }

    function semiSupervisedLosses(inputs: Tensors): Losses {
      const [x, weak] = [normalizeImage(batch('img_x')), normalizeImage(batch('img_u_w'))]
      const { confidence, label, ofImages } = scoped('pseudo-labels', () =>
        labelsWithConfidence(upsample(lowLogits(teacher, weak, { training: false }).detach(), size)),
      )
      const mixed = scoped('mixing', () => {
        const { mix, holdsLabels } = labelInjection(inputs, ofImages)
        const labels = { label: mix(label, batch('mask_x')), confidence: mix(confidence, 1) }
        return { image: normalizeImage(mix(batch('img_u_s'), batch('img_x'))), labels, holdsLabels }
      })
      const seen = own.extra_weak ? [x, weak, mixed.image] : [x, mixed.image]
      const low = lowLogits(student, concat(seen, 0), { training: true })
      const part = (i: number): Tensor => upsample(slice(low, 0, i * labeled, labeled), size)
      const lossX = labeledLoss(part(0))
      const { loss, ratio } = scoped('unlabeled', () =>
        thresholdedLoss(part(seen.length - 1), mixed.labels, { threshold: own.threshold, ignoreIndex }),
      )
      return {
        total: add(lossX, scale(loss, own.loss_weight)),
        metrics: {
          loss_x: lossX,
          loss_u: loss,
          mask_ratio: ratio,
          confidence: mean(ofImages),
          injected_ratio: mean(mixed.holdsLabels),
        },
        details: { confidence: ofImages },
      }
    }

    return {
      trained: [student],
      deployed: [
        { name: 'teacher', model: teacher },
        { name: 'student', model: student },
      ],
      phases: own.sup_only_epoch > 0 ? [WARM_UP, SEMI_SUPERVISED] : [SEMI_SUPERVISED],
      phase: ({ epoch }) => (isWarmUp(epoch) ? WARM_UP : SEMI_SUPERVISED),
      stores: { teacher: teacher.store },
      inputs: { ...mixingInputs(unlabeled, size), decay: spec([]) },
      metrics,
      learningRate: augsegLearningRate,
      losses: (inputs, phase) => (phase === WARM_UP ? warmUpLosses() : semiSupervisedLosses(inputs)),
      afterUpdate(inputs, skipped) {
        updateMeanTeacher(teacher.store.all(), student, get(inputs, 'decay'), skipped)
      },
      draw: ({ batchIndex }) => drawMixing(new Random(seed, batchIndex, PURPOSE.labelMixing), unlabeled, size),
      prepare({ iteration, iterationsPerEpoch }, draws) {
        const decay = Float32Array.of(teacherDecay(iteration, iterationsPerEpoch, own))
        return { inputs: { ...mixingValues(draws, size, own.cutmix_prob), decay } }
      },
    }
  },
}
