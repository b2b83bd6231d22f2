import { z } from 'zod'
import { scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { spec } from '../../engine/shape.js'
import { cutmix, normalizeImage } from '../../kernels/images.js'
import { confidenceWeightedLoss, confidentRatio, crossEntropy } from '../../kernels/loss.js'
import { concat, slice } from '../../kernels/movement.js'
import { add, scale, toU32 } from '../../kernels/pointwise.js'
import { logits, lowLogits, perturbed, upsample } from '../../models/segmentation.js'
import { ComplementaryDropout } from './complementary-dropout.js'
import { pseudoLabels, supervisedLoss } from './losses.js'
import { meanTeacherDecay, updateMeanTeacher } from './mean-teacher.js'
import { get, type Method, type MetricSpec } from './method.js'
import { labeledMetric, labeledStream } from './supervised.js'
import { unlabeledStream } from './unimatch.js'

const keys = {
  unimatch_v2: z
    .strictObject({
      ema_decay: z
        .number()
        .min(0)
        .lt(1)
        .default(0.996)
        .describe('Share of itself that the teacher keeps in a step, at most; it grows towards it, from 0.'),
    })
    .prefault({})
    .describe('Settings of UniMatch V2.'),
}

const metrics: readonly MetricSpec[] = [
  { ...labeledMetric, curve: { chart: 'loss', label: 'labeled', color: 'blue' } },
  { name: 'loss_s', tensorboard: [['Loss s', 1]] },
  { name: 'loss_s1', short: 's1', curve: { chart: 'loss', label: 'strong 1', color: 'amber' } },
  { name: 'loss_s2', short: 's2', curve: { chart: 'loss', label: 'strong 2', color: 'red' } },
  {
    name: 'mask_ratio',
    curve: { chart: 'mask', label: 'teacher', color: 'blue' },
    tensorboard: [['Mask ratio', 1]],
  },
]

/** A batch in reverse order: floats or u32 [N, ...]. */
export function reversed(x: Tensor): Tensor {
  const last = (x.shape[0] ?? 1) - 1
  return concat(
    Array.from({ length: last + 1 }, (_, i) => slice(x, 0, last - i, 1)),
    0,
  )
}

/** CutMix within a batch: in its box, each image, map or mask gets what the one as far from the end has there. */
export const mixReversed = (x: Tensor, box: Tensor): Tensor => cutmix(x, reversed(x), box)

/**
 * UniMatch V2 (arXiv 2410.10777): the labels of a mean teacher for two strong views of the unlabeled images, mixed within
 * the batch, each of which sees one half of the channels of the features. Its steps are those of the official code.
 */
export const unimatchV2: Method<typeof keys> = {
  name: 'unimatch-v2',
  description: 'a mean teacher and two strong views that share the channels of the features (arXiv 2410.10777)',
  keys,
  layout: () => [labeledStream, unlabeledStream],
  create(context) {
    const { settings, batch, size, unlabeled } = context
    const { unimatch_v2: own, seed, criterion, ignore_index: ignoreIndex, conf_thresh: threshold } = settings
    const student = context.model(0, 'model')
    const teacher = context.model(1, 'teacher', student)
    const dropout = new ComplementaryDropout(seed, student, unlabeled)
    const image = (field: string): Tensor => normalizeImage(batch(field))
    const training = { training: true }
    // A locked encoder is the teacher's own.
    const averaged = teacher.store
      .all()
      .filter(({ name }) => settings.lock_backbone !== true || !name.startsWith('backbone.'))

    return {
      trained: [student],
      deployed: [
        { name: 'student', model: student },
        { name: 'teacher', model: teacher },
      ],
      rivals: true,
      stores: { teacher: teacher.store },
      inputs: { ...dropout.inputs, decay: spec([]) },
      metrics,
      losses(inputs) {
        const labels = scoped('pseudo-labels', () =>
          pseudoLabels(lowLogits(teacher, image('img_u_w'), { training: false }), size),
        )
        const ignore = toU32(batch('ignore_mask'))
        const boxes = [batch('cutmix_box1'), batch('cutmix_box2')] as const

        const lossX = scoped('labeled', () =>
          supervisedLoss(logits(student, image('img_x'), training), batch('mask_x'), criterion, ignoreIndex),
        )
        const views = boxes.map((box, view) => mixReversed(image(`img_u_s${view + 1}`), box))
        const features = student.features(concat(views, 0), training)
        const low = student.decode(perturbed(student, features, dropout.multipliers(inputs)), training)
        const [lossS1, lossS2] = boxes.map((box, view) =>
          scoped(`strong ${view + 1}`, () => {
            const scores = upsample(slice(low, 0, view * unlabeled, unlabeled), size)
            const loss = crossEntropy(scores, mixReversed(labels.label, box))
            const options = { threshold, mode: 'pixelwise', empty: 'zero' } as const
            return confidenceWeightedLoss(loss, mixReversed(labels.confidence, box), mixReversed(ignore, box), options)
          }),
        ) as [Tensor, Tensor]
        const lossS = scale(add(lossS1, lossS2), 0.5)
        const ratio = confidentRatio(labels.confidence, ignore, threshold, { empty: 'zero' })
        return {
          total: scale(add(lossX, lossS), 0.5),
          metrics: { loss_x: lossX, loss_s: lossS, loss_s1: lossS1, loss_s2: lossS2, mask_ratio: ratio },
        }
      },
      afterUpdate(inputs, skipped) {
        updateMeanTeacher(averaged, student, get(inputs, 'decay'), skipped)
      },
      draw: ({ batchIndex }) => dropout.draw(batchIndex),
      prepare({ iteration }, draws) {
        const decay = Float32Array.of(meanTeacherDecay(iteration, own.ema_decay))
        return { inputs: { ...dropout.values(draws), decay } }
      },
    }
  },
}
