import { torchPermutation } from './torch-permutation.js'

/** Which of the ranks, and of how many. */
export interface RankOf {
  readonly rank: number
  readonly size: number
}

/**
 * The places of a list of `length` that a rank takes in an epoch, in their order, as PyTorch's `DistributedSampler` deals them
 * out: a permutation that is the same for all lists of this length, continued from its start until all ranks have equally
 * many.
 */
export function distributedOrder(length: number, epoch: number, { rank, size }: RankOf): Uint32Array {
  const order = torchPermutation(length, epoch)
  const each = samplesPerRank(length, size)
  return Uint32Array.from({ length: each }, (_, i) => order[(rank + i * size) % length] as number)
}

/** So many places each rank takes in an epoch. */
export const samplesPerRank = (length: number, size: number): number => Math.ceil(length / size)

/**
 * The places of a validation list that a rank scores. Each once, so that some ranks may have one less; or, `padded`, as the
 * sampler deals them out, so that the scores count those that fill up the last round twice.
 */
export function validationPlaces(length: number, padded: boolean, of: RankOf): number[] {
  const places = [...distributedOrder(length, 0, of)]
  const own = Math.ceil((length - of.rank) / of.size)
  return padded ? places : places.slice(0, Math.max(0, own))
}
