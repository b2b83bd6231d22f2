import type { Store } from '../../engine/store.js'

/** What the names of the first model's momentum buffers begin with in a checkpoint. */
export const momentumPrefix = 'momentum/'

/** A store of a checkpoint, with what its names begin with there. */
export interface SavedStore {
  readonly prefix: string
  readonly store: Store
}
