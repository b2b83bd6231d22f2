import type { Store } from '../../engine/store.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import type { Optimized, Optimizer } from './optimizer.js'

/** What the names of the first model's momentum buffers begin with in a checkpoint. */
export const momentumPrefix = 'momentum/'

/** A store of a checkpoint, with what its names begin with there. */
export interface SavedStore {
  readonly prefix: string
  readonly store: Store
}

/** A model that is trained. */
export interface Trained extends Optimized {
  readonly model: SegmentationModel
}

/**
 * What a checkpoint holds beside the first model: what the optimizer keeps, further models with the same, stores of the
 * method.
 */
export function storesOf(
  trained: readonly Trained[],
  { state: names }: Optimizer,
  ofMethod: Readonly<Record<string, Store>> = {},
): SavedStore[] {
  const models = trained.flatMap(({ model, state }, i): SavedStore[] => {
    const prefix = i === 0 ? '' : `models/${model.store.label}/`
    const ofOptimizer = state.map((store, k) => ({ prefix: `${prefix}${names[k]}/`, store }))
    return i === 0 ? ofOptimizer : [{ prefix, store: model.store }, ...ofOptimizer]
  })
  return [...models, ...Object.entries(ofMethod).map(([name, store]) => ({ prefix: `stores/${name}/`, store }))]
}
