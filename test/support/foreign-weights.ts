// Weights of a model as other programs save them.
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { type StateTensor, stateDict } from '#dist/models/weights.js'
import { loadBackbone } from '#dist/train/checkpoint/read.js'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, writeSafetensors } from '#dist/train/io/safetensors.js'
import { Random } from '#dist/train/random.js'
import { messageOf } from './messages.js'

export type Entry = readonly [string, FileTensor]
export type State = ReadonlyMap<string, StateTensor>
/** What a tensor behind `backbone.` is elsewhere. */
export type Names = (rest: string, tensor: FileTensor) => Entry[]

/** The state_dict of a model with all values drawn, those that are constants at first as well. */
export async function drawnState(model: SegmentationModel, seed: number): Promise<State> {
  const random = new Random(seed, 1)
  const state = await stateDict(model)
  for (const { dtype, data } of state.values()) {
    if (dtype === 'F32') for (const i of data.keys()) data[i] = random.uniform()
  }
  return state
}

/** Rows of a tensor. */
export function rows({ shape, data }: FileTensor, start: number, end: number): FileTensor {
  const [all = 1, ...rest] = shape
  const pitch = data.length / all
  return { dtype: 'F32', shape: [end - start, ...rest], data: (data as Float32Array).slice(start * pitch, end * pitch) }
}

export const backboneOf = (state: State, names: Names, prefix = ''): Entry[] =>
  [...state].flatMap(([name, tensor]) =>
    name.startsWith('backbone.')
      ? names(name.slice('backbone.'.length), tensor).map(([theirs, part]): Entry => [prefix + theirs, part])
      : [],
  )

/** Writes tensors into a folder; says where. */
export const writerInto =
  (folder: string) =>
  (tensors: Iterable<Entry>): string => {
    const path = join(folder, 'weights.safetensors')
    writeSafetensors(path, tensors)
    return path
  }

/** Loads a backbone, and asserts that it is that of the state, and the head the one that was there. */
export async function loadsBackbone(model: SegmentationModel, path: string, state: State): Promise<void> {
  const before = await stateDict(model)
  loadBackbone(model, path)
  for (const [name, { data }] of await stateDict(model)) {
    const expected = (name.startsWith('backbone.') ? state : before).get(name)?.data
    assert.equal(data, expected, name)
  }
}

/** The message, of one line, by which something is refused. */
export async function refusal(body: () => unknown): Promise<string> {
  const message = await messageOf(body, UserError)
  assert.not.match(message, /\n/)
  return message
}
