import { createHash } from 'node:crypto'
import { type WriteOptions, withFile, writeAtomically } from './files.js'
import {
  type DigestOf,
  type FileTensor,
  parseSafetensors,
  type Safetensors,
  safetensorsParts,
} from './safetensors-format.js'

export { type Dtype, type FileTensor, type Safetensors, type TensorData, toFloat32 } from './safetensors-format.js'

/** By the system's library, which is several times as fast as `sha256`. */
export const digestOf: DigestOf = (parts) => {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest('hex')
}

/**
 * Reads a safetensors file as `parseSafetensors` does.
 * @throws DamagedFileError naming the file and what is wrong with it
 */
export const readSafetensors = (path: string): Safetensors =>
  withFile(path, (source) => parseSafetensors(source, digestOf))

/**
 * Writes a safetensors file with a checksum. It appears under its name only when complete, so a crash leaves the
 * previous file; see `writeAtomically`.
 * @throws WriteError if the file cannot be written; a previous file is then untouched
 */
export function writeSafetensors(
  path: string,
  tensors: Iterable<readonly [string, FileTensor]>,
  metadata: Record<string, string> = {},
  options: WriteOptions = {},
): void {
  writeAtomically(path, safetensorsParts(tensors, metadata, digestOf), options)
}
