import type { DeepLabV3Plus } from '../models/deeplabv3plus.js'
import { loadStateDict, type StateTensor } from '../models/weights.js'
import { UserError } from './error.js'
import { type FileTensor, readSafetensors, toFloat32 } from './safetensors.js'

/** Tensors of a file as a state_dict: counters as 64-bit integers, all else as float32. */
export function stateOfFile(tensors: Iterable<readonly [string, FileTensor]>): Map<string, StateTensor> {
  const state = new Map<string, StateTensor>()
  for (const [name, tensor] of tensors) {
    const { shape, data } = tensor
    if (data instanceof BigInt64Array) state.set(name, { dtype: 'I64', shape, data })
    else state.set(name, { dtype: 'F32', shape, data: toFloat32(tensor) })
  }
  return state
}

/**
 * Gives a model the weights of a file.
 * @param origin names the file in the error
 * @throws UserError that lists what is missing, unexpected or of another shape
 */
export function loadWeights(
  model: DeepLabV3Plus,
  tensors: Iterable<readonly [string, FileTensor]>,
  origin: string,
): void {
  try {
    loadStateDict(model, stateOfFile(tensors))
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new UserError(`${origin}: ${reason}: choose the configuration with which it was trained`)
  }
}

/**
 * Gives a model's backbone the weights of a safetensors file, whose names may lack the prefix `backbone.`.
 * @returns a line that says what was loaded
 * @throws UserError that lists what is missing, unexpected or of another shape
 */
export function loadBackbone(model: DeepLabV3Plus, path: string): string {
  const state = stateOfFile(readSafetensors(path).tensors)
  const prefix = [...state.keys()].some((name) => name.startsWith('backbone.')) ? '' : 'backbone.'
  // The classifier of the image classification that it was trained for has no place here.
  const kept = [...state].filter(([name]) => !/^(backbone\.)?fc\./.test(name))
  const named = new Map(kept.map(([name, tensor]): [string, StateTensor] => [prefix + name, tensor]))
  try {
    loadStateDict(model, named, 'backbone.')
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new UserError(`pretrained ${path}: ${reason}`)
  }
  return `backbone: weights of ${path}`
}
