// Dispatches that are cut into parts of their workgroups: same bits, whatever the kernel.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cutLong, shifted } from '#dist/engine/cut.js'
import type { Dispatch } from '#dist/engine/kernel.js'
import type { Command } from '#dist/engine/lower.js'
import { open } from '#dist/engine/node.js'
import { Pace } from '#dist/engine/pace.js'
import { cases } from '../../cases/index.js'
import { prepare, runCase } from '../support/check.js'
import { onDevice } from '../support/on-device.js'

const { deviceTest } = await onDevice()

const dispatch: Dispatch = {
  label: 'long',
  source: `@compute @workgroup_size(8, 4)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
  y[id.x] = wg.x + n.x;
}
`,
  reads: [],
  writes: [],
  uniforms: [],
  grid: [3, 10, 1],
}
const info = { op: '', layer: '', kernel: '', shapes: '', bytes: 0, multiplyAdds: 1000 }
const long: Command = { kind: 'dispatch', label: 'long', dispatch, info, reads: [], writes: [] }

test('a long dispatch is cut along the longest axis of its grid, a short one is not', () => {
  assert.equal(cutLong([long], 1000), [long])
  const parts = cutLong([long, long], 300)
  const grids = parts.map((part) => (part.kind === 'dispatch' ? part.dispatch.grid : []))
  const four = [
    [3, 3, 1],
    [3, 3, 1],
    [3, 3, 1],
    [3, 1, 1],
  ]
  assert.equal(grids, [...four, ...four])
  assert.equal(
    parts.slice(0, 4).map((part) => part.info.multiplyAdds),
    [300, 300, 300, 100],
  )
  const single = cutLong([{ ...long, dispatch: { ...dispatch, grid: [1, 1, 1] } }], 300)
  assert.is(single.length, 1, 'a workgroup is not cut')
})

test('the workgroups of a part are numbered on', () => {
  const text = shifted(dispatch.source, [0, 3, 0], [3, 10, 1])
  assert.match(text, /let wg = part_wg \+ vec3u\(0u, 3u, 0u\);/)
  assert.match(text, /let id = part_id \+ vec3u\(0u, 3u, 0u\) \* vec3u\(8, +4, +1\);/)
  assert.match(text, /let n = vec3u\(3u, 10u, 1u\);/)
  assert.match(text, /@builtin\(num_workgroups\) part_n: vec3u\) \{/)
  assert.throws(() => shifted('fn other() {}', [0, 0, 0], [1, 1, 1]), /no entry point/)
})

test('a dispatch may take half a second, by the best rate that was timed', () => {
  const clock = { now: 0 }
  const pace = new Pace(() => clock.now, 1000, 1)
  assert.is(pace.longest(), 1000)
  for (const milliseconds of [4, 100]) {
    pace.submitted(400)
    clock.now += milliseconds
    pace.done(pace.mark())
  }
  assert.is(pace.longest(), 50_000)
  assert.is(Pace.of({ vendor: 'nvidia' }).longest(), 5 * Pace.of({ vendor: 'intel' }).longest())
})

/** Kernels of every kind, and a cost above which their dispatches are cut into a few parts. */
const limits: readonly (readonly [op: string, name: RegExp, limit: number])[] = [
  ['conv2d', /^3x3, several tiles, long sum/, 2e6],
  ['conv2d', /^3x3, stride 2, odd/, 1e4],
  ['matmul', /^33x515x17/, 1e5],
  ['batchNormTraining', /./, 1e4],
  ['maxPool2d', /./, 4e3],
  ['attention', /./, 1e4],
  ['resizeBilinear', /./, 4e3],
  ['crossEntropy', /./, 4e3],
  ['permute', /./, 4e3],
  ['layerNorm', /./, 2e3],
]
const rows = limits.flatMap(([op, name, limit]) => {
  const found = cases.find((row) => row.op === op && name.test(row.name))
  return found ? [{ row: found, limit }] : []
})

test('all kinds of kernels are in the table of cases', () => assert.is(rows.length, limits.length))

for (const { row, limit } of rows) {
  deviceTest(`in parts, the bits are the same: ${row.op}, ${row.name}`, async (device) => {
    const prepared = prepare(row)
    const plain = await runCase(device, prepared)
    const cutting = Object.assign(await open(), { pace: new Pace(undefined, limit, limit) })
    let parts = 0
    const create = cutting.gpu.createShaderModule.bind(cutting.gpu)
    cutting.gpu.createShaderModule = (descriptor) => {
      if (descriptor.code.includes('part_')) parts++
      return create(descriptor)
    }
    try {
      assert.equal(await runCase(cutting, prepared), plain)
      assert.ok(parts >= 2 && parts <= 20, `${parts} parts`)
    } finally {
      cutting.destroy()
    }
  })
}

test.run()
