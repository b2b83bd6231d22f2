import type { Store } from '../../engine/store.js'
import { defaultArchitecture, type ModelSpec } from '../../models/index.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { stateDict, torchShape, toTorchLayout } from '../../models/weights.js'
import type { FileTensor } from '../io/safetensors-format.js'
import type { SavedStore } from '../trainer/saved-store.js'

/** What a checkpoint says of itself besides its tensors; each key is JSON in the file's metadata. */
export type CheckpointInfo = Readonly<Record<string, unknown>>

/** As the metadata of a file. */
export const encode = (info: CheckpointInfo): Record<string, string> =>
  Object.fromEntries(Object.entries(info).map(([key, value]) => [key, JSON.stringify(value)]))

/** Variables of a store as PyTorch lays them out, under `prefix` and their names. */
export async function tensorsOf(store: Store, prefix = ''): Promise<Map<string, FileTensor>> {
  const values = await store.readAll()
  return new Map(
    store.all().map(({ name, spec }): [string, FileTensor] => {
      const data = values.get(name)
      if (!(data instanceof Float32Array)) throw new Error(`variable '${name}' is not of floats`)
      return [prefix + name, { dtype: 'F32', shape: torchShape(spec.shape), data: toTorchLayout(spec.shape, data) }]
    }),
  )
}

/** What a file says of its model. One that names no architecture is of the default one. */
export const metadataOf = ({ architecture, config }: ModelSpec): CheckpointInfo =>
  architecture === defaultArchitecture.name ? { model: config } : { architecture, model: config }

/** What a checkpoint holds. */
export interface Contents {
  readonly tensors: readonly (readonly [string, FileTensor])[]
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Reads weights and running statistics from the device, with their PyTorch names and the model's widths.
 * @param stores also read, for a training to be resumed
 */
export async function contentsOf(
  model: SegmentationModel,
  info: CheckpointInfo,
  stores: readonly SavedStore[] = [],
): Promise<Contents> {
  const tensors: [string, FileTensor][] = [...(await stateDict(model))]
  for (const { prefix, store } of stores) tensors.push(...(await tensorsOf(store, prefix)))
  return { tensors, metadata: encode({ ...info, ...metadataOf(model) }) }
}
