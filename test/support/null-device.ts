import type { Device } from '#dist/engine/device.js'
import { dryDevice } from '#dist/engine/dry-device.js'

/** What to pretend of the adapter. */
export interface NullAdapter {
  readonly software?: boolean
  /** Kernels may read and write f16. */
  readonly half?: boolean
  /** Lanes of a subgroup. */
  readonly subgroupSize?: number
  /** It has matrix units, of 16x16x16. */
  readonly matrixUnits?: boolean
  /** maxStorageBuffersPerShaderStage. */
  readonly maxStorageBuffers?: number
  /** maxStorageBufferBindingSize in bytes. */
  readonly bindingLimit?: number
  /** Bytes that it has. */
  readonly memory?: number
}

/** A dry device of an adapter that no machine need have. */
export function nullDevice(adapter: NullAdapter = {}): Device {
  const { software = true, half = false, matrixUnits = false, subgroupSize = 8 } = adapter
  const { bindingLimit = 2 ** 40, maxStorageBuffers = 10, memory } = adapter
  const { GPUBufferUsage, GPUTextureUsage, GPUShaderStage, GPUMapMode } = globalThis as Partial<typeof globalThis>
  // WebGPU's constants are there once an adapter was looked for; here their values do not matter.
  if (!GPUBufferUsage) Object.assign(globalThis, { GPUBufferUsage: {} })
  if (!GPUTextureUsage) Object.assign(globalThis, { GPUTextureUsage: {} })
  if (!GPUShaderStage) Object.assign(globalThis, { GPUShaderStage: {} })
  if (!GPUMapMode) Object.assign(globalThis, { GPUMapMode: {} })
  const gpu = {
    adapterInfo: { subgroupMinSize: subgroupSize, subgroupMaxSize: subgroupSize },
    features: new Set([
      'subgroups',
      ...(half ? ['shader-f16'] : []),
      ...(matrixUnits ? ['chromium-experimental-subgroup-matrix'] : []),
    ]),
    limits: {
      maxStorageBuffersPerShaderStage: maxStorageBuffers,
      maxComputeWorkgroupStorageSize: 32768,
      maxStorageBufferBindingSize: bindingLimit,
      maxTextureDimension2D: 8192,
      minStorageBufferOffsetAlignment: 256,
      minUniformBufferOffsetAlignment: 256,
    },
  } as unknown as GPUDevice
  const summary = { vendor: '', architecture: '', device: 'null', driver: '', software }
  const matrixConfigs = [{ factors: 'f16', sums: 'f32', M: 16, N: 16, K: 16 }]
  return dryDevice({ adapter: summary, gpu, traits: matrixUnits ? { matrixConfigs } : {} }, memory).device
}
