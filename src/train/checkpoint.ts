import type { Store } from '../engine/store.js'
import type { DeepLabV3Plus } from '../models/deeplabv3plus.js'
import { fromTorchLayout, stateDict, torchShape, toTorchLayout } from '../models/weights.js'
import { UserError } from './error.js'
import { type FileTensor, readSafetensors, toFloat32, writeSafetensors } from './safetensors.js'
import { type Checkpoint, loadWeights, momentumPrefix, readCheckpoint } from './state.js'

/** What a checkpoint says of itself besides its tensors; each key is JSON in the file's metadata. */
export type CheckpointInfo = Readonly<Record<string, unknown>>

const encode = (info: CheckpointInfo): Record<string, string> =>
  Object.fromEntries(Object.entries(info).map(([key, value]) => [key, JSON.stringify(value)]))

/** Variables of a store as PyTorch lays them out, under `prefix` and their names. */
async function tensorsOf(store: Store, prefix = ''): Promise<Map<string, FileTensor>> {
  const values = await store.readAll()
  return new Map(
    store.all().map(({ name, spec }): [string, FileTensor] => {
      const data = values.get(name)
      if (!(data instanceof Float32Array)) throw new Error(`variable '${name}' is not of floats`)
      return [prefix + name, { dtype: 'F32', shape: torchShape(spec.shape), data: toTorchLayout(spec.shape, data) }]
    }),
  )
}

/** Gives the variables of a store the values of a file. Throws a UserError where one is missing or of another size. */
function fill(store: Store, tensors: Checkpoint['tensors'], origin: string): void {
  for (const { name, spec } of store.all()) {
    const tensor = tensors.get(name)
    const size = spec.shape.reduce((a, b) => a * b, 1)
    if (!tensor || tensor.data.length !== size) {
      throw new UserError(`${origin}: tensor '${name}' is missing or of another size: it is no checkpoint of this run`)
    }
    store.write(name, fromTorchLayout(spec.shape, toFloat32(tensor)))
  }
}

/**
 * Writes weights and running statistics under their PyTorch names, with the model's widths; the file is complete or
 * absent.
 * @param velocities also written, for a training to go on from
 */
export async function saveCheckpoint(path: string, model: DeepLabV3Plus, info: CheckpointInfo, velocities?: Store) {
  const momenta = velocities ? await tensorsOf(velocities, momentumPrefix) : []
  writeSafetensors(path, [...(await stateDict(model)), ...momenta], encode({ ...info, model: model.config }))
}

/** Gives a model the weights of a file of either format. Throws a UserError where they do not fit. */
export const loadCheckpoint = (path: string, model: DeepLabV3Plus): void =>
  loadWeights(model, readCheckpoint(path).tensors, path)

/** What `saveCheckpoint` said besides the tensors. Throws a UserError where it is not JSON. */
export function infoOf({ metadata }: Checkpoint, path: string): CheckpointInfo {
  try {
    return Object.fromEntries(Object.entries(metadata).map(([key, text]) => [key, JSON.parse(text) as unknown]))
  } catch {
    throw new UserError(`${path} was not written by a training: its metadata cannot be read`)
  }
}

/** Gives a model and its momenta the values of a checkpoint. Throws a UserError where they do not fit. */
export function loadTraining(checkpoint: Checkpoint, model: DeepLabV3Plus, velocities: Store, path: string): void {
  loadWeights(model, checkpoint.tensors, path)
  fill(velocities, checkpoint.momenta, path)
}

/** Writes all variables of a store. */
export async function saveStore(path: string, store: Store): Promise<void> {
  writeSafetensors(path, await tensorsOf(store))
}

/** Gives a store the values that `saveStore` wrote. */
export const loadStore = (path: string, store: Store): void => fill(store, readSafetensors(path).tensors, path)
