import { backboneNames } from '../../models/index.js'
import { UserError } from '../error.js'
import { type FileTensor, toFloat32 } from '../io/safetensors-format.js'

type Tensors = ReadonlyMap<string, FileTensor>

/**
 * The tensors of a file, those that are parts of one here put together under the name of the first part, and matrices that
 * are convolutions here with their shape. Files of models with the layers of ours stay as they are.
 *
 * @throws UserError that names a part which is missing
 */
export function joinTensors(tensors: Tensors, path: string): Tensors {
  const names = [...tensors.keys()]
  const has = (landmark: string) => names.some((name) => name === landmark || name.endsWith(`.${landmark}`))
  const rules = backboneNames.filter(({ joined, convolutions }) => joined ?? convolutions)
  const found = rules.filter(({ landmark }) => has(landmark))
  if (found.length === 0) return tensors
  const joined = found.flatMap((rule) => rule.joined ?? [])
  const convolutions = found.flatMap((rule) => rule.convolutions ?? [])
  const result = new Map(tensors)
  for (const [first = '', ...others] of joined) {
    for (const name of names.filter((each) => each.includes(first))) {
      const parts = [name, ...others.map((other) => name.replace(first, other))]
      result.set(name, together(parts.map((part) => partOf(tensors, part, name, path))))
      for (const part of parts.slice(1)) result.delete(part)
    }
  }
  for (const [name, tensor] of result) {
    const { shape } = tensor
    if (shape.length !== 2 || !convolutions.some((end) => name.endsWith(end))) continue
    result.set(name, { ...tensor, shape: [...shape, 1, 1] })
  }
  return result
}

function partOf(tensors: Tensors, part: string, name: string, path: string): FileTensor {
  const tensor = tensors.get(part)
  if (tensor) return tensor
  throw new UserError(`${path}: it has ${name}, but lacks ${part}, which belongs with it: save the whole model again`)
}

/** One tensor after the other along the first axis. */
function together(parts: readonly FileTensor[]): FileTensor {
  const values = parts.map(toFloat32)
  const data = new Float32Array(values.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of values) {
    data.set(part, at)
    at += part.length
  }
  const rows = parts.reduce((sum, { shape: [extent = 1] }) => sum + extent, 0)
  return { dtype: 'F32', shape: [rows, ...(parts[0]?.shape.slice(1) ?? [])], data }
}
