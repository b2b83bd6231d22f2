import type { Device } from '#dist/engine/device.js'
import type { Profile } from '#dist/engine/profile.js'
import { Store } from '#dist/engine/store.js'
import { chooseModel, createModel, type ModelChoice } from '#dist/models/index.js'
import type { Batch } from '#dist/train/data/batch.js'
import { StepProfiler } from '#dist/train/run/step-profiler.js'
import { createTrainer, drawDropout, type Method, type Trainer } from '#dist/train/trainer/trainer.js'
import { Random } from '../cases/case.js'
import { type Timing, timingOf } from './timing.js'

/** Models of the step: the widths of the reference trajectories, and the full ones. */
export const stepModels = {
  small: {
    nclass: 5,
    model: {
      stem: [8, 8, 16],
      planes: [8, 12, 16, 32],
      blocks: [1, 2, 1, 2],
      reduce_channels: 6,
      aspp_channels: 16,
      fuse_channels: 24,
    },
  },
  resnet50: { nclass: 21, backbone: 'resnet50' },
  resnet101: { nclass: 21, backbone: 'resnet101' },
} as const satisfies Record<string, ModelChoice>

export interface StepMeasurement extends Timing {
  readonly method: Method
  readonly crop: number
  /** Labeled images, and unlabeled ones. */
  readonly images: readonly [number, number]
  /** Milliseconds until the first step can run: trace, plan and pipelines. */
  readonly compile: number
  readonly dispatches: number
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

/** The training step of a model with as many unlabeled images as labeled ones, where the method has any. */
export async function stepTrainer(
  device: Device,
  choice: ModelChoice,
  method: Method,
  { crop, batch }: { crop: number; batch: number },
  amp = false,
): Promise<Trainer> {
  const model = createModel(new Store(device, 'model'), chooseModel(choice))
  const config = {
    method,
    dataset: 'pascal',
    epochs: 10,
    lr: 0.001,
    lr_multi: 10,
    criterion: { name: 'CELoss', kwargs: {} },
    conf_thresh: 0.5,
    prev: { list_max_len: 1, model_num: 1, random_select: false, conf_thresh: 0.5, base_only_epoch: 0 },
    ignore_index: 255,
  } as const
  const unlabeled = method === 'supervised' ? 0 : batch
  const sizes = { labeled: batch, unlabeled, height: crop, width: crop }
  return createTrainer(device, model, config, { iterationsPerEpoch: 100, amp, ...sizes })
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
  method: Method,
  { crop, batch }: { crop: number; batch: number },
  { steps = 5, profileSteps = 0, amp = false }: { steps?: number; profileSteps?: number; amp?: boolean } = {},
): Promise<StepMeasurement> {
  const profiler = profileSteps > 0 ? new StepProfiler(device, profileSteps) : undefined
  const started = performance.now()
  const trainer = await stepTrainer(device, choice, method, { crop, batch }, amp)
  const compile = performance.now() - started
  const { model } = trainer
  const { unlabeled } = trainer.options
  trainer.beginEpoch(0, true)
  const random = new Random('step')
  const bytes = (count: number, below: number) => new Uint8Array(count).map(() => random.integer(below))
  const images = (n: number) => bytes(n * crop * crop * 3, 256)
  const maps = (n: number, below: number) => bytes(n * crop * crop, below)
  const data: Batch = {
    img_x: images(batch),
    mask_x: maps(batch, choice.nclass),
    img_u_w: images(unlabeled),
    img_u_s1: images(unlabeled),
    img_u_s2: images(unlabeled),
    ignore_mask: maps(unlabeled, 1),
    cutmix_box1: maps(unlabeled, 2),
    cutmix_box2: maps(unlabeled, 2),
    img_u_w_mix: images(unlabeled),
    img_u_s1_mix: images(unlabeled),
    img_u_s2_mix: images(unlabeled),
    ignore_mask_mix: maps(unlabeled, 1),
  }
  const word = () => random.integer(2) * 2 ** 31
  const draws = {
    dropout: drawDropout({ word }, batch + unlabeled, model),
    previous: { prev_indices: [0], prev_weights: [1] },
  }
  try {
    const times: number[] = []
    for (let k = 0; k <= steps; k++) {
      const before = performance.now()
      await trainer.step(data, draws)
      times.push(performance.now() - before)
    }
    const { planned, live, unshared, dispatches } = trainer.memory
    // The first step also zeroes fresh buffers.
    const timing = timingOf(times.slice(1))
    while (profiler && !profiler.profile) await profiler.step(performance.now(), () => trainer.step(data, draws))
    const memory = { dispatches, planned, live, unshared }
    const profile = profiler?.profile
    return { method, crop, images: [batch, unlabeled], ...timing, compile, ...memory, profile }
  } finally {
    profiler?.destroy()
    trainer.destroy()
    model.store.destroy()
  }
}
