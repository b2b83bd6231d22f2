import type { Device } from '#dist/engine/device.js'
import type { Profile } from '#dist/engine/profile.js'
import type { ModelChoice } from '#dist/models/index.js'
import { takes } from '#dist/train/data/batch.js'
import { StepProfiler } from '#dist/train/run/step-profiler.js'
import { Random } from '../cases/case.js'
import { stepTrainer } from '../cases/steps.js'
import { randomBatch } from './random-field.js'
import { type Timing, timingOf } from './timing.js'

export interface StepMeasurement extends Timing {
  readonly method: string
  readonly crop: number
  /** Labeled images, and unlabeled ones. */
  readonly images: readonly [number, number]
  /** Milliseconds until the first step can run: trace, plan and pipelines. */
  readonly compile: number
  readonly dispatches: number
  readonly hostCalls: number
  /**
   * Bytes of the values between inputs and variables: with buffers shared by lifetimes, the most that live at the same
   * time, and with a buffer for each value.
   */
  readonly planned: number
  readonly live: number
  readonly unshared: number
  /** Where it was asked for. */
  readonly profile?: Profile | undefined
}

export interface StepOptions {
  readonly steps?: number
  readonly profileSteps?: number
  readonly amp?: boolean
  /** See `stepTrainer`. */
  readonly ranks?: Parameters<typeof stepTrainer>[5]
  /** Called before the steps that are timed. */
  readonly before?: () => void
}

/**
 * Times whole training steps, uploads and the readback of the losses included.
 * @param steps so many are timed
 * @param profileSteps so many further steps are profiled, and as many beside them
 * @param amp in half precision
 */
export async function measureStep(
  device: Device,
  choice: ModelChoice,
  method: string,
  { crop, batch }: { crop: number; batch: number },
  { steps = 5, profileSteps = 0, amp = false, ranks, before }: StepOptions = {},
): Promise<StepMeasurement> {
  const profiler = profileSteps > 0 ? new StepProfiler(device, profileSteps) : undefined
  const started = performance.now()
  const trainer = await stepTrainer(device, choice, method, { crop, batch }, amp, ranks)
  const compile = performance.now() - started
  const { model } = trainer
  trainer.beginEpoch(true)
  const data = randomBatch(trainer.layout, batch, crop, choice.nclass, new Random('step'))
  try {
    const times: number[] = []
    for (let k = 0; k <= steps; k++) {
      if (k === 1) before?.()
      const began = performance.now()
      await trainer.step(data)
      times.push(performance.now() - began)
    }
    const { planned, live, unshared, dispatches, hostCalls } = trainer.memory
    // The first step also zeroes fresh buffers.
    const timing = timingOf(times.slice(1))
    while (profiler && !profiler.profile) await profiler.step(performance.now(), () => trainer.step(data))
    const memory = { dispatches, hostCalls, planned, live, unshared }
    const profile = profiler?.profile
    return {
      method,
      crop,
      images: [batch, takes(trainer.layout, 'unlabeled') ? batch : 0],
      ...timing,
      compile,
      ...memory,
      profile,
    }
  } finally {
    profiler?.destroy()
    trainer.destroy()
    model.store.destroy()
  }
}
