import type { AdapterSummary, AdapterTraits } from './adapter.js'
import { BindingLimitError, Device } from './device.js'
import { kernelSelectionOf, setKernelSelection } from './kernel-selection.js'
import { type MirrorFormat, mirrorBytes } from './mirror.js'
import type { DeviceProperties, GPUDevice } from './webgpu-types.js'

/** A buffer, or a texture, that a program would allocate. */
export interface DryBuffer {
  readonly label: string
  readonly bytes: number
}

/** What a device would have been asked for. */
export interface DryUse {
  /** Buffers and textures that are not destroyed. */
  readonly buffers: ReadonlySet<DryBuffer>
  /** The most bytes that buffers held at a time. */
  readonly peak: number
  /** Pipelines: one for each kernel. */
  readonly pipelines: number
}

/** What programs are planned by: any device is one. */
export interface DryAdapter {
  readonly adapter: AdapterSummary
  readonly gpu: DeviceProperties
  readonly traits: Partial<Pick<AdapterTraits, 'matrixConfigs' | 'maxBinding'>>
}

/**
 * A device that allocates and computes nothing: programs are traced, planned and bound on it as on the one given, of the
 * same kernels, so that what they need is known before any of it is there. What is read back is 0.
 *
 * @param memory bytes that it pretends to have
 */
export function dryDevice(
  real: DryAdapter,
  memory: number = Number.POSITIVE_INFINITY,
): { readonly device: Device; readonly use: DryUse } {
  const buffers = new Set<DryBuffer>()
  const use = { buffers, peak: 0, pipelines: 0 }
  let held = 0
  const scopes: GPUErrorFilter[] = []
  const nothing = () => undefined
  const { adapterInfo, features, limits } = real.gpu
  const hold = (label: string, bytes: number) => {
    const buffer = { label, bytes }
    buffers.add(buffer)
    held += bytes
    use.peak = Math.max(use.peak, held)
    return () => {
      if (buffers.delete(buffer)) held -= bytes
    }
  }
  const createBuffer = ({ label = '', size: bytes }: GPUBufferDescriptor) => {
    if (bytes > limits.maxBufferSize) throw new BindingLimitError(label, bytes, limits.maxBufferSize)
    return {
      mapAsync: async () => undefined,
      getMappedRange: () => new ArrayBuffer(bytes),
      unmap: nothing,
      destroy: hold(label, bytes),
    }
  }
  const createTexture = ({ label = '', size, format }: GPUTextureDescriptor) => {
    const [, rows = 1] = size as number[]
    return { createView: nothing, destroy: hold(label, mirrorBytes({ format: format as MirrorFormat, rows })) }
  }
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing }
  const gpu = {
    adapterInfo,
    features,
    limits,
    lost: new Promise(nothing),
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: async () => undefined },
    addEventListener: nothing,
    pushErrorScope: (filter: GPUErrorFilter) => scopes.push(filter),
    popErrorScope: async () =>
      scopes.pop() === 'out-of-memory' && held > memory ? { message: 'buffer allocation failed' } : null,
    createBuffer,
    createTexture,
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createShaderModule: () => ({}),
    createComputePipelineAsync: async () => {
      use.pipelines++
      return {}
    },
    createBindGroup: () => ({}),
    createCommandEncoder: () => ({
      beginComputePass: () => pass,
      clearBuffer: nothing,
      copyBufferToBuffer: nothing,
      copyBufferToTexture: nothing,
      finish: () => ({}),
    }),
    destroy: nothing,
  }
  const { matrixConfigs = [], maxBinding: bindingLimit } = real.traits
  const device = new Device(gpu as unknown as GPUDevice, real.adapter, undefined, { matrixConfigs, bindingLimit })
  setKernelSelection(device, kernelSelectionOf(real))
  return { device, use }
}

/** Whether what is planned stays within the limits of its adapter. */
export async function canBind(planned: Promise<unknown>): Promise<boolean> {
  try {
    await planned
    return true
  } catch (error) {
    if (error instanceof BindingLimitError) return false
    throw error
  }
}

/**
 * The largest whole number from `low` to `high` that fits, where smaller ones do too; undefined where none does.
 * @param guess where to look first: a good one saves most of the plans, another one costs two
 */
export async function largestFitting(
  low: number,
  high: number,
  fits: (size: number) => Promise<boolean>,
  guess: number,
): Promise<number | undefined> {
  let [known, above] = [low - 1, high + 1]
  const probes = [guess, guess + 1]
  while (above - known > 1) {
    const probe = probes.shift() ?? Math.floor((known + above) / 2)
    if (probe <= known || probe >= above) continue
    if (await fits(probe)) known = probe
    else above = probe
  }
  return known < low ? undefined : known
}

/** A device for models that are only traced: it has no limits, and nothing of an adapter is known. */
export function tracingDevice(): Device {
  const limits = {
    maxStorageBuffersPerShaderStage: 8,
    maxComputeWorkgroupStorageSize: 16384,
    maxTextureDimension2D: 8192,
    maxStorageBufferBindingSize: Number.POSITIVE_INFINITY,
    minStorageBufferOffsetAlignment: 256,
  } as GPUSupportedLimits
  const gpu = { adapterInfo: {} as GPUAdapterInfo, features: new Set<string>(), limits }
  const adapter = { vendor: '', architecture: '', device: 'none', driver: '', software: true }
  return dryDevice({ gpu, adapter, traits: {} }).device
}
