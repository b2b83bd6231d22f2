import { scoped } from '../../engine/graph.js'
import { normalizeImage } from '../../kernels/images.js'
import { logits } from '../../models/segmentation.js'
import type { StreamSpec } from '../data/batch.js'
import { PURPOSE } from '../random.js'
import { supervisedLoss } from './losses.js'
import type { Method, MetricSpec } from './method.js'

/** The labeled images of a step, weakly augmented. */
export const labeledStream: StreamSpec = {
  name: 'labeled',
  split: 'labeled',
  purpose: { order: PURPOSE.labeledOrder, sample: PURPOSE.labeledSample },
  fields: { img_x: { view: 'weak' }, mask_x: { view: 'label' } },
}

/** The loss of the labeled images. */
export const labeledMetric: MetricSpec = { name: 'loss_x', short: 'x', tensorboard: [['Loss x', 1]] }

/** The labeled loss alone, which is also the total one: the baseline that the semi-supervised methods are held against. */
export const supervised: Method<Record<never, never>> = {
  name: 'supervised',
  description: 'the labeled images alone',
  keys: {},
  layout: () => [labeledStream],
  check({ batch_size: images }, fail) {
    if (images < 2) {
      throw fail('one image gives the batch norm of the pooled map one value per channel: use at least 2')
    }
  },
  create({ settings, model: modelOf, batch }) {
    const model = modelOf(0, 'model')
    const { criterion, ignore_index: ignoreIndex } = settings
    return {
      trained: [model],
      deployed: [{ name: 'model', model }],
      metrics: [labeledMetric],
      losses() {
        const scores = logits(model, normalizeImage(batch('img_x')), { training: true })
        const loss = scoped('labeled', () => supervisedLoss(scores, batch('mask_x'), criterion, ignoreIndex))
        return { total: loss, metrics: { loss_x: loss } }
      },
      // As logs always had it: the weight of previous models.
      prepare: () => ({ inputs: {}, values: { lambda: 0 } }),
    }
  },
}
