// The passes of a program, in their order.
import type { AdapterTraits } from './adapter.js'
import type { Trace } from './ir.js'
import { batchSmall } from './passes/batch-small.js'
import { concatInPlace } from './passes/concat-in-place.js'
import { dropDead } from './passes/drop-dead.js'
import { fuseEpilogues } from './passes/fuse-epilogues.js'
import { fusePointwise } from './passes/fuse-pointwise.js'
import { fusePrologues } from './passes/fuse-prologues.js'
import { fuseRowSums } from './passes/fuse-row-sums.js'
import { recompute } from './passes/recompute.js'
import { shareEqual } from './passes/rewrite.js'
import { splitChannels } from './passes/split-channels.js'
import { updateEarly } from './passes/update-early.js'

/** What is computed, by fewer kernels. */
export function fuse(trace: Trace, traits: AdapterTraits, stageOf?: Parameters<typeof recompute>[1]): Trace {
  const pointwise = fusePointwise(dropDead(shareEqual(splitChannels(trace, traits))), traits.maxStorageBuffers)
  const fused = fuseEpilogues(pointwise, traits)
  // Behind fusion: what is computed again then goes through the same kernels as before, and gives the same bits.
  return stageOf ? recompute(fused, stageOf) : fused
}

/** Where results are computed, written and summed, and when. */
export async function arrange(trace: Trace, traits: AdapterTraits): Promise<Trace> {
  const summed = await fuseRowSums(fusePrologues(trace, traits), traits)
  return batchSmall(updateEarly(concatInPlace(summed, traits.storageAlignment)), traits)
}
