import type { Device } from './device.js'
import { AtrousError } from './error.js'
import type { KernelInfo, RunTimes } from './profile.js'
import {
  type Run,
  type RunRecorder,
  replay,
  replayTimed,
  type Step,
  setRecorder,
  type TimestampWriter,
} from './replay.js'
import type { GPUCommandEncoder, GPUComputePassTimestampWrites, GPUDevice } from './webgpu-types.js'

/** WebGPU's limit for one query set. */
const setSize = 4096
const stampBytes = 8

/** Time stamps that a device writes between its commands. */
export class Timestamps implements TimestampWriter {
  private readonly sets: GPUQuerySet[] = []
  private used = 0
  private origin: bigint | undefined

  constructor(private readonly device: Device) {}

  /** Stamps written since the last `read`, which is the place of the next one in what that will return. */
  get count(): number {
    return this.used
  }

  /** For a pass that writes the next stamp when everything before its end is done. */
  atEnd(): GPUComputePassTimestampWrites {
    const index = Math.floor(this.used / setSize)
    this.sets[index] ??= this.device.gpu.createQuerySet({ label: 'time stamps', type: 'timestamp', count: setSize })
    return { querySet: this.sets[index], endOfPassWriteIndex: this.used++ % setSize }
  }

  /** Writes the next stamp when everything before it is done. */
  mark(encoder: GPUCommandEncoder): void {
    encoder.beginComputePass({ label: 'time stamp', timestampWrites: this.atEnd() }).end()
  }

  /** The stamps since the last call, in their order: nanoseconds since the first one of all. */
  async read(): Promise<number[]> {
    const count = this.used
    this.used = 0
    if (count === 0) return []
    const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC
    const { gpu } = this.device
    const buffer = gpu.createBuffer({ label: 'time stamps', size: count * stampBytes, usage })
    const encoder = gpu.createCommandEncoder({ label: 'time stamps' })
    for (let first = 0; first < count; first += setSize) {
      const set = this.sets[first / setSize]
      if (set) encoder.resolveQuerySet(set, 0, Math.min(setSize, count - first), buffer, first * stampBytes)
    }
    gpu.queue.submit([encoder.finish()])
    const [copy] = await this.device.read([{ buffer, bytes: count * stampBytes }])
    buffer.destroy()
    const stamps = new BigUint64Array(copy ?? new ArrayBuffer(0))
    // Some clocks count from 1970: in a double their nanoseconds would be rounded.
    const origin = this.origin ?? stamps[0] ?? 0n
    this.origin = origin
    return Array.from(stamps, (stamp) => Number(stamp - origin))
  }

  destroy(): void {
    for (const set of this.sets.splice(0)) set.destroy()
  }
}

/** `runs`: when each run of a program began and ended, which costs next to nothing; `kernels`: each kernel as well. */
export type Detail = 'runs' | 'kernels'

/** A run that is recorded, whose stamps the device has not yet been asked for. */
interface Recorded extends Omit<RunTimes, 'start' | 'end' | 'kernels'> {
  readonly kernels: readonly KernelInfo[]
  /** Place of its first stamp. */
  readonly first: number
}

/** Times the programs that run while it is a device's recorder. */
export class Recorder implements RunRecorder {
  private readonly recorded: Recorded[] = []

  constructor(
    private readonly stamps: Timestamps,
    private readonly detail: Detail,
  ) {}

  submit(gpu: GPUDevice, { program, began, steps, kernels }: Run): void {
    const first = this.stamps.count
    const encoder = gpu.createCommandEncoder({ label: program })
    if (this.detail === 'kernels') replayTimed(encoder, steps, this.stamps)
    else {
      this.stamps.mark(encoder)
      replay(encoder, program, steps)
      this.stamps.mark(encoder)
    }
    const commands = encoder.finish()
    const encoded = performance.now()
    gpu.queue.submit([commands])
    const timed = this.detail === 'kernels' ? kernels() : []
    this.recorded.push({ program, began, encoded, submitted: performance.now(), kernels: timed, first })
  }

  /** The runs that were recorded, once the device has finished them. */
  async finish(): Promise<RunTimes[]> {
    const stamps = await this.stamps.read()
    // A device may stamp late commands early where it works ahead: no kernel begins before the one in front of it ends.
    for (const [i, stamp] of stamps.entries()) stamps[i] = Math.max(stamp, stamps[i - 1] ?? stamp)
    const at = (i: number): number => stamps[i] ?? 0
    return this.recorded.map(({ kernels, first, ...run }) => ({
      ...run,
      start: at(first),
      end: at(first + Math.max(1, kernels.length)),
      kernels: kernels.map((kernel, k) => ({ ...kernel, start: at(first + k), end: at(first + k + 1) })),
    }))
  }
}

/** The adapter has no clock that programs can read. */
export class NoTimestampsError extends AtrousError {
  override name = 'NoTimestampsError'
}

/** Writes a little, so that the next one has to wait for it as most kernels have to wait for those before them. */
const tinyKernel = `@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1) fn main() { y[0] += 1; }`
const tinyKernels = 64
const measurements = 31

/** Times the programs of a device by the device's own clock. */
export class Profiler {
  private readonly stamps: Timestamps

  /** @throws NoTimestampsError where the adapter has no time stamps */
  constructor(private readonly device: Device) {
    if (!device.gpu.features.has('timestamp-query')) {
      throw new NoTimestampsError(
        `the adapter ${device.adapter.device} has no time stamps (WebGPU's feature timestamp-query), ` +
          'so its kernels cannot be timed',
      )
    }
    this.stamps = new Timestamps(device)
  }

  /** Calls `body` and gives the times of the programs that ran in it, in their order. */
  async record<T>(detail: Detail, body: () => Promise<T>): Promise<{ result: T; runs: RunTimes[] }> {
    const recorder = new Recorder(this.stamps, detail)
    setRecorder(this.device.gpu, recorder)
    let result: T
    try {
      result = await body()
    } finally {
      setRecorder(this.device.gpu, undefined)
    }
    return { result, runs: await recorder.finish() }
  }

  /** Nanoseconds that a time stamp adds to a kernel, the median of several measurements. */
  async stampCost(): Promise<number> {
    const { gpu } = this.device
    const pipeline = await this.device.wait(this.device.pipeline('tiny kernel', tinyKernel, 'w'))
    const buffer = this.device.storage('tiny kernel', 4)
    const entries = [{ binding: 1, resource: { buffer } }]
    const bindGroup = gpu.createBindGroup({ layout: this.device.layout('w'), entries })
    const step: Step = { kind: 'dispatch', pipeline, bindGroup, grid: [1, 1, 1], label: 'tiny kernel' }
    const steps = Array.from({ length: tinyKernels }, () => step)
    const costs: number[] = []
    for (let k = 0; k < measurements; k++) {
      const encoder = gpu.createCommandEncoder({ label: 'time stamps' })
      this.stamps.mark(encoder)
      replay(encoder, 'tiny kernels', steps)
      replayTimed(encoder, steps, this.stamps)
      gpu.queue.submit([encoder.finish()])
      const [begin = 0, middle = 0, ...timed] = await this.stamps.read()
      costs.push(((timed.at(-1) ?? 0) - middle - (middle - begin)) / tinyKernels)
    }
    buffer.destroy()
    return Math.max(0, costs.sort((a, b) => a - b)[Math.floor(measurements / 2)] ?? 0)
  }

  destroy(): void {
    this.stamps.destroy()
  }
}
