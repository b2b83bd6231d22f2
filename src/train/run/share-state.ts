import type { Store } from '../../engine/store.js'
import type { ProcessGroup } from '../distributed/group.js'
import type { Trainer } from '../trainer/trainer.js'
import { addSnapshot, hostStateOf, restoreHostState } from '../trainer/trainer-state.js'

/** Gives the trainers of all ranks the state of rank 0's: weights, statistics, momentum buffers, stores and snapshots. */
export async function shareState(group: ProcessGroup, trainer: Trainer): Promise<void> {
  if (group.size === 1) return
  const { run, models, iteration } = trainer
  const own = { iteration, snapshots: run.snapshots?.names ?? [], host: await hostStateOf(trainer) }
  const [first = own] = await group.gatherValues(own)
  if (group.rank > 0) {
    for (const name of first.snapshots) addSnapshot(trainer, name)
    restoreHostState(trainer, first.iteration, first.host)
  }
  const ofMethod = trainer.savedStores.map(({ store }) => store)
  const snapshots = first.snapshots.flatMap((_, i) => run.snapshots?.at(i) ?? [])
  for (const store of new Set([...models.map(({ store }) => store), ...ofMethod, ...snapshots])) {
    await shareStore(group, store)
  }
}

async function shareStore(group: ProcessGroup, store: Store): Promise<void> {
  for (const [name, data] of await store.readAll()) {
    await group.broadcast(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    if (group.rank > 0) store.write(name, data)
  }
}
