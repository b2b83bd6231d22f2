// The declarations name these types, in whatever program they are used.
/// <reference types="@webgpu/types" preserve="true" />
import { tmpdir } from 'node:os'
import { type AdapterSummary, summarizeAdapter } from './adapter.js'
import { type Device, openDevice, type Wait } from './device.js'
import { NoAdapterError } from './error.js'
import type { GPUAdapter } from './webgpu-types.js'

const sleeper = new Int32Array(new SharedArrayBuffer(4))

/**
 * Waits with sleep between the turns of the event loop, which spins while a promise of Dawn's is pending.
 * @param pause milliseconds to sleep behind a turn, by what the device will still need
 */
const asleep =
  (pause: (rest: number) => number): Wait =>
  async (promise, rest) => {
    let settled = false
    const mark = () => {
      settled = true
    }
    promise.then(mark, mark)
    while (!settled) {
      await new Promise((resolve) => setImmediate(resolve))
      if (settled) break
      const milliseconds = pause(rest())
      if (milliseconds > 0) Atomics.wait(sleeper, 0, 0, milliseconds)
    }
    return promise
  }

/** A software adapter computes on the core that would spin. */
const besideDriver = asleep(() => 0.25)
/** A GPU is answered at once when it is due, and leaves the core alone before that. */
const besideGpu = asleep((rest) => (rest > 5 ? 2 : 0))

export interface OpenOptions {
  /** Part of the adapter's name, such as `nvidia` or `llvmpipe`; any adapter when absent. */
  readonly gpu?: string | undefined
  /** Bytes that a kernel binds at most, where the adapter allows more: to try what other adapters will have to do. */
  readonly bindingLimit?: number
}

export { NoAdapterError } from './error.js'

const toggles = [
  // Dawn hides subgroup matrices, and half precision on NVIDIA, behind these.
  'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia',
  // It rounds time stamps to 0.1 ms, so that web pages learn nothing from them.
  'disable-dawn-features=timestamp_quantization',
]

/** Dawn keeps a reference to it while its objects live. */
let instance: GPU | undefined

async function dawn(): Promise<GPU> {
  if (instance) return instance
  // Mesa complains on every start when it is unset.
  process.env.XDG_RUNTIME_DIR ??= tmpdir()
  const { create, globals } = await import('webgpu')
  Object.assign(globalThis, globals)
  instance = create(toggles)
  return instance
}

const remedy =
  'install a Vulkan driver, as `npm run setup` does in the repository; the command `doctor` shows what there is'

/** The adapters of this machine that WebGPU can use, the preferred one first. */
export async function findAdapters(): Promise<{ adapter: GPUAdapter; summary: AdapterSummary }[]> {
  const gpu = await dawn()
  const found: { adapter: GPUAdapter; summary: AdapterSummary }[] = []
  for (const options of [
    { powerPreference: 'high-performance' },
    { powerPreference: 'low-power' },
    { forceFallbackAdapter: true },
  ] as const) {
    const adapter = await gpu.requestAdapter(options).catch(() => null)
    if (!adapter) continue
    const summary = summarizeAdapter(adapter)
    if (!found.some((other) => JSON.stringify(other.summary) === JSON.stringify(summary))) {
      found.push({ adapter, summary })
    }
  }
  return found
}

/** The adapter of that name, or the preferred one. Throws NoAdapterError where there is none. */
export async function findAdapter({
  gpu,
}: OpenOptions = {}): Promise<{ adapter: GPUAdapter; summary: AdapterSummary }> {
  const found = await findAdapters()
  if (found.length === 0) throw new NoAdapterError(`no WebGPU adapter: ${remedy}`)
  const names = found.map(({ summary }) => `${summary.vendor} ${summary.device} ${summary.driver}`)
  const wanted = gpu?.toLowerCase()
  const choice = wanted === undefined ? 0 : names.findIndex((name) => name.toLowerCase().includes(wanted))
  const chosen = found[choice]
  if (!chosen) throw new NoAdapterError(`no adapter is named '${gpu}'; there is: ${names.join('; ')}`)
  return chosen
}

/** Opens a WebGPU device through Dawn in Node. Throws NoAdapterError where there is none of that name. */
export async function open(options: OpenOptions = {}): Promise<Device> {
  const { adapter, summary } = await findAdapter(options)
  return openDevice(adapter, summary, summary.software ? besideDriver : besideGpu, options.bindingLimit)
}
