import type { Device } from '../../engine/device.js'
import { read } from '../../engine/graph.js'
import { Store } from '../../engine/store.js'
import { createModel, type ModelSpec } from '../../models/index.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { type BatchLayout, fieldSpec, imagesOf } from '../data/batch.js'
import type { MethodContext } from '../methods/method.js'
import { PURPOSE, Random } from '../random.js'
import type { TrainerOptions, TrainerSettings } from './options.js'
import type { TrainingPasses } from './training-passes.js'

/**
 * What a method works with.
 * @param first its model number 0
 * @param batch see `batchStore`
 * @param passes follows the models
 */
export function contextOf<S extends TrainerSettings>(
  first: SegmentationModel,
  settings: S,
  options: TrainerOptions,
  batch: Store,
  workspace: Store,
  passes: TrainingPasses,
): MethodContext<S> {
  const { labeled, unlabeled, height, width } = options
  const { device } = first.store
  return {
    ...{ settings, labeled, unlabeled, workspace },
    size: [height, width],
    model(index, label, origin) {
      const isFirst = index === 0 && (!origin || !('store' in origin))
      const { architecture, config } = first
      const other = origin ?? { architecture, config }
      const model = isFirst ? first : furtherModel(other, index, label, device, settings, options)
      return passes.follow(settings.lock_backbone ? withLockedBackbone(model) : model)
    },
    batch: (field) => read(batch.get(field)),
  }
}

/** The fields of a step's batch as variables. */
export function batchStore(device: Device, layout: BatchLayout, options: TrainerOptions): Store {
  const store = new Store(device, 'batch')
  for (const stream of layout) {
    const count = imagesOf(stream, options[stream.split])
    for (const [name, field] of Object.entries(stream.fields)) {
      store.declare(name, fieldSpec(field, count, options.height, options.width))
    }
  }
  return store
}

/** A model of which only the rest is trained: its backbone computes as in evaluation, and no gradient flows into it. */
const withLockedBackbone = (model: SegmentationModel): SegmentationModel => ({
  ...model,
  groups: model.groups.filter(({ name }) => name !== 'backbone'),
  features: (x) => model.features(x, { training: false }).map((map) => map.detach()),
})

/** A model beside the first one, see `MethodContext.model`. */
function furtherModel(
  { architecture, config, ...origin }: SegmentationModel | ModelSpec,
  index: number,
  label: string,
  device: Device,
  { seed }: TrainerSettings,
  { pretrain, planned = false }: TrainerOptions,
): SegmentationModel {
  const like = 'store' in origin && origin.store
  const random = like || planned ? undefined : new Random(seed, index, PURPOSE.initialization)
  const model = createModel(new Store(device, label), { architecture, config }, random)
  if (like) model.store.copyFrom(like)
  else pretrain?.(model, index)
  return model
}
