import { assign, read } from '#dist/engine/graph.js'
import { normalizeImage } from '#dist/kernels/images.js'
import { add, mul, scale, sum } from '#dist/kernels/pointwise.js'
import { logits, lowLogits } from '#dist/models/segmentation.js'
import { supervisedLoss } from '#dist/train/methods/losses.js'
import type { Method } from '#dist/train/methods/method.js'
import { labeledMetric, labeledStream } from '#dist/train/methods/supervised.js'

/** A mean teacher on the least that one takes: the student's logits of unlabeled images should have those of the teacher. */
export const toy: Method<Record<never, never>> = {
  name: 'toy',
  description: 'a mean teacher for tests',
  keys: {},
  layout: () => [
    labeledStream,
    {
      name: 'plain',
      split: 'unlabeled',
      purpose: { order: 100, sample: 101 },
      perStep: 2,
      fields: { plain: { view: 'weak' } },
    },
  ],
  create({ model, batch, settings }) {
    const student = model(0, 'model')
    const teacher = model(1, 'teacher', student)
    return {
      trained: [student],
      deployed: [
        { name: 'teacher', model: teacher },
        { name: 'student', model: student },
      ],
      stores: { teacher: teacher.store },
      metrics: [
        labeledMetric,
        {
          name: 'loss_toy',
          short: 'toy',
          curve: { chart: 'loss', label: 'toy', color: 'red' },
          tensorboard: [['Toy', 2]],
        },
      ],
      losses() {
        const scores = logits(student, normalizeImage(batch('img_x')), { training: true })
        const loss = supervisedLoss(scores, batch('mask_x'), settings.criterion, settings.ignore_index)
        const plain = normalizeImage(batch('plain'))
        const target = lowLogits(teacher, plain, { training: false }).detach()
        const difference = add(lowLogits(student, plain, { training: true }), scale(target, -1))
        const toy = scale(sum(mul(difference, difference)), 1e-4)
        return { total: add(loss, toy), metrics: { loss_x: loss, loss_toy: toy } }
      },
      afterUpdate() {
        for (const variable of teacher.store.all()) {
          const mean = add(scale(read(variable), 0.75), scale(read(student.store.get(variable.name)), 0.25))
          assign(variable, mean)
        }
      },
    }
  },
}
