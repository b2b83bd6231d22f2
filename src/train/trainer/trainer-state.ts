import type { Data } from '../../engine/shape.js'
import { Store } from '../../engine/store.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { type LossScaleState, withinLimit } from './loss-scale.js'
import type { Trainer } from './trainer.js'

/** What a trainer keeps on the host beside the number of its steps, as JSON holds it and as checkpoints name it. */
export interface HostState {
  /** Steps that changed weights, where the optimizer counts them. */
  readonly updates?: number
  /** Batches that batch norms have seen in training mode, by the models' labels. */
  readonly batchesTracked?: Readonly<Record<string, Readonly<Record<string, number>>>>
  /** In half precision. */
  readonly lossScale?: LossScaleState
  /** What the method keeps. */
  readonly methodState?: unknown
}

/** @param models those whose counters are wanted */
export async function hostStateOf(
  trainer: Trainer,
  models: readonly SegmentationModel[] = trainer.models,
): Promise<HostState> {
  const lossScale = await trainer.lossScale?.state()
  const methodState = trainer.run.state?.()
  const counters = models.map(({ store, batchesTracked }) => [store.label, Object.fromEntries(batchesTracked)] as const)
  return {
    ...(Object.keys(trainer.optimizer.inputs).length > 0 ? { updates: trainer.updates } : {}),
    ...(models.length > 0 ? { batchesTracked: Object.fromEntries(counters) } : {}),
    ...(lossScale ? { lossScale } : {}),
    ...(methodState === undefined ? {} : { methodState }),
  }
}

/** Lets a trainer go on behind `iteration` steps of another one. */
export function restoreHostState(trainer: Trainer, iteration: number, state: HostState): void {
  for (const { store, batchesTracked } of trainer.models) {
    for (const [counter, batches] of Object.entries(state.batchesTracked?.[store.label] ?? {})) {
      if (batchesTracked.has(counter)) batchesTracked.set(counter, batches)
    }
  }
  if (state.lossScale) trainer.lossScale?.restore(withinLimit(state.lossScale))
  if (state.methodState !== undefined) trainer.run.restore?.(state.methodState)
  trainer.iteration = iteration
  trainer.updates = state.updates ?? iteration
}

/** Adds a snapshot of the method's, with the variables of the first model, whose values `fill` gives. */
export function addSnapshot({ model, run }: Trainer, name: string, fill: (store: Store) => void = () => {}): void {
  const store = new Store(model.store.device, name)
  try {
    for (const variable of model.store.all()) store.declare(variable.name, variable.spec)
    fill(store)
    run.snapshots?.push(store, name)
  } finally {
    store.destroy()
  }
}

type Values = ReadonlyMap<string, Data>

/** All that a training needs to go on elsewhere, in memory of the host. */
export interface TrainerCopy {
  readonly iteration: number
  readonly host: HostState
  /** Values of the first model, and of the stores that a checkpoint holds, in their order. */
  readonly stores: readonly Values[]
  readonly snapshots: readonly { readonly name: string; readonly values: Values }[]
}

/** Copies a training to the host, between two steps. */
export async function copyTrainer(trainer: Trainer): Promise<TrainerCopy> {
  const stores: Values[] = []
  for (const store of storesOf(trainer)) stores.push(await store.readAll())
  const { snapshots: list } = trainer.run
  const snapshots: { name: string; values: Values }[] = []
  for (const [i, name] of (list?.names ?? []).entries()) {
    if (list) snapshots.push({ name, values: await list.at(i).readAll() })
  }
  return { iteration: trainer.iteration, host: await hostStateOf(trainer), stores, snapshots }
}

/**
 * Lets a trainer that has done no step go on where another one was copied, which had the same settings: the steps that follow
 * have the same bits on the same adapter.
 * @throws Error where the copy is of other models
 */
export function restoreTrainer(trainer: Trainer, copy: TrainerCopy): void {
  for (const [i, store] of storesOf(trainer).entries()) fillStore(store, copy.stores[i])
  for (const { name, values } of copy.snapshots) addSnapshot(trainer, name, (store) => fillStore(store, values))
  restoreHostState(trainer, copy.iteration, copy.host)
}

const storesOf = ({ model, savedStores }: Trainer): Store[] => [model.store, ...savedStores.map(({ store }) => store)]

function fillStore(store: Store, values: Values | undefined): void {
  for (const { name } of store.all()) {
    const value = values?.get(name)
    if (!value) throw new Error(`the copy of a training has no '${name}' of ${store.label}: it is of other settings`)
    store.write(name, value)
  }
}
