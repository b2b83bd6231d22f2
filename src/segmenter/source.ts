import { digestOf, withFile } from '#files'
import { describeCheckpoint, type LoadedModel } from '../train/checkpoint/loaded-model.js'
import { parseCheckpoint } from '../train/checkpoint/parse.js'
import { type ByteSource, sourceOf } from '../train/io/byte-source.js'

/** What is used of a `Blob`, or of a `File`, whose name messages give then. */
export interface BlobLike {
  readonly name?: unknown
  arrayBuffer(): Promise<ArrayBuffer>
}

/** A checkpoint, safetensors or what torch.save wrote: its path (in Node alone), its bytes, or a `Blob`. */
export type CheckpointSource = string | Uint8Array | ArrayBuffer | BlobLike

const unnamed = 'the checkpoint'

/** @throws UserError that names the source and what is wrong with it */
export async function readSource(source: CheckpointSource): Promise<LoadedModel> {
  if (typeof source === 'string') return withFile(source, describe)
  if (source instanceof Uint8Array) return describe(sourceOf(source, unnamed))
  if ('arrayBuffer' in source) {
    const name = typeof source.name === 'string' && source.name !== '' ? source.name : unnamed
    return describe(sourceOf(new Uint8Array(await source.arrayBuffer()), name))
  }
  return describe(sourceOf(new Uint8Array(source), unnamed))
}

const describe = (source: ByteSource): LoadedModel => describeCheckpoint(parseCheckpoint(source, digestOf), source.name)
