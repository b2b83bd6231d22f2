import { Device } from './device.js'

/** A buffer that a program would allocate. */
export interface DryBuffer {
  readonly label: string
  readonly bytes: number
}

/** What a device would have been asked for. */
export interface DryUse {
  /** Buffers that are not destroyed. */
  readonly buffers: ReadonlySet<DryBuffer>
  /** The most bytes that buffers held at a time. */
  readonly peak: number
  /** Pipelines: one for each kernel. */
  readonly pipelines: number
}

/** What a dry device takes from the one that it stands for. */
type LikeDevice = Pick<Device, 'adapter' | 'chooser'> & {
  readonly gpu: Pick<GPUDevice, 'adapterInfo' | 'features' | 'limits'>
}

/**
 * A device with the limits of another one that allocates and computes nothing: programs are traced, planned and bound on
 * it as on the other, so that what they need is known before any of it is there. What is read back is 0.
 */
export function dryDevice(real: LikeDevice): { readonly device: Device; readonly use: DryUse } {
  const buffers = new Set<DryBuffer>()
  const use = { buffers, peak: 0, pipelines: 0 }
  let held = 0
  const nothing = () => undefined
  const createBuffer = ({ label = '', size: bytes }: GPUBufferDescriptor) => {
    const buffer = { label, bytes }
    buffers.add(buffer)
    held += bytes
    use.peak = Math.max(use.peak, held)
    return {
      mapAsync: async () => undefined,
      getMappedRange: () => new ArrayBuffer(bytes),
      unmap: nothing,
      destroy: () => {
        if (buffers.delete(buffer)) held -= bytes
      },
    }
  }
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing }
  const { adapterInfo, features, limits } = real.gpu
  const gpu = {
    adapterInfo,
    features,
    limits,
    lost: new Promise(nothing),
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: async () => undefined },
    addEventListener: nothing,
    pushErrorScope: nothing,
    popErrorScope: async () => null,
    createBuffer,
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createShaderModule: () => ({}),
    createComputePipelineAsync: async () => {
      use.pipelines++
      return {}
    },
    createBindGroup: () => ({}),
    createCommandEncoder: () => ({ beginComputePass: () => pass, copyBufferToBuffer: nothing, finish: () => ({}) }),
    destroy: nothing,
  }
  const device = new Device(gpu as unknown as GPUDevice, real.adapter)
  device.chooser = real.chooser
  return { device, use }
}

/** A device for models that are only traced: it has no limits, and nothing of an adapter is known. */
export function tracingDevice(): Device {
  const limits = { maxStorageBuffersPerShaderStage: 8, maxComputeWorkgroupStorageSize: 16384 } as GPUSupportedLimits
  const gpu = { adapterInfo: {} as GPUAdapterInfo, features: new Set<string>(), limits }
  const adapter = { vendor: '', architecture: '', device: 'none', driver: '', software: true }
  return dryDevice({ gpu, adapter, chooser: undefined }).device
}
