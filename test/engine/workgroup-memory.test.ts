// Kernels write workgroup memory before they read it, so that no device need clear it: here it is not, and full of what other
// kernels left.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { candidatesOf, type SelectKernel } from '#dist/engine/kernel-selection.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { cases } from '../../cases/index.js'
import { compareGradients, compareOutputs, prepare, runCase } from '../support/check.js'
import { skipUnless } from '../support/skip.js'

const available = (await findAdapters()).length > 0
const device = available ? await open({ toggles: ['disable_workgroup_init'] }) : undefined
const register = skipUnless(available, 'there is no WebGPU adapter')

/** Fills all of the workgroup memory that there is with NaN, on every core. */
async function spoil(): Promise<void> {
  if (!device) return
  const words = device.gpu.limits.maxComputeWorkgroupStorageSize / 4
  const source = `var<workgroup> words: array<u32, ${words}>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  for (var i = lane; i < ${words}u; i += 64u) { words[i] = 0x7fc07fc0u; }
  workgroupBarrier();
  y[group.x] = words[(group.x * 977u + lane) % ${words}u];
}
`
  const buffer = device.storage('spoiled', 4 * 256)
  const pipeline = await device.pipeline('spoil', source, 'w')
  const entries = [{ binding: 1, resource: { buffer } }]
  const encoder = device.gpu.createCommandEncoder()
  const pass = encoder.beginComputePass()
  pass.setPipeline(pipeline)
  pass.setBindGroup(0, device.gpu.createBindGroup({ layout: device.layout('w'), entries }))
  pass.dispatchWorkgroups(256)
  pass.end()
  device.gpu.queue.submit([encoder.finish()])
  await device.idle()
  buffer.destroy()
}

const wanted: readonly (readonly [op: string, name: RegExp])[] = [
  ['conv2d', /^3x3, several tiles, long sum/],
  ['matmul', /^33x515x17/],
  ...['batchedMatmul', 'attention', 'batchNormTraining', 'layerNorm', 'sum', 'ohemCrossEntropy'].map(
    (op) => [op, /./] as const,
  ),
]
const rows = wanted.flatMap(([op, name]) => cases.find((row) => row.op === op && name.test(row.name)) ?? [])

test('all kinds of kernels with workgroup memory are in the table of cases', () => {
  assert.is(rows.length, wanted.length)
})

for (const row of rows) {
  register(`${row.op}: ${row.name}`, async () => {
    if (!device) throw new Error('unreachable: the test is skipped without a device')
    const prepared = prepare(row)
    // The kernels of CPUs, and those of GPUs.
    for (const traits of [device.traits, { ...device.traits, software: false, subgroupSize: 0 }]) {
      const selectKernel: SelectKernel = async (node) => (await candidatesOf(node, traits))[0]
      await spoil()
      const results = await runCase(device, prepared, { selectKernel })
      compareOutputs(prepared, results, traits.software ? 'on a CPU' : 'on a GPU')
      compareGradients(prepared, results)
    }
  })
}

test.after(() => device?.destroy())
test.run()
