import type { Tensor } from '../../engine/ir.js'
import { elements } from '../../engine/shape.js'
import { type Exchange, sumOverRanks } from '../../kernels/exchange.js'

/** Elements of a bucket: 25 MiB, as in PyTorch's DistributedDataParallel, and 1 MiB of the first one. */
const bucketSize = 25 * 2 ** 18
const firstBucketSize = 2 ** 18

/**
 * Means over the ranks, in the order of the tensors. They travel in buckets, which are filled in the order in which the
 * backward pass makes the gradients, so that each leaves as soon as its last one is there.
 * @param exchange the ranks; absent where this process trains alone: then they are the gradients themselves
 */
export function averageGradients(gradients: readonly Tensor[], exchange: Exchange | undefined): readonly Tensor[] {
  if (!exchange) return gradients
  const order = gradients.map((_, i) => i).sort((a, b) => idOf(gradients[a]) - idOf(gradients[b]) || a - b)
  const buckets: number[][] = []
  let [open, filled]: [number[], number] = [[], 0]
  for (const i of order) {
    open.push(i)
    filled += elements(gradients[i]?.shape ?? [])
    if (filled < (buckets.length === 0 ? firstBucketSize : bucketSize)) continue
    buckets.push(open)
    ;[open, filled] = [[], 0]
  }
  if (open.length > 0) buckets.push(open)
  const averaged = [...gradients]
  for (const bucket of buckets) {
    const given = bucket.flatMap((i) => gradients[i] ?? [])
    for (const [k, mean] of sumOverRanks(given, exchange, exchange.size).entries()) averaged[bucket[k] ?? 0] = mean
  }
  return averaged
}

const idOf = (tensor: Tensor | undefined): number => tensor?.node.id ?? 0
