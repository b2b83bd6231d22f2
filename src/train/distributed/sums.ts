/** The next length that parts for so many ranks divide. */
export const packedLength = (length: number, size: number): number => Math.ceil(length / size) * size

/**
 * The sums over the ranks of what they gave, `given` one after the other, in the order of the ranks, divided by `divisor`.
 * They are added up in double precision and rounded once.
 */
export function addInOrder(given: Float32Array, size: number, divisor: number): Float32Array {
  const length = given.length / size
  const result = new Float32Array(length)
  if (size === 2) {
    for (let i = 0; i < length; i++) result[i] = ((given[i] as number) + (given[length + i] as number)) / divisor
    return result
  }
  for (let i = 0; i < length; i++) {
    let sum = 0
    for (let at = i; at < given.length; at += length) sum += given[at] as number
    result[i] = sum / divisor
  }
  return result
}
