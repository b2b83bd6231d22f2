import { type Device, DeviceLostError } from '#dist/engine/device.js'
import type { Side, WatchEvent, WatchOptions } from '../../protocol.js'
import { log, tell } from '../host.js'
import type { DeviceKeeper } from '../machine.js'
import { Learner, type LearnerState, stepsOf } from './learner.js'
import { type Extent, large, paintWorld, small, type World } from './scenes.js'

/** A page that shows a hundred numbers in a second shows none. */
const shortestPause = 80

const send = (event: WatchEvent): void => tell('watch', event)

interface Runner {
  readonly side: Side
  readonly method: string
  learner: Learner
  /** The last copy of the training. */
  saved: LearnerState | undefined
  /** Undefined until the steps are compiled. */
  compiled: Promise<void> | undefined
  isReady: boolean
  told: number
}

/** Two trainings from the same labels and seed, a step of each in turn. Ends when it is aborted, or both are done. */
export class Watch {
  private paused = false
  private resume: () => void = () => {}
  private world: World | undefined
  private extent: Extent = large

  constructor(
    private readonly keeper: DeviceKeeper,
    private readonly options: WatchOptions,
    private readonly signal: AbortSignal,
  ) {
    signal.addEventListener('abort', () => this.resume())
  }

  pause(paused: boolean): void {
    this.paused = paused
    if (!paused) this.resume()
  }

  async run(): Promise<void> {
    let device = await this.keeper.device()
    if (this.signal.aborted) return
    this.extent = device.adapter.software ? small : large
    const { seed } = this.options
    this.world = paintWorld(seed, this.extent)
    const { labeled, heldOut } = this.world
    send({ kind: 'scenes', labeled, heldOut, steps: stepsOf(this.extent) })
    let saved: ReadonlyMap<Side, LearnerState> = new Map()
    for (;;) {
      const runners = this.runnersOn(device, saved)
      try {
        await this.train(runners)
        return
      } catch (error) {
        if (!(error instanceof DeviceLostError) || this.signal.aborted) throw error
        saved = new Map(runners.flatMap(({ side, saved: state }) => (state ? [[side, state] as const] : [])))
        device = await this.keeper.device()
        const step = Math.min(...runners.map(({ saved: state }) => state?.training.iteration ?? 0))
        send({ kind: 'restarted', step, reason: error.message })
        log(`trainings go on from step ${step}, on another device`)
      } finally {
        await Promise.all(runners.map(({ compiled }) => compiled?.catch(() => undefined)))
        for (const { learner } of runners) learner.destroy()
      }
    }
  }

  private runnersOn(device: Device, saved: ReadonlyMap<Side, LearnerState>): [Runner, Runner] {
    const { method, seed } = this.options
    const make = (side: Side, name: string): Runner => ({
      side,
      method: name,
      learner: Learner.create(device, name, seed, this.extent, this.worldOf()),
      saved: saved.get(side),
      compiled: undefined,
      isReady: false,
      told: 0,
    })
    return [make('supervised', 'supervised'), make('method', method)]
  }

  private async train(runners: readonly [Runner, Runner]): Promise<void> {
    const [first, second] = runners
    const steps = stepsOf(this.extent)
    // What both begin with is the same network: it is shown before anything else is compiled.
    if (!first.saved) {
      await this.look(first)
      await this.look(second)
    }
    await this.begin(first)
    // The first one may learn while the steps of the other are compiled, but not run away from it.
    second.compiled = this.begin(second)
    second.compiled.catch(() => {})
    while (!this.signal.aborted) {
      const ahead = first.learner.step - second.learner.step
      const next = second.isReady && ahead > 0 ? second : first
      if (next.learner.step >= steps) break
      if (next === first && !second.isReady && ahead >= this.extent.look) {
        await second.compiled
        continue
      }
      await this.step(next)
      while (this.paused && !this.signal.aborted) {
        await new Promise<void>((resolve) => {
          this.resume = resolve
        })
      }
    }
  }

  private async begin(runner: Runner): Promise<void> {
    const { side, learner, saved } = runner
    await learner.compile((done, all) => {
      send({ kind: 'compiling', side, done, all })
      tell('compiling', { what: runner.method, done, all })
    })
    if (saved) learner.restore(saved)
    else runner.saved = await learner.save()
    runner.isReady = true
    tell('memory', { what: `a step of ${runner.method}`, bytes: learner.bytes })
  }

  private async step(runner: Runner): Promise<void> {
    const { learner, side } = runner
    const begin = performance.now()
    const loss = await learner.learn()
    const now = performance.now()
    const isDue = learner.step % this.extent.look === 0
    if (isDue || now - runner.told > shortestPause) {
      runner.told = now
      send({ kind: 'loss', side, step: learner.step, loss, milliseconds: now - begin })
    }
    if (!isDue) return
    await this.look(runner)
    runner.saved = await learner.save()
  }

  private async look({ learner, side }: Runner): Promise<void> {
    const { miou, masks } = await learner.look(this.worldOf().heldOut)
    send({ kind: 'masks', side, step: learner.step, miou, masks })
  }

  private worldOf(): World {
    if (!this.world) throw new Error('unreachable: nothing is painted yet')
    return this.world
  }
}
