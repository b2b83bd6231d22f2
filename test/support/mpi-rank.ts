// A process of an MPI group, which checks what the group does and prints a line on rank 0: see mpi.test.ts.
import * as assert from 'uvu/assert'
import { launchOf } from '#dist/train/distributed/launcher.js'
import { MpiGroup } from '#dist/train/distributed/mpi-group.js'

const launch = launchOf()
if (!launch) throw new Error('it is to be started by mpirun')
const group = await MpiGroup.open(launch)
const { rank, size } = group
const others = Array.from({ length: size }, (_, other) => other)

/** Numbers whose sum depends on its order. */
const sampleOf = (of: number, i: number): number => Math.fround(1 / (1 + of) + (i % 97) * 1e-3 * (of === 1 ? 1e6 : 1))

for (const lengths of [[3], [5, 1, 40], [300_000], [70_001, 2]]) {
  const given = lengths.map((length) => Float32Array.from({ length }, (_, i) => sampleOf(rank, i)))
  const sums = await group.sum(given, size)
  for (const [k, sum] of sums.entries()) {
    const wanted = Float32Array.from({ length: lengths[k] ?? 0 }, (_, i) => {
      return others.reduce((total, other) => total + sampleOf(other, i), 0) / size
    })
    assert.equal(Buffer.from(sum.slice().buffer), Buffer.from(wanted.buffer), `sums of ${lengths}`)
  }
}
// Large and small ones that are under way at the same time.
const large = [1, 2, 3].map((factor) => group.sum([new Float32Array(200_000).fill(factor * (rank + 1))], 1))
const small = [1, 2].map((factor) => group.sum([Float32Array.of(factor * rank)], 1))
const ranks = (size * (size + 1)) / 2
for (const [i, [sum]] of (await Promise.all(large)).entries()) assert.is(sum?.[123_456], (i + 1) * ranks)
for (const [i, [sum]] of (await Promise.all(small)).entries()) assert.is(sum?.[0], (i + 1) * (ranks - size))

assert.equal(await group.gather(Float32Array.of(rank, -rank)), Float32Array.from(others.flatMap((r) => [r, -r])))
const texts = await group.gatherValues({ rank, text: 'ä'.repeat(rank) })
assert.equal(
  texts,
  others.map((other) => ({ rank: other, text: 'ä'.repeat(other) })),
)
const bytes = Uint8Array.of(rank + 1, 7)
await group.broadcast(bytes)
assert.equal(bytes, Uint8Array.of(1, 7))
assert.is(group.localSize, size)
assert.is(group.localRank, rank)
await group.close()
if (rank === 0) console.log(`${size} ranks agree; ${group.traffic.calls > 10 && group.traffic.bytes > 1e6}`)
