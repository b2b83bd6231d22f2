import type { DeepLabV3Plus } from '../models/deeplabv3plus.js'
import { stateDict } from '../models/weights.js'
import { readSafetensors, writeSafetensors } from './safetensors.js'
import { loadWeights } from './state.js'

/** What a checkpoint says of itself besides its tensors. */
export interface CheckpointInfo {
  /** Epochs done. */
  readonly epoch: number
  /** Steps done. */
  readonly iteration: number
  /** Mean IoU in percent on the validation list after this epoch, and the best one so far. */
  readonly miou: number
  readonly bestMiou: number
}

/** Writes weights and running statistics under their PyTorch names; the file is complete or absent. */
export async function saveCheckpoint(path: string, model: DeepLabV3Plus, info: CheckpointInfo): Promise<void> {
  const metadata = Object.fromEntries(Object.entries(info).map(([key, value]) => [key, String(value)]))
  writeSafetensors(path, await stateDict(model), { ...metadata, model: JSON.stringify(model.config) })
}

/** Gives a model the weights of a checkpoint. Throws a UserError where they do not fit. */
export function loadCheckpoint(path: string, model: DeepLabV3Plus): void {
  loadWeights(model, readSafetensors(path).tensors, path)
}
