import { type AdapterSummary, type AdapterTraits, canReadTextures, type MatrixConfig, traitsOf } from './adapter.js'
import { AtrousError } from './error.js'
import type { ErrorScopes } from './error-scopes.js'
import type { HalfStores } from './half-stores.js'
import { type Mirror, type MirrorFormat, mirrorWidth } from './mirror.js'
import { Pace } from './pace.js'
import type { GPUBindGroupLayout, GPUBuffer, GPUComputePipeline, GPUDevice, GPUTexture } from './webgpu-types.js'

/**
 * Waits for a promise of the device's; where a pending promise keeps a core busy, this is the place to sleep.
 * @param rest milliseconds that the device will still need for what it was given, about; 0 where that is not known
 */
export type Wait = <T>(promise: Promise<T>, rest: () => number) => Promise<T>

const awaitPlainly: Wait = (promise) => promise

/** Gets the message of an error that a device told, of its memory or of what is invalid. */
export type ErrorReport = (message: string, isMemory: boolean) => void

/** What is known of a device beside what WebGPU says of it. */
export interface DeviceFacts {
  /** What the adapter's matrix units compute. */
  readonly matrixConfigs?: readonly MatrixConfig[]
  /** Bytes that a kernel binds at most, where the adapter allows more. */
  readonly bindingLimit?: number | undefined
  /** How the driver stores f16; absent where it is taken for exact. */
  readonly halfStores?: HalfStores | undefined
  /** What makes kernels of shaders that round by themselves, where the driver does not: see `roundHalfStores`. */
  readonly roundStores?: ((source: string) => string) | undefined
  /** What tells errors apart where its owner works with it as well: see `shareDevice`. */
  readonly scopesOf?: (report: ErrorReport) => ErrorScopes
}

/** A tensor is larger than what the adapter binds at once, or than its buffers. */
export class BindingLimitError extends AtrousError {
  override name = 'BindingLimitError'

  constructor(
    what: string,
    readonly bytes: number,
    readonly limit: number,
    kind: 'binding' | 'buffer' = 'binding',
  ) {
    const most = `at most ${megabytes(limit)}`
    super(
      `${what} is too large: this adapter ${kind === 'binding' ? `binds ${most} at once` : `has buffers of ${most}`}`,
    )
  }
}

/** The device has no memory left. */
export class OutOfMemoryError extends AtrousError {
  override name = 'OutOfMemoryError'
}

/** The device is gone: a driver reset, a GPU that was removed, a device that was destroyed. Nothing on it can be read. */
export class DeviceLostError extends AtrousError {
  override name = 'DeviceLostError'
}

/** The device was asked for something that WebGPU forbids: a fault of the program. */
export class ValidationError extends AtrousError {
  override name = 'ValidationError'
}

/** The driver, or Dawn, refuses a kernel: what it has told of itself does not hold. */
export class KernelError extends AtrousError {
  override name = 'KernelError'
}

/**
 * What a pipeline binds, in order: `u`niform, `r`ead-only storage, read-`w`rite storage, mirrors of `f`32 and of `h`alf
 * precision, a `t`exture of bytes that is read and one of rgba8unorm that is written, an `i`mage.
 */
export type Layout = string

const mirrorBinding = (format: MirrorFormat) =>
  ({ storageTexture: { access: 'read-only', format, viewDimension: '2d' } }) as const

const bindings = {
  u: { buffer: { type: 'uniform' } },
  r: { buffer: { type: 'read-only-storage' } },
  w: { buffer: { type: 'storage' } },
  f: mirrorBinding('rgba32float'),
  h: mirrorBinding('rgba16float'),
  t: { texture: { sampleType: 'float' } },
  i: { storageTexture: { access: 'write-only', format: 'rgba8unorm' } },
} as const

/**
 * A WebGPU device whose every error is an exception: errors that WebGPU reports out of band (validation, out of memory,
 * a lost device) are kept and thrown by the next `check` or `wait`.
 */
export class Device {
  readonly traits: AdapterTraits
  /** How the driver stores f16, where that was tried: see `openDevice`. What is not exact, kernels round themselves. */
  readonly halfStores: HalfStores | undefined
  private readonly roundStores: DeviceFacts['roundStores']
  /** Undefined on the CPU, which resets nothing: there a run is one submission. */
  readonly pace: Pace | undefined
  /** Opens the same adapter once more, where whoever opened it tells how. */
  reopen: (() => Promise<Device>) | undefined
  private readonly failures: Error[] = []
  private lost: DeviceLostError | undefined
  /** Rejects what is awaited: promises of a lost device may never settle. */
  private readonly waiting = new Set<(error: DeviceLostError) => void>()
  /** By layout, then by source. */
  private readonly pipelines = new Map<Layout, Map<string, Promise<GPUComputePipeline>>>()
  private readonly layouts = new Map<Layout, GPUBindGroupLayout>()
  private closing = false
  /** Of a shared device. */
  private readonly scopes: ErrorScopes | undefined

  constructor(
    readonly gpu: GPUDevice,
    readonly adapter: AdapterSummary,
    private readonly waitFor: Wait = awaitPlainly,
    facts: DeviceFacts = {},
  ) {
    const { matrixConfigs = [], bindingLimit = Number.POSITIVE_INFINITY, halfStores, roundStores } = facts
    const { software } = adapter
    const known = { software, canReadTextures: canReadTextures(adapter), matrixConfigs, bindingLimit }
    this.traits = traitsOf(gpu, known)
    this.halfStores = halfStores
    this.roundStores = roundStores
    this.pace = adapter.software ? undefined : Pace.of(adapter)
    const report: ErrorReport = (message, isMemory) => {
      const reason = firstLines(message)
      this.failures.push(
        isMemory
          ? new OutOfMemoryError(`out of GPU memory: ${reason}`)
          : new ValidationError(`the GPU reported: ${reason}`),
      )
    }
    this.scopes = facts.scopesOf?.(report)
    if (!this.scopes) {
      gpu.addEventListener('uncapturederror', (event) => {
        event.preventDefault()
        // By its name, since Dawn's classes are globals in some places only.
        report(event.error.message, event.error.constructor.name === 'GPUOutOfMemoryError')
      })
    }
    void gpu.lost.then(({ reason, message }) => {
      if (this.closing) return
      this.end(`the GPU device was lost (${reason}): ${firstLines(message)}`)
    })
  }

  private end(message: string): void {
    const lost = new DeviceLostError(message)
    this.lost = lost
    for (const reject of this.waiting) reject(lost)
  }

  /** Throws where the device is lost or was destroyed. */
  alive(): void {
    if (this.lost) throw this.lost
  }

  /** Runs what works with the device at once; on a shared one, what is wrong with it is told apart from the owner's errors. */
  scoped<T>(body: () => T): T {
    return this.scopes ? this.scopes.around(body) : body()
  }

  /** Throws the first error that the device reported since the last check; once the device is lost, always that. */
  check(): void {
    this.alive()
    const [first] = this.failures.splice(0)
    if (first) throw first
  }

  /** Awaits a promise of the device's, then throws what the device reported meanwhile. A lost device ends the wait. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    const submitted = this.pace?.mark() ?? 0
    try {
      const value = await this.waitFor(this.orLost(promise), () => this.pace?.rest(submitted) ?? 0)
      if (this.scopes) await this.waitFor(this.orLost(this.scopes.settled()), () => 0)
      this.check()
      return value
    } catch (error) {
      // Promises are rejected by a loss before the loss itself is told.
      if (error instanceof Error && error.name === 'AbortError') await this.aboutToBeLost()
      this.check()
      throw error
    }
  }

  /** The same for a promise that is kept when all work is done that was submitted so far. */
  async waitForWork<T>(promise: Promise<T>): Promise<T> {
    const submitted = this.pace?.mark() ?? 0
    const value = await this.wait(promise)
    this.pace?.done(submitted)
    return value
  }

  private orLost<T>(promise: Promise<T>): Promise<T> {
    if (this.lost) {
      promise.catch(() => {})
      return Promise.reject(this.lost)
    }
    // Not Promise.race with gpu.lost: that promise would keep every race of a long run.
    return new Promise<T>((resolve, reject) => {
      this.waiting.add(reject)
      const done = () => this.waiting.delete(reject)
      promise.finally(done).then(resolve, reject)
    })
  }

  private async aboutToBeLost(): Promise<void> {
    for (let turn = 0; turn < 100 && !this.lost; turn++) await new Promise((resolve) => setTimeout(resolve, 10))
  }

  /** Runs `body` and throws the validation and out-of-memory errors it caused, with `what` it was doing. */
  async guarded<T>(what: () => Promise<string>, body: () => T): Promise<T> {
    this.gpu.pushErrorScope('validation')
    this.gpu.pushErrorScope('out-of-memory')
    let value: T
    let scopes: Promise<(GPUError | null)[]>
    try {
      value = body()
    } finally {
      scopes = Promise.all([this.gpu.popErrorScope(), this.gpu.popErrorScope()])
    }
    const [memory, validation] = await this.wait(scopes)
    if (memory) throw new OutOfMemoryError(`${await what()}: out of GPU memory: ${firstLines(memory.message)}`)
    if (validation) throw new ValidationError(`${await what()}: ${firstLines(validation.message)}`)
    return value
  }

  /** A storage buffer, of which kernels may bind ranges. Throws a BindingLimitError where the adapter has none so large. */
  storage(label: string, size: number): GPUBuffer {
    const limit = this.gpu.limits.maxBufferSize
    if (size > limit) throw new BindingLimitError(`${label} of ${megabytes(size)}`, size, limit, 'buffer')
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST
    return this.scoped(() => this.gpu.createBuffer({ label, size, usage }))
  }

  /** A texture for mirrors of so many rows, the first of which stays zeros; see `mirror.ts`. */
  mirror(label: string, { format, rows }: Mirror): GPUTexture {
    const usage = GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.COPY_DST
    return this.scoped(() => this.gpu.createTexture({ label, size: [mirrorWidth, rows], format, usage }))
  }

  layout(pattern: Layout): GPUBindGroupLayout {
    const known = this.layouts.get(pattern)
    if (known) return known
    const entries = [...pattern].map((letter, position) => ({
      // The uniforms, where there are any, take binding 0; storage always starts at 1.
      binding: pattern.startsWith('u') ? position : position + 1,
      visibility: GPUShaderStage.COMPUTE,
      ...bindings[letter as keyof typeof bindings],
    }))
    const layout = this.scoped(() => this.gpu.createBindGroupLayout({ label: pattern, entries }))
    this.layouts.set(pattern, layout)
    return layout
  }

  /** The pipeline of a shader, compiled once per source. Throws a KernelError with its name and the compiler's message. */
  pipeline(label: string, source: string, pattern: Layout): Promise<GPUComputePipeline> {
    const ofLayout = this.pipelines.get(pattern) ?? new Map<string, Promise<GPUComputePipeline>>()
    this.pipelines.set(pattern, ofLayout)
    const known = ofLayout.get(source)
    if (known) return known
    const made = this.compile(label, source, pattern)
    ofLayout.set(source, made)
    return made
  }

  private async compile(label: string, source: string, pattern: Layout): Promise<GPUComputePipeline> {
    this.gpu.pushErrorScope('validation')
    const code = this.roundStores?.(source) ?? source
    const module = this.gpu.createShaderModule({ label, code })
    const scope = this.gpu.popErrorScope()
    const bindGroupLayouts = [this.layout(pattern)]
    const layout = this.scoped(() => this.gpu.createPipelineLayout({ bindGroupLayouts }))
    const pipeline = this.gpu.createComputePipelineAsync({ label, layout, compute: { module, entryPoint: 'main' } })
    const settled = await Promise.allSettled([scope, pipeline])
    const invalid = settled[0].status === 'fulfilled' ? settled[0].value : undefined
    if (invalid) throw new KernelError(`kernel ${label} does not compile: ${invalid.message}`)
    if (settled[1].status === 'rejected') {
      const reason: unknown = settled[1].reason
      throw new KernelError(`kernel ${label}: ${reason instanceof Error ? reason.message : String(reason)}`)
    }
    return settled[1].value
  }

  /** Contents of `ranges` of buffers, in their order, after all work submitted so far. */
  async read(ranges: readonly { buffer: GPUBuffer; offset?: number; bytes: number }[]): Promise<ArrayBuffer[]> {
    this.alive()
    const { staging, starts } = this.scoped(() => this.copyOut(ranges))
    await this.waitForWork(staging.mapAsync(GPUMapMode.READ))
    const mapped = staging.getMappedRange()
    const copies = ranges.map(({ bytes }, i) => mapped.slice(starts[i], (starts[i] ?? 0) + bytes))
    staging.unmap()
    staging.destroy()
    return copies
  }

  private copyOut(ranges: Parameters<Device['read']>[0]) {
    const total = ranges.reduce((sum, { bytes }) => sum + align(bytes), 0)
    const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ
    const staging = this.gpu.createBuffer({ label: 'readback', size: Math.max(8, total), usage })
    const encoder = this.gpu.createCommandEncoder({ label: 'readback' })
    let end = 0
    const starts: number[] = []
    for (const { buffer, offset = 0, bytes } of ranges) {
      encoder.copyBufferToBuffer(buffer, offset, staging, end, Math.ceil(bytes / 4) * 4)
      starts.push(end)
      end += align(bytes)
    }
    this.gpu.queue.submit([encoder.finish()])
    return { staging, starts }
  }

  /** Resolves when all work submitted so far is done. */
  async idle(): Promise<void> {
    await this.waitForWork(this.gpu.queue.onSubmittedWorkDone())
  }

  /** Ends all work with it; a device that is shared stays its owner's. */
  destroy(): void {
    if (this.closing) return
    this.closing = true
    this.end('the device was destroyed: open another one')
    if (!this.scopes) this.gpu.destroy()
  }
}

/** Buffer copies and mapped ranges want multiples of 8 bytes. */
const align = (bytes: number): number => Math.ceil(bytes / 8) * 8

/** A number of bytes as people read it. */
export const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

const firstLines = (message: string): string => message.split('\n').slice(0, 4).join(' ').trim()
