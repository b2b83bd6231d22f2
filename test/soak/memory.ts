import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Device } from '#dist/engine/device.js'

/** Memory at one moment, in MiB. */
export interface Sample {
  readonly at: number
  /** Of the process. */
  readonly rss: number
  readonly heap: number
  /** The most that the device's buffers held since the sample before. */
  readonly device: number
  /** Buffers that are alive. */
  readonly buffers: number
}

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

const mebibytes = (bytes: number): number => bytes / 2 ** 20

/** Counts the bytes of a device's buffers from their making to their `destroy`; one that is only forgotten stays. */
export class MemoryLog {
  readonly samples: Sample[] = []
  private live = 0
  private count = 0
  private peak = 0

  constructor(device: Device) {
    const { gpu } = device
    const create = gpu.createBuffer.bind(gpu)
    gpu.createBuffer = (descriptor) => {
      const buffer = create(descriptor)
      const destroy = buffer.destroy.bind(buffer)
      let alive = true
      this.live += buffer.size
      this.count++
      this.peak = Math.max(this.peak, this.live)
      buffer.destroy = () => {
        if (alive) {
          this.live -= buffer.size
          this.count--
        }
        alive = false
        return destroy()
      }
      return buffer
    }
  }

  /**
   * Takes a sample after so many steps, and prints it. Garbage goes first: between two collections, which are rare in a
   * heap this small, handles of the device's objects pile up.
   */
  take(at: number, what: string): void {
    collectGarbage()
    const { rss, heapUsed } = process.memoryUsage()
    const sample = {
      at,
      rss: mebibytes(rss),
      heap: mebibytes(heapUsed),
      device: mebibytes(this.peak),
      buffers: this.count,
    }
    this.peak = this.live
    this.samples.push(sample)
    console.log(
      `${String(at).padStart(6)} ${what}  process ${sample.rss.toFixed(1)} MiB, heap ${sample.heap.toFixed(1)} MiB  ` +
        `device ${sample.device.toFixed(3)} MiB in ${sample.buffers} buffers`,
    )
  }

  /**
   * Throws where memory grows after the first half of the samples: the process by more than `process` MiB, the
   * device by more than `device` MiB, or the number of its buffers.
   */
  checkFlat(what: string, allowed: { readonly process: number; readonly device: number }): void {
    const middle = Math.ceil(this.samples.length / 2)
    const most = (key: 'rss' | 'device' | 'buffers', part: readonly Sample[]) =>
      Math.max(...part.map((one) => one[key]))
    const [first, second] = [this.samples.slice(1, middle), this.samples.slice(middle)]
    if (first.length === 0) throw new Error(`${what}: too few samples`)
    const growth = most('rss', second) - most('rss', first)
    console.log(`${what}: from the first half to the second the process grows by ${growth.toFixed(1)} MiB at most`)
    if (growth > allowed.process) throw new Error(`${what}: the process grows by ${growth.toFixed(1)} MiB`)
    for (const key of ['device', 'buffers'] as const) {
      const [before, after] = [most(key, first), most(key, second)]
      if (after > before + (key === 'device' ? allowed.device : 0))
        throw new Error(`${what}: the device goes from ${before} to ${after} (${key})`)
    }
  }
}
