/** A tensor in double precision, row-major. */
export interface Values {
  readonly shape: readonly number[]
  readonly data: Float64Array
}

export const count = (shape: readonly number[]): number => shape.reduce((product, extent) => product * extent, 1)

export const values = (shape: readonly number[], data: ArrayLike<number> = new Float64Array(count(shape))): Values => {
  if (data.length !== count(shape)) throw new RangeError(`${data.length} values do not fill [${shape}]`)
  return { shape, data: Float64Array.from(data) }
}

export const scalar = (value: number): Values => values([], [value])

/** Element `i` of `x.data`. */
export const get = (x: Values, i: number): number => {
  const value = x.data[i]
  if (value === undefined) throw new RangeError(`element ${i} of [${x.shape}]`)
  return value
}

/** Extents of a tensor of rank 4. */
export function extents4({ shape }: Values): [number, number, number, number] {
  const [n, h, w, c] = shape
  if (n === undefined || h === undefined || w === undefined || c === undefined || shape.length !== 4) {
    throw new RangeError(`[${shape}] is not of rank 4`)
  }
  return [n, h, w, c]
}

/** Rows (all axes but the last) and channels (the last axis). */
export function rowsAndChannels({ shape, data }: Values): [number, number] {
  const channels = shape.at(-1) ?? 1
  return [data.length / channels, channels]
}

/** The value of `x` at a place of a larger space, as NumPy broadcasts. */
export function broadcastAt(x: Values, space: readonly number[], flat: number): number {
  let rest = flat
  let index = 0
  let stride = 1
  for (let axis = space.length - 1; axis >= 0; axis--) {
    const extent = space[axis] ?? 1
    const place = rest % extent
    rest = (rest - place) / extent
    const own = axis - (space.length - x.shape.length)
    const ownExtent = own >= 0 ? (x.shape[own] ?? 1) : 1
    index += (ownExtent === 1 ? 0 : place) * stride
    stride *= ownExtent
  }
  return get(x, index)
}

export function commonSpace(tensors: readonly Values[]): number[] {
  const rank = Math.max(0, ...tensors.map(({ shape }) => shape.length))
  return Array.from({ length: rank }, (_, axis) =>
    Math.max(...tensors.map(({ shape }) => shape[axis - rank + shape.length] ?? 1)),
  )
}
