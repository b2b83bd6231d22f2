import type { Device } from './device.js'
import type { HostCall } from './kernel.js'
import { copyInfo } from './lower.js'
import type { KernelInfo } from './profile.js'
import { type BufferAddress, type Step, submit } from './replay.js'
import { byteLength, type Data, type Spec } from './shape.js'
import { typedArray, upload } from './store.js'
import type { GPUBuffer } from './webgpu-types.js'

/** Where a value lies that a host call gets or gives. */
export interface HostValue extends BufferAddress {
  readonly spec: Spec
}

export interface HostBegin {
  readonly kind: 'host begin'
  readonly call: HostCall
  readonly from: readonly HostValue[]
}

export interface HostEnd {
  readonly kind: 'host end'
  readonly begin: HostBegin
  readonly to: readonly HostValue[]
}

/** What a replay executes, and where JavaScript takes part in it. */
export type AnyStep = Step | HostBegin | HostEnd

export const isHostStep = (step: AnyStep): step is HostBegin | HostEnd =>
  step.kind === 'host begin' || step.kind === 'host end'

/** Steps that are submitted together, and what JavaScript does behind them. */
export interface Segment {
  readonly steps: readonly Step[]
  /** What each of them does. */
  readonly kernels: readonly KernelInfo[]
  readonly host: HostBegin | HostEnd | undefined
}

/** @param kernels what each of the steps does */
export function segmentsOf(all: readonly AnyStep[], kernels: readonly KernelInfo[]): Segment[] {
  const segments: Segment[] = []
  let [steps, infos]: [Step[], KernelInfo[]] = [[], []]
  const close = (host: Segment['host']) => {
    segments.push({ steps, kernels: infos, host })
    ;[steps, infos] = [[], []]
  }
  for (const [i, step] of all.entries()) {
    if (isHostStep(step)) close(step)
    else {
      steps.push(step)
      infos.push(kernels[i] ?? copyInfo('', 0))
    }
  }
  close(undefined)
  return segments
}

/**
 * Runs a program that holds host calls. They begin in their order on every run, each when its values are there; what does
 * not need their results is computed meanwhile.
 *
 * @param ends where a submission of so many steps is cut, by what they do
 */
export async function runSegments(
  device: Device,
  program: string,
  segments: readonly Segment[],
  ends: (kernels: readonly KernelInfo[]) => readonly number[] | undefined,
): Promise<void> {
  const results = new Map<HostBegin, Promise<readonly Data[]>>()
  const send = (steps: readonly Step[], kernels: readonly KernelInfo[]) => {
    if (steps.length === 0) return
    const run = { program, began: performance.now(), steps, ends: ends(kernels), kernels: () => kernels }
    device.scoped(() => submit(device.gpu, run))
    device.check()
  }
  let turn: Promise<unknown> = Promise.resolve()
  for (const { steps, kernels, host } of segments) {
    if (host?.kind !== 'host begin') send(steps, kernels)
    if (host?.kind === 'host begin') {
      const readback = new Readback(device, host.from)
      send([...steps, ...readback.copies], [...kernels, ...readback.kernels])
      const values = readback.values()
      // A result is not awaited before the next call begins: hence the object around its promise.
      const begun = turn.then(async () => {
        const got = await values
        return { result: host.call.run(got) }
      })
      turn = begun
      const result = begun.then((call) => call.result)
      // Whoever needs it gets the error; the first one ends the run, and the others must not count as unhandled.
      for (const promise of [values, begun, result]) promise.catch(() => {})
      results.set(host, result)
    } else if (host) {
      const given = await results.get(host.begin)
      for (const [i, { buffer, offset, spec }] of host.to.entries()) {
        const data = given?.[i]
        if (!data) throw new Error(`${program}: the host call ${host.begin.call.label} gave no result ${i}`)
        upload(device, buffer, spec, data, `${program}: host call ${host.begin.call.label}`, offset)
      }
    }
  }
}

/** Staging buffers that are not in use, by their sizes: a fresh one costs more than a small readback. */
const idleBuffers = new WeakMap<Device, Map<number, GPUBuffer[]>>()

/** Values on their way to JavaScript, all through one staging buffer. */
class Readback {
  readonly copies: readonly Step[]
  readonly kernels: readonly KernelInfo[]
  private readonly idle: GPUBuffer[]
  private readonly staging: GPUBuffer
  private readonly offsets: number[] = []

  constructor(
    private readonly device: Device,
    private readonly from: readonly HostValue[],
  ) {
    let end = 0
    for (const { spec } of from) {
      this.offsets.push(end)
      // Mapped ranges begin at multiples of 8 bytes.
      end += Math.ceil(byteLength(spec) / 8) * 8
    }
    const size = 2 ** Math.ceil(Math.log2(Math.max(256, end)))
    const ofDevice = idleBuffers.get(device) ?? new Map<number, GPUBuffer[]>()
    idleBuffers.set(device, ofDevice)
    this.idle = ofDevice.get(size) ?? []
    ofDevice.set(size, this.idle)
    const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ
    const create = () => device.gpu.createBuffer({ label: 'host call', size, usage })
    this.staging = this.idle.pop() ?? device.scoped(create)
    this.copies = from.map(({ buffer, offset, spec }, i) => {
      const to = { buffer: this.staging, offset: this.offsets[i] ?? 0 }
      return { kind: 'copy', from: { buffer, offset }, to, bytes: byteLength(spec) }
    })
    this.kernels = from.map(({ spec }) => copyInfo('for a host call', byteLength(spec)))
  }

  /** Once the copies are submitted. */
  async values(): Promise<Data[]> {
    await this.device.waitForWork(this.staging.mapAsync(GPUMapMode.READ))
    const mapped = this.staging.getMappedRange()
    const values = this.from.map(({ spec }, i) => {
      const start = this.offsets[i] ?? 0
      return typedArray(mapped.slice(start, start + byteLength(spec)), spec)
    })
    this.staging.unmap()
    this.idle.push(this.staging)
    return values
  }
}
