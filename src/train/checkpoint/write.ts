import { elements } from '../../engine/shape.js'
import type { Store } from '../../engine/store.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { fromTorchLayout } from '../../models/weights.js'
import { DamagedFileError, UserError } from '../error.js'
import type { WriteOptions } from '../io/files.js'
import { readSafetensors, toFloat32, writeSafetensors } from '../io/safetensors.js'
import { momentumPrefix, type SavedStore } from '../trainer/saved-store.js'
import { type CheckpointInfo, contentsOf, tensorsOf } from './contents.js'
import { type Checkpoint, loadWeights } from './parse.js'
import { readCheckpoint } from './read.js'

/** Gives the variables of a store the values of a file. Throws a UserError where one is missing or of another size. */
function fill(store: Store, tensors: Checkpoint['tensors'], origin: string, prefix = ''): void {
  for (const { name, spec } of store.all()) {
    const tensor = tensors.get(prefix + name)
    const size = elements(spec.shape)
    if (!tensor || tensor.data.length !== size) {
      throw new UserError(
        `${origin}: tensor '${prefix}${name}' is missing or of another size: it is no checkpoint of this run`,
      )
    }
    store.write(name, fromTorchLayout(spec.shape, toFloat32(tensor)))
  }
}

/** A file that is ready to be written. */
export interface PreparedFile {
  /** @throws WriteError if it cannot be written; a previous file is then untouched, and another attempt may follow */
  write(path: string, options?: WriteOptions): void
}

/**
 * Reads weights and running statistics from the device, for a file with their PyTorch names and the model's widths.
 * @param stores also written, for a training to be resumed
 */
export async function prepareCheckpoint(
  model: SegmentationModel,
  info: CheckpointInfo,
  stores: readonly SavedStore[] = [],
): Promise<PreparedFile> {
  const { tensors, metadata } = await contentsOf(model, info, stores)
  return { write: (path, options) => writeSafetensors(path, tensors, metadata, options) }
}

/** Gives a model the weights of a file of either format. Throws a UserError where they do not fit. */
export function loadCheckpoint(path: string, model: SegmentationModel): void {
  const { tensors, names } = readCheckpoint(path)
  loadWeights(model, tensors, path, names.nameInFile)
}

/** What `prepareCheckpoint` was told besides the tensors. Throws a UserError where it is not JSON. */
export function infoOf({ metadata }: Checkpoint, path: string): CheckpointInfo {
  try {
    return Object.fromEntries(Object.entries(metadata).map(([key, text]) => [key, JSON.parse(text) as unknown]))
  } catch {
    throw new UserError(`${path} was not written by a training: its metadata cannot be read`)
  }
}

/** Gives a model and the stores of a training the values of a checkpoint. Throws a UserError where they do not fit. */
export function loadTraining(
  checkpoint: Checkpoint,
  model: SegmentationModel,
  stores: readonly SavedStore[],
  path: string,
): void {
  loadWeights(model, checkpoint.tensors, path)
  for (const { prefix, store } of stores) {
    if (prefix === momentumPrefix) fill(store, checkpoint.momentumBuffers, path)
    else fill(store, checkpoint.further, path, prefix)
  }
}

/** Reads all variables of a store from the device, for a file. */
export async function prepareStore(store: Store): Promise<PreparedFile> {
  const tensors = await tensorsOf(store)
  return { write: (path, options) => writeSafetensors(path, tensors, {}, options) }
}

/**
 * Gives a store the values of a file that `prepareStore` made.
 * @throws DamagedFileError if it cannot be read or was changed
 */
export function loadStore(path: string, store: Store): void {
  const { tensors, verified } = readSafetensors(path)
  checkVerified(verified, path)
  fill(store, tensors, path)
}

/** @throws DamagedFileError for a file without a checksum */
export function checkVerified(verified: boolean, path: string): void {
  if (!verified) throw new DamagedFileError(`${path} carries no checksum: it is damaged, or of another program`)
}
