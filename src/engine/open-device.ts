import { type AdapterSummary, matrixConfigsOf, standardFeatures, summarizeAdapter, usefulFeatures } from './adapter.js'
import { Device, type Wait } from './device.js'
import { NoAdapterError } from './error.js'
import { ErrorScopes } from './error-scopes.js'
import type { GPUAdapter, GPUDevice } from './webgpu-types.js'

/** How an adapter is opened. */
export interface OpenDeviceOptions {
  /** Bytes that a kernel binds at most, where the adapter allows more. */
  readonly bindingLimit?: number | undefined
  /** The same adapter anew: one that has failed to open may not be tried again. */
  readonly renew?: () => Promise<GPUAdapter>
}

/**
 * Opens an adapter with its own limits instead of WebGPU's defaults and the features that kernels can use, or with those that
 * its driver grants, and tries how it stores f16.
 * @throws NoAdapterError where the adapter gives no device
 */
export async function openDevice(
  adapter: GPUAdapter,
  summary: AdapterSummary,
  wait?: Wait,
  { bindingLimit, renew = async () => adapter }: OpenDeviceOptions = {},
): Promise<Device> {
  const features = usefulFeatures.filter((feature) => adapter.features.has(feature))
  const granted = features.filter((feature) => standardFeatures.includes(feature))
  const limits = limitsOf(adapter)
  const useful = Object.fromEntries(Object.entries(limits).filter(([name]) => usefulLimits.test(name)))
  const request = (from: GPUAdapter, requiredLimits: Record<string, number>, requiredFeatures: GPUFeatureName[]) =>
    from.requestDevice({ label: 'atrous', requiredLimits, requiredFeatures })
  // Drivers are known that refuse a limit, or a feature, which their adapter names.
  const attempts: readonly (readonly [Record<string, number>, GPUFeatureName[]])[] = [
    [useful, features],
    [{}, features],
    [useful, granted],
    [{}, granted],
    [{}, []],
  ]
  let opened = request(adapter, limits, features)
  for (const [limits, features] of attempts) {
    opened = opened.catch(async () => request(await renew(), limits, features))
  }
  const gpu = await opened.catch(explainRefusal)
  const half = gpu.features.has('shader-f16') ? await (await import('./half-stores.js')).lookAtHalf(gpu) : {}
  return new Device(gpu, summary, wait, { matrixConfigs: matrixConfigsOf(adapter), bindingLimit, ...half })
}

function explainRefusal(error: unknown): never {
  const reason = error instanceof Error ? error.message : String(error)
  const isUsed = /consumed|already/i.test(reason)
  const why = isUsed ? 'it gave one already, and an adapter gives one only: request another one' : reason
  throw new NoAdapterError(`the adapter gives no device: ${why}`, { cause: error })
}

/**
 * Works on a device that its owner goes on using: the errors of the owner's work stay the owner's, and `destroy` leaves it
 * open. Request it with the limits of its adapter and those of `usefulFeatures` that it has.
 */
export const shareDevice = (gpu: GPUDevice, wait?: Wait): Device =>
  new Device(gpu, summarizeAdapter({ info: gpu.adapterInfo }), wait, {
    scopesOf: (report) => new ErrorScopes(gpu, report),
  })

/** The limits that kernels and tensors may reach. */
const usefulLimits =
  /^max(BufferSize|StorageBufferBindingSize|StorageBuffersPerShaderStage|TextureDimension2D|Compute(Workgroup|Invocations)\w+)$/

/** All limits of an adapter. */
function limitsOf({ limits }: GPUAdapter): Record<string, number> {
  const found: Record<string, number> = {}
  // They live on the prototype of GPUSupportedLimits, so neither keys() nor a spread finds them.
  for (const name in limits) {
    const value: unknown = limits[name as keyof GPUSupportedLimits]
    if (typeof value === 'number') found[name] = value
  }
  return found
}
