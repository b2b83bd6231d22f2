import { elements, type Shape, type Spec, showShape } from '../engine/shape.js'

/**
 * How an operand that broadcasts is indexed at one element of an iteration space `[..., C]`, which kernels walk as
 * rows (all axes but the last) of channels (the last axis).
 */
export type View = 'full' | 'scalar' | 'channel' | 'row' | 'sample' | 'sampleChannel'

/** The view of a shape in an iteration space. Throws for a pattern of broadcasting that kernels do not index. */
export function viewIn(space: Shape, shape: Shape): View {
  const count = elements(shape)
  // One of them may have unit axes in front; with equal extents else, the elements correspond.
  if (count === elements(space) && sameWithoutLeadingOnes(shape, space)) return 'full'
  if (count === 1) return 'scalar'
  const rank = space.length
  const aligned = [...Array(Math.max(0, rank - shape.length)).fill(1), ...shape]
  const matches = (axes: (axis: number) => boolean) =>
    aligned.length === rank && aligned.every((extent, axis) => extent === (axes(axis) ? space[axis] : 1))
  if (matches((axis) => axis === rank - 1)) return 'channel'
  if (matches((axis) => axis !== rank - 1)) return 'row'
  if (matches((axis) => axis === 0)) return 'sample'
  if (matches((axis) => axis === 0 || axis === rank - 1)) return 'sampleChannel'
  throw new Error(`no kernel broadcasts ${showShape(shape)} to ${showShape(space)}`)
}

function sameWithoutLeadingOnes(a: Shape, b: Shape): boolean {
  const strip = (shape: Shape) => {
    const first = shape.findIndex((extent) => extent !== 1)
    return first < 0 ? [] : shape.slice(first)
  }
  return String(strip(a)) === String(strip(b))
}

/** WGSL of the index of an operand, given variables `i` (element), `row`, `c` (channel) and the uniforms `u`. */
export const indexIn: Record<View, string> = {
  full: 'i',
  scalar: '0u',
  channel: 'c',
  row: 'row',
  sample: '(row / u.rows_per_sample)',
  sampleChannel: '((row / u.rows_per_sample) * u.channels + c)',
}

/** Rows, channels and rows per sample of an iteration space; the first axis is the sample's. */
export function extentsOf(space: Shape): { rows: number; channels: number; rowsPerSample: number } {
  const channels = space.at(-1) ?? 1
  const rows = elements(space) / Math.max(1, channels)
  return { rows, channels, rowsPerSample: Math.max(1, rows / Math.max(1, space.length > 1 ? (space[0] ?? 1) : 1)) }
}

/** WGSL that loads an element of any type as float32. */
export const loadAsFloat = ({ dtype }: Spec, name: string, index: string): string => {
  if (dtype === 'f32') return `${name}[${index}]`
  return dtype !== 'u8' ? `f32(${name}[${index}])` : `f32((${name}[${index} >> 2u] >> ((${index} & 3u) * 8u)) & 0xffu)`
}

/** WGSL type of a storage array's elements. */
export const storedType = ({ dtype }: Spec): 'f32' | 'f16' | 'u32' => (dtype === 'u8' ? 'u32' : dtype)

/** WGSL of the parts of a pack, by which a formula is computed element by element. */
export const partsOf: Record<1 | 4, readonly string[]> = { 1: [''], 4: ['.x', '.y', '.z', '.w'] }

/** Whether consecutive elements along the last axis are also consecutive in an operand. */
const isAlongChannels = (view: View): boolean => view === 'full' || view === 'channel' || view === 'sampleChannel'

/** WGSL type of a pack of a tensor's elements. */
export const packType = (source: Spec, pack: 1 | 4): string =>
  pack === 1 ? storedType(source) : `vec4<${storedType(source)}>`

/** WGSL type of a storage array that is read in packs of consecutive elements. */
export function storedPack(source: Spec, view: View, pack: 1 | 4): string {
  // Four bytes are one word.
  return source.dtype === 'u8' || !isAlongChannels(view) ? storedType(source) : packType(source, pack)
}

/** WGSL that loads a pack of elements of any type as float32; `i`, `c` and the uniforms count packs, `row` rows. */
export function loadPack(source: Spec, name: string, view: View, pack: 1 | 4): string {
  const index = indexIn[view]
  if (pack === 1) return loadAsFloat(source, name, index)
  if (!isAlongChannels(view)) return `vec4f(${loadAsFloat(source, name, index)})`
  if (source.dtype === 'u8') return `vec4f(unpack4xU8(${name}[${index}]))`
  return source.dtype === 'f32' ? `${name}[${index}]` : `vec4f(${name}[${index}])`
}
