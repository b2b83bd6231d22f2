import { tmpdir } from 'node:os'
import { type Backend, summarizeAdapter, usableMatrixShapes } from './adapter.js'
import { backendsOf, isListedAs, type ListedDevice, type Offer, orderByBackend, parseDeviceList } from './backend.js'
import type { Device, Wait } from './device.js'
import { NoAdapterError } from './error.js'
import { openDevice } from './open-device.js'
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
  /**
   * Part of the adapter's name, such as `nvidia` or `llvmpipe`, or of that of its driver or backend; the preferred adapter
   * when absent.
   */
  readonly gpu?: string | undefined
  /** Bytes that a kernel binds at most, where the adapter allows more: to try what other adapters will have to do. */
  readonly bindingLimit?: number
  /** Toggles of Dawn's that are switched on, to measure what they save. */
  readonly toggles?: readonly string[] | undefined
}

export { NoAdapterError } from './error.js'

const enabled = [
  // Dawn hides subgroup matrices, and half precision on NVIDIA, behind these.
  'allow_unsafe_apis',
  'vulkan_enable_f16_on_nvidia',
]
const disabled = [
  // It rounds time stamps to 0.1 ms, so that web pages learn nothing from them.
  'timestamp_quantization',
]

/** By their options. Dawn keeps a reference to an instance while its objects live. */
const instances = new Map<string, GPU>()

/** An instance of Dawn. @param options further ones, such as `backend=vulkan` */
async function dawn(options: readonly string[], toggles: readonly string[] = []): Promise<GPU> {
  const all = [
    `enable-dawn-features=${[...enabled, ...toggles].join()}`,
    `disable-dawn-features=${disabled.join()}`,
    ...options,
  ]
  const known = instances.get(String(all))
  if (known) return known
  // Mesa complains on every start when it is unset.
  process.env.XDG_RUNTIME_DIR ??= tmpdir()
  const { create, globals } = await import('webgpu').catch(explainMissing)
  Object.assign(globalThis, globals)
  const instance = create(all)
  instances.set(String(all), instance)
  return instance
}

/** A project says itself whether it wants the 137 MB of Dawn for all platforms. */
function explainMissing(error: unknown): never {
  if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
  throw new NoAdapterError('the package webgpu is missing, which brings WebGPU to Node: npm install webgpu')
}

const remedy =
  'install a Vulkan driver, as `npm run setup` does in the repository; the command `doctor` shows what there is'

/** An adapter that was found, and how it is found again. */
export interface FoundAdapter extends Offer {
  readonly adapter: GPUAdapter
  readonly renew: () => Promise<GPUAdapter>
}

type Wanted = GPURequestAdapterOptions & { readonly forceFallbackAdapter?: boolean }

async function request(
  backend: Backend,
  options: readonly string[],
  wanted: Wanted,
  toggles: OpenOptions['toggles'],
): Promise<FoundAdapter | undefined> {
  const gpu = await dawn([`backend=${backend}`, ...options], toggles)
  const adapter = await gpu.requestAdapter(wanted).catch(() => null)
  if (!adapter) return undefined
  const renew = async () => (await gpu.requestAdapter(wanted)) ?? adapter
  const summary = { ...summarizeAdapter(adapter), backend }
  return { adapter, summary, matrixUnits: usableMatrixShapes(adapter).length > 0, renew }
}

const preferences: readonly Wanted[] = [
  { powerPreference: 'high-performance' },
  { powerPreference: 'low-power' },
  { forceFallbackAdapter: true },
]

/** The adapters of this machine that WebGPU prefers in some way, in the order in which they are taken. */
export async function findAdapters({ toggles }: Pick<OpenOptions, 'toggles'> = {}): Promise<FoundAdapter[]> {
  const found: FoundAdapter[] = []
  for (const backend of backendsOf(process.platform)) {
    for (const wanted of preferences) {
      const offer = await request(backend, [], wanted, toggles)
      const isKnown = found.some(({ summary }) => JSON.stringify(summary) === JSON.stringify(offer?.summary))
      if (offer && !isKnown) found.push(offer)
    }
  }
  return orderByBackend(found)
}

/** All devices that drivers offer, in any backend of Dawn's: identical ones each by itself. */
export async function listDevices(): Promise<ListedDevice[]> {
  const instance = await dawn(['adapter=?'])
  return instance.requestAdapter().then(
    () => [],
    (error: unknown) => parseDeviceList(error instanceof Error ? error.message : String(error)),
  )
}

/** The devices that are not preferred in any way, each name once: Dawn opens the first of a name. */
async function findOthers(found: readonly FoundAdapter[], toggles: OpenOptions['toggles']): Promise<FoundAdapter[]> {
  const listed = await listDevices()
  const others: FoundAdapter[] = []
  for (const backend of backendsOf(process.platform)) {
    const known = found.map(({ summary }) => summary)
    for (const { name } of listed.filter((each) => each.backend === backend)) {
      if (known.some((summary) => isListedAs(summary, { backend, name }))) continue
      const offer = await request(backend, [`adapter=${name}`], {}, toggles)
      if (!offer) continue
      known.push(offer.summary)
      others.push(offer)
    }
  }
  return others
}

/** The adapter of that name, or the preferred one. Throws NoAdapterError where there is none. */
export async function findAdapter({ gpu, toggles }: OpenOptions = {}): Promise<FoundAdapter> {
  const found = await findAdapters({ toggles })
  const nameOf = ({ summary: { vendor, device, driver, backend } }: FoundAdapter) =>
    `${vendor} ${device} ${driver} ${backend}`
  const isWanted = (each: FoundAdapter) =>
    nameOf(each)
      .toLowerCase()
      .includes(gpu?.toLowerCase() ?? '')
  const chosen = found.find(isWanted)
  if (chosen) return chosen
  const others = await findOthers(found, toggles)
  const all = [...found, ...others]
  if (all.length === 0) throw new NoAdapterError(`no WebGPU adapter: ${remedy}`)
  const other = others.find(isWanted)
  if (!other) throw new NoAdapterError(`no adapter is named '${gpu}'; there is: ${all.map(nameOf).join('; ')}`)
  return other
}

/** Opens a WebGPU device through Dawn in Node. Throws NoAdapterError where there is none of that name. */
export async function open(options: OpenOptions = {}): Promise<Device> {
  const { adapter, summary, renew } = await findAdapter(options)
  const { bindingLimit } = options
  const device = await openDevice(adapter, summary, summary.software ? besideDriver : besideGpu, {
    bindingLimit,
    renew,
  })
  device.reopen = () => open(options)
  return device
}
