import type { Device } from '../../engine/device.js'
import type { Profile, StepTimes } from '../../engine/profile.js'
import { NoTimestampsError, Profiler } from '../../engine/timestamps.js'
import { UserError } from '../error.js'

/** Steps before the first that counts: fresh buffers are zeroed and queues are empty. */
export const warmUpSteps = 3

/** Times steps as they pass: after some that warm up, `count` as they ordinarily run and `count` kernel by kernel. */
export class StepProfiler {
  private readonly profiler: Profiler
  private readonly ordinary: StepTimes[] = []
  private readonly detailed: StepTimes[] = []
  private stampCost = 0
  private seen = 0

  /** @throws UserError where the adapter has no time stamps */
  constructor(
    device: Device,
    private readonly count: number,
  ) {
    try {
      this.profiler = new Profiler(device)
    } catch (error) {
      throw error instanceof NoTimestampsError ? new UserError(error.message) : error
    }
  }

  /** Steps that it takes in all. */
  get length(): number {
    return warmUpSteps + 2 * this.count
  }

  /** The profile, once all steps are timed. */
  get profile(): Profile | undefined {
    const { ordinary, detailed, stampCost } = this
    return detailed.length < this.count ? undefined : { ordinary, detailed, stampCost }
  }

  /**
   * Runs a step, and times it if its turn has come.
   * @param began when the step before was done, by `performance.now()`
   */
  async step<T>(began: number, body: () => Promise<T>): Promise<T> {
    if (this.seen++ < warmUpSteps || this.profile) {
      if (this.seen === warmUpSteps) this.stampCost = await this.profiler.stampCost()
      return body()
    }
    const ready = performance.now()
    let done = ready
    // In turns, so that both see the same state of the machine.
    const steps = this.ordinary.length > this.detailed.length ? this.detailed : this.ordinary
    const { result, runs } = await this.profiler.record(steps === this.ordinary ? 'runs' : 'kernels', async () => {
      const value = await body()
      done = performance.now()
      return value
    })
    steps.push({ began, ready, done, runs })
    return result
  }

  destroy(): void {
    this.profiler.destroy()
  }
}
