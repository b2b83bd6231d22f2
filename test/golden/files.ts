import { readFileSync } from 'node:fs'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, readSafetensors, toFloat32 } from '#dist/train/io/safetensors.js'

/** Parses a JSON file. Throws a UserError that names it. */
export function readJson<T>(path: string): T {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T
  } catch (error) {
    throw new UserError(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** Tensors of a file by name, whose absence is an error that names the file. */
export class TensorFile {
  readonly tensors: ReadonlyMap<string, FileTensor>

  constructor(private readonly path: string) {
    this.tensors = readSafetensors(path).tensors
  }

  has(name: string): boolean {
    return this.tensors.has(name)
  }

  get(name: string): FileTensor {
    const tensor = this.tensors.get(name)
    if (!tensor) throw new UserError(`${this.path} has no tensor '${name}'`)
    return tensor
  }

  bytes(name: string): Uint8Array {
    const { data } = this.get(name)
    if (!(data instanceof Uint8Array)) throw new UserError(`${this.path}: tensor '${name}' does not hold bytes`)
    return data
  }

  floats(name: string): Float32Array {
    return toFloat32(this.get(name))
  }
}

/** [N, C, ...] → [N, ..., C], for bytes or floats. */
export function channelsLast<T extends Uint8Array | Float32Array>(data: T, shape: readonly number[]): T {
  const [n = 1, channels = 1, ...rest] = shape
  const pixels = rest.reduce((product, extent) => product * extent, 1)
  const result = data.slice() as T
  for (let image = 0; image < n; image++) {
    const start = image * channels * pixels
    for (let c = 0; c < channels; c++) {
      for (let p = 0; p < pixels; p++) result[start + p * channels + c] = data[start + c * pixels + p] ?? 0
    }
  }
  return result
}
