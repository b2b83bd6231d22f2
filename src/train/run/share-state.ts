import { Store } from '../../engine/store.js'
import type { ProcessGroup } from '../distributed/group.js'
import type { Trainer } from '../trainer/trainer.js'

/** Where a trainer stands on the host, as JSON keeps it. */
interface HostState {
  readonly iteration: number
  readonly updates: number
  readonly snapshots: readonly string[]
  readonly method: unknown
  /** By models, then by counters. */
  readonly batches: readonly (readonly (readonly [string, number])[])[]
}

/** Gives the trainers of all ranks the state of rank 0's: weights, statistics, momentum buffers, stores and snapshots. */
export async function shareState(group: ProcessGroup, trainer: Trainer): Promise<void> {
  if (group.size === 1) return
  const { run, models } = trainer
  const own: HostState = {
    iteration: trainer.iteration,
    updates: trainer.updates,
    snapshots: run.snapshots?.names ?? [],
    method: run.state?.(),
    batches: models.map(({ batchesTracked }) => [...batchesTracked]),
  }
  const [first = own] = await group.gatherValues(own)
  if (group.rank > 0) {
    trainer.iteration = first.iteration
    trainer.updates = first.updates
    for (const [i, counters] of first.batches.entries()) {
      for (const [name, count] of counters) models[i]?.batchesTracked.set(name, count)
    }
    for (const name of first.snapshots) addEmpty(trainer, name)
    if (first.method !== undefined && first.method !== null) run.restore?.(first.method)
  }
  const ofMethod = trainer.savedStores.map(({ store }) => store)
  const snapshots = first.snapshots.flatMap((_, i) => run.snapshots?.at(i) ?? [])
  const scaling = trainer.lossScale ? [trainer.lossScale.store] : []
  const stores = new Set([...models.map(({ store }) => store), ...ofMethod, ...snapshots, ...scaling])
  for (const store of stores) await shareStore(group, store)
}

function addEmpty({ model, run }: Trainer, name: string): void {
  const store = new Store(model.store.device, name)
  for (const variable of model.store.all()) store.declare(variable.name, variable.spec)
  run.snapshots?.push(store, name)
  store.destroy()
}

async function shareStore(group: ProcessGroup, store: Store): Promise<void> {
  for (const [name, data] of await store.readAll()) {
    await group.broadcast(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    if (group.rank > 0) store.write(name, data)
  }
}
