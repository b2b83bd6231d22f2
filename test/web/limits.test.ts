// What browsers without subgroups, time stamps and half precision offer, with the smallest limits that WebGPU allows: kernels
// compute the same there. Tried in Node, on an adapter whose features and limits are cut down.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '#dist/engine/device.js'
import { findAdapter } from '#dist/engine/node.js'
import { openDevice } from '#dist/engine/open-device.js'
import { computations } from './computations.js'

/** WebGPU's defaults, which every adapter has. */
const leastLimits = {
  maxBindGroups: 4,
  maxBufferSize: 2 ** 28,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupSizeY: 256,
  maxComputeWorkgroupSizeZ: 64,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeWorkgroupsPerDimension: 65535,
  maxStorageBufferBindingSize: 2 ** 27,
  maxStorageBuffersPerShaderStage: 8,
  maxTextureDimension2D: 8192,
}

/** A device of an adapter that names nothing beyond what every one has, or all that it has. */
async function opened(least: boolean): Promise<Device> {
  const { adapter, summary } = await findAdapter()
  if (!least) return openDevice(adapter, summary)
  const cut = {
    info: adapter.info,
    features: new Set<string>(),
    limits: leastLimits,
    requestDevice: (descriptor: GPUDeviceDescriptor) => adapter.requestDevice(descriptor),
  }
  return openDevice(cut as unknown as GPUAdapter, summary)
}

test('a product and a prediction are the same without features and with the least limits', async () => {
  const [least, whole] = [await opened(true), await opened(false)]
  assert.not(least.gpu.features.has('subgroups'))
  assert.is(least.traits.maxStorageBuffers, leastLimits.maxStorageBuffersPerShaderStage)
  assert.is(least.traits.maxWorkgroupStorage, leastLimits.maxComputeWorkgroupStorageSize)
  for (const name of ['product', 'prediction'] as const) {
    const [found, expected] = [await computations[name](least), await computations[name](whole)]
    assert.is(found.length, expected.length)
    for (const [k, values] of expected.entries()) {
      // Other tiles sum up in another order.
      const far = values.findIndex((value, i) => !(Math.abs(value - (found[k]?.[i] ?? Number.NaN)) < 1e-3))
      assert.is(far, -1, `${name}, result ${k}: ${found[k]?.[far]} instead of ${values[far]}`)
    }
  }
  least.destroy()
  whole.destroy()
})

test.run()
