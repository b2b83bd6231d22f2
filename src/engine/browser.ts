import { summarizeAdapter } from './adapter.js'
import type { Device } from './device.js'
import { NoAdapterError } from './error.js'
import { openDevice } from './open-device.js'
import type { GPUAdapter } from './webgpu-types.js'

export { NoAdapterError } from './error.js'

export interface OpenOptions {
  /** Of two GPUs the faster one or the one that takes less power; by default the browser chooses. */
  readonly powerPreference?: 'high-performance' | 'low-power' | undefined
}

/** What of a page this is about. */
interface Page {
  readonly isSecureContext?: boolean
  readonly location?: { readonly origin: string }
  readonly navigator?: { readonly gpu?: { requestAdapter(options: object): Promise<GPUAdapter | null> } }
}

/** How a browser that has no WebGPU gets one. */
const remedy =
  'take a recent Chrome, Edge, Firefox or Safari, or switch it on (Chrome: chrome://flags/#enable-unsafe-webgpu, Firefox: ' +
  'dom.webgpu.enabled in about:config)'

/**
 * Opens a WebGPU device in a page or a worker.
 * @throws NoAdapterError with the remedy: for an origin that is not secure, a browser without WebGPU, and one that gives no
 * adapter or no device
 */
export async function open({ powerPreference }: OpenOptions = {}): Promise<Device> {
  const { isSecureContext, location, navigator } = globalThis as Page
  const gpu = navigator?.gpu
  if (!gpu && isSecureContext === false) {
    throw new NoAdapterError(
      `browsers have WebGPU in secure contexts alone, and ${location?.origin ?? 'this page'} is none: serve it by https, or ` +
        'from http://localhost',
    )
  }
  if (!gpu) throw new NoAdapterError(`this browser has no WebGPU: ${remedy}`)
  const adapter = await gpu.requestAdapter({ ...(powerPreference ? { powerPreference } : {}) })
  if (!adapter) {
    throw new NoAdapterError(
      'this browser has WebGPU, but gives no adapter: switch its graphics acceleration on, update the driver of the GPU, and ' +
        'restart the browser where the GPU was lost before (Chrome tells more at chrome://gpu)',
    )
  }
  return openDevice(adapter, summarizeAdapter(adapter))
}
