import { Device } from '#dist/engine/device.js'

/** What to pretend of the adapter. */
export interface NullAdapter {
  readonly software?: boolean
  /** Lanes of a subgroup. */
  readonly subgroupSize?: number
  /** maxStorageBufferBindingSize in bytes. */
  readonly bindingLimit?: number
  /** Bytes that it has. */
  readonly memory?: number
}

/** A device without a GPU: programs are traced, planned and bound on it, but compute nothing. */
export function nullDevice(adapter: NullAdapter = {}): Device {
  const { software = true, subgroupSize = 8, bindingLimit = 2 ** 40, memory = Number.POSITIVE_INFINITY } = adapter
  const { GPUBufferUsage, GPUShaderStage } = globalThis as Partial<typeof globalThis>
  if (!GPUBufferUsage) Object.assign(globalThis, { GPUBufferUsage: {} })
  if (!GPUShaderStage) Object.assign(globalThis, { GPUShaderStage: {} })
  const nothing = () => undefined
  let used = 0
  const scopes: GPUErrorFilter[] = []
  const gpu = {
    adapterInfo: { subgroupMinSize: subgroupSize, subgroupMaxSize: subgroupSize },
    features: new Set(['subgroups']),
    limits: {
      maxStorageBuffersPerShaderStage: 10,
      maxComputeWorkgroupStorageSize: 32768,
      maxStorageBufferBindingSize: bindingLimit,
      minUniformBufferOffsetAlignment: 256,
    },
    lost: new Promise(nothing),
    queue: { writeBuffer: nothing },
    addEventListener: nothing,
    pushErrorScope: (filter: GPUErrorFilter) => scopes.push(filter),
    popErrorScope: () => {
      const exhausted = scopes.pop() === 'out-of-memory' && used > memory
      return Promise.resolve(exhausted ? { message: 'buffer allocation failed' } : null)
    },
    createBuffer: ({ size }: GPUBufferDescriptor) => {
      used += size
      return { destroy: () => (used -= size), getMappedRange: () => new ArrayBuffer(size), unmap: nothing }
    },
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createShaderModule: () => ({}),
    createComputePipelineAsync: () => Promise.resolve({}),
    createBindGroup: () => ({}),
    destroy: nothing,
  }
  const summary = { vendor: '', architecture: '', device: 'null', driver: '', software }
  return new Device(gpu as unknown as GPUDevice, summary)
}
