/**
 * Element types. `u8` tensors are inputs only: bytes packed four to a 32-bit word, as images and label maps arrive. `f16`
 * is for storage on adapters that have `shader-f16`; kernels compute in f32.
 */
export type DType = 'f32' | 'f16' | 'u32' | 'u8'

/** Whether values of a type are floating point. */
export const isFloat = ({ dtype }: { readonly dtype: DType }): boolean => dtype === 'f32' || dtype === 'f16'

export type Shape = readonly number[]

/** Shape and element type of a tensor. */
export interface Spec {
  readonly shape: Shape
  readonly dtype: DType
}

/** The typed arrays in which tensors enter and leave the engine, by element type. */
export interface DataOf {
  f32: Float32Array
  /** The bits of each element. */
  f16: Uint16Array
  u32: Uint32Array
  u8: Uint8Array
}
export type Data = DataOf[DType]

export const spec = (shape: Shape, dtype: DType = 'f32'): Spec => ({ shape, dtype })

/** The same tensor with so many samples along its first axis. */
export const withSamples = ({ shape, dtype }: Spec, samples: number): Spec => spec([samples, ...shape.slice(1)], dtype)

/** Number of elements of a shape; 1 for a scalar `[]`. */
export const elements = (shape: Shape): number => shape.reduce((product, extent) => product * extent, 1)

const bytesPerElement: Record<DType, number> = { f32: 4, f16: 2, u32: 4, u8: 1 }

/** Bytes of the elements alone. */
export const dataBytes = ({ shape, dtype }: Spec): number => elements(shape) * bytesPerElement[dtype]

/** Bytes of storage: whole 32-bit words, since WebGPU copies nothing smaller. */
export const byteLength = (spec: Spec): number => Math.max(4, Math.ceil(dataBytes(spec) / 4) * 4)

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((v, i) => v === b[i])

export const showShape = (shape: Shape): string => `[${shape.join(', ')}]`

export const showSpec = ({ shape, dtype }: Spec): string => `${dtype}${showShape(shape)}`

/** A typed array of `count` zeros for an element type. */
export function zeros<D extends DType>(dtype: D, count: number): DataOf[D]
export function zeros(dtype: DType, count: number): Data {
  if (dtype === 'f32') return new Float32Array(count)
  if (dtype === 'f16') return new Uint16Array(count)
  return dtype === 'u32' ? new Uint32Array(count) : new Uint8Array(count)
}

/**
 * The common shape of tensors that broadcast as in NumPy: aligned at the last axis, extents equal or 1.
 * Returns undefined where they do not fit.
 */
export function broadcastShapes(shapes: readonly Shape[]): Shape | undefined {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length))
  const result: number[] = Array(rank).fill(1)
  for (const shape of shapes) {
    const offset = rank - shape.length
    for (const [axis, extent] of shape.entries()) {
      if (extent === 1) continue
      const known = result[offset + axis]
      if (known !== 1 && known !== extent) return undefined
      result[offset + axis] = extent
    }
  }
  return result
}
