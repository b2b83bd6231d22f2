import type { Device } from '../../engine/device.js'
import { read } from '../../engine/graph.js'
import { Store } from '../../engine/store.js'
import { createModel } from '../../models/index.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { type BatchLayout, fieldSpec, imagesOf } from '../data/batch.js'
import type { MethodContext } from '../methods/method.js'
import { PURPOSE, Random } from '../random.js'
import type { TrainerOptions, TrainerSettings } from './options.js'

/**
 * What a method works with.
 * @param first its model number 0
 * @param batch see `batchStore`
 */
export function contextOf<S extends TrainerSettings>(
  first: SegmentationModel,
  settings: S,
  options: TrainerOptions,
  batch: Store,
  workspace: Store,
): MethodContext<S> {
  const { labeled, unlabeled, height, width } = options
  return {
    ...{ settings, labeled, unlabeled, workspace },
    size: [height, width],
    model: (index, label, like) =>
      index === 0 && !like ? first : furtherModel(first, index, label, like, settings, options),
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

/** A model like the first one, with weights of its own or those of `like`. */
function furtherModel(
  { architecture, config, store }: SegmentationModel,
  index: number,
  label: string,
  like: SegmentationModel | undefined,
  { seed }: TrainerSettings,
  { pretrain }: TrainerOptions,
): SegmentationModel {
  const random = like ? undefined : new Random(seed, index, PURPOSE.initialization)
  const model = createModel(new Store(store.device, label), { architecture, config }, random)
  if (like) model.store.copyFrom(like.store)
  else pretrain?.(model)
  return model
}
