/** The elements with the axes in another order. */
export function permuted(
  data: ArrayLike<number>,
  shape: readonly number[],
  order: readonly number[],
): Float32Array<ArrayBuffer> {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1))
  const extents = order.map((axis) => shape[axis] ?? 1)
  const steps = order.map((axis) => strides[axis] ?? 1)
  const result = new Float32Array(data.length)
  const place = extents.map(() => 0)
  let from = 0
  for (let to = 0; to < result.length; to++) {
    result[to] = data[from] ?? 0
    for (let axis = place.length - 1; axis >= 0; axis--) {
      from += steps[axis] ?? 0
      place[axis] = (place[axis] ?? 0) + 1
      if ((place[axis] ?? 0) < (extents[axis] ?? 1)) break
      from -= (steps[axis] ?? 0) * (extents[axis] ?? 1)
      place[axis] = 0
    }
  }
  return result
}
