// What goes wrong on a device is an exception that names the culprit.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { standardFeatures } from '#dist/engine/adapter.js'
import { applyOne } from '#dist/engine/graph.js'
import { defineOp, type Tensor } from '#dist/engine/ir.js'
import { type Candidate, inputBuffer, outputBuffer } from '#dist/engine/kernel.js'
import { findAdapter, open } from '#dist/engine/node.js'
import { openDevice } from '#dist/engine/open-device.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { sum } from '#dist/kernels/pointwise.js'
import { messageOf } from '../support/messages.js'
import { onDevice } from '../support/on-device.js'

const { deviceTest } = await onDevice()

/** An operator with one kernel, given as WGSL. */
const custom = (name: string, source: string) => (x: Tensor) =>
  applyOne(
    defineOp<undefined>(name, {
      shape: ([first = spec([])]) => [first],
      kernel: (): Candidate[] => [
        {
          name,
          dispatches: [
            { label: name, source, reads: [inputBuffer(0)], writes: [outputBuffer(0)], uniforms: [], grid: [1, 1, 1] },
          ],
        },
      ],
    }),
    [x],
    undefined,
  )

deviceTest('a shader that does not compile fails with the name of its kernel', async (device) => {
  const broken = custom('crookedKernel', '@compute @workgroup_size(1) fn main() { let x = nothing; }')
  const message = await messageOf(() => compile(device, { x: spec([2]) }, ({ x }) => ({ y: broken(x) })))
  assert.match(message, /kernel crookedKernel does not compile/)
  assert.match(message, /nothing/)
})

deviceTest('a shader that does not fit its bindings fails with the name of its kernel', async (device) => {
  const source = `@group(0) @binding(9) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1) fn main() { y[0] = 1; }`
  const message = await messageOf(() =>
    compile(device, { x: spec([2]) }, ({ x }) => ({ y: custom('strayBinding', source)(x) })),
  )
  assert.match(message, /kernel strayBinding/)
})

deviceTest('what WebGPU reports without throwing is thrown by the next wait', async (device) => {
  device.gpu.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE })
  assert.match(await messageOf(() => device.idle()), /the GPU reported/)
  await device.idle()
})

deviceTest('a buffer beyond the limits is refused with its name', async (device) => {
  const count = Math.ceil((device.gpu.limits.maxBufferSize + 1) / 4)
  const message = await messageOf(() => compile(device, { vast: spec([count]) }, ({ vast }) => ({ y: sum(vast) })))
  assert.match(message, /^program input vast of .* MiB is too large: this adapter has buffers of at most .* MiB$/)
})

deviceTest('where the driver refuses limits or features that its adapter names, fewer are asked for', async () => {
  type Asked = { readonly limits: Record<string, number>; readonly features: readonly GPUFeatureName[] }
  const attempts = async (refuses: (asked: Asked) => boolean) => {
    const { adapter, summary } = await findAdapter()
    const asked: Asked[] = []
    const { info, features, limits } = adapter
    const requestDevice = (descriptor: GPUDeviceDescriptor) => {
      const limits = (descriptor.requiredLimits ?? {}) as Record<string, number>
      const wanted = { limits, features: [...(descriptor.requiredFeatures ?? [])] }
      asked.push(wanted)
      return refuses(wanted) ? Promise.reject(new Error('refused')) : adapter.requestDevice(descriptor)
    }
    const device = await openDevice({ info, features, limits, requestDevice } as unknown as GPUAdapter, summary)
    const { traits } = device
    device.destroy()
    return { counts: asked.map(({ limits }) => Object.keys(limits).length), asked, traits }
  }
  const all = await attempts(() => false)
  const useful = await attempts(({ limits }) => 'maxBindGroups' in limits)
  const none = await attempts(({ limits }) => 'maxBufferSize' in limits)
  assert.is(all.counts.length, 1)
  assert.is(useful.counts.length, 2)
  assert.ok((useful.counts[1] ?? 0) < (useful.counts[0] ?? 0))
  assert.is(useful.traits.maxBinding, all.traits.maxBinding)
  assert.equal(none.counts, [...useful.counts, 0])
  // A feature that is not in WebGPU yet costs neither the limits nor the features that are.
  const feature = await attempts(({ features }) => features.includes('subgroup-size-control'))
  const last = feature.asked.at(-1)
  assert.is(Object.keys(last?.limits ?? {}).length, useful.counts[1])
  const standard = all.asked[0]?.features.filter((name) => standardFeatures.includes(name))
  assert.equal(last?.features, standard)
  const bare = await attempts(({ features }) => features.length > 0)
  assert.equal([bare.counts.at(-1), bare.traits.half], [0, false])
})

deviceTest('a lost device is an error with its reason', async () => {
  const device = await open()
  // As if the driver had failed: the engine has not asked for it.
  device.gpu.destroy()
  await device.gpu.lost
  assert.match(await messageOf(() => device.check()), /the GPU device was lost \(destroyed\)/)
})

test.run()
