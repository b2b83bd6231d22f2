import { classNames, palette } from '#dist/demo/classes.js'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { parseConfig } from '#dist/train/config/parse.js'
import type { Config } from '#dist/train/config/schema.js'
import type { Batch } from '#dist/train/data/batch.js'
import { memoryBatch } from '#dist/train/data/memory-batch.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { firstModelOf } from '#dist/train/methods/index.js'
import { PURPOSE, Random } from '#dist/train/random.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import type { Trainer } from '#dist/train/trainer/trainer.js'
import { copyTrainer, restoreTrainer, type TrainerCopy } from '#dist/train/trainer/trainer-state.js'
import type { Scene } from '../../protocol.js'
import type { Extent, World } from './scenes.js'

/** What a training needs to go on elsewhere, in memory of the host. */
export interface LearnerState {
  readonly training: TrainerCopy
  readonly best: number
  readonly newBest: boolean
}

/** The settings of configs/demo.yaml, at another size. */
export function settingsOf(method: string, seed: number, { crop, batchSize, epochs, size }: Extent): Config {
  return parseConfig(
    {
      dataset: 'scenes',
      class_names: [...classNames],
      palette: palette.map((color) => [...color]),
      method,
      seed,
      epochs,
      epoch_of: 'unlabeled',
      crop_size: crop,
      batch_size: batchSize,
      lr: 0.005,
      lr_multi: 1,
      optimizer: { name: 'adamw' },
      conf_thresh: 0.95,
      prev: { conf_thresh: 0.9 },
      augseg: { threshold: 0.95, ema_decay: 0.99, resize: { base: size } },
      model: {
        stem: [12, 12, 16],
        planes: [16, 24, 32, 32],
        blocks: [1, 1, 1, 1],
        expansion: 2,
        reduce_channels: 16,
        aspp_channels: 32,
        fuse_channels: 32,
      },
      replace_stride_with_dilation: [false, true, true],
      dilations: [1, 2, 4],
    },
    'the training that is watched',
  )
}

/** Steps of a training, the same for every method. */
export const stepsOf = ({ unlabeled, batchSize, epochs }: Extent): number => Math.floor(unlabeled / batchSize) * epochs

export interface Look {
  readonly miou: number
  readonly masks: readonly Uint8Array<ArrayBuffer>[]
}

/** One of the two trainings. */
export class Learner {
  private trainer: Trainer | undefined
  private best = 0
  /** Whether the present epoch has a better look than all before: then methods may keep a copy of the weights. */
  private newBest = false

  private constructor(
    private readonly settings: Config,
    private readonly extent: Extent,
    private readonly model: SegmentationModel,
    private readonly evaluator: Evaluator,
    private readonly world: World,
  ) {}

  static create(device: Device, method: string, seed: number, extent: Extent, world: World): Learner {
    const settings = settingsOf(method, seed, extent)
    const store = new Store(device, `model of ${method}`)
    const model = createModel(store, firstModelOf(settings), new Random(seed, 0, PURPOSE.initialization))
    const evaluator = new Evaluator(device, model, { mode: 'original' })
    return new Learner(settings, extent, model, evaluator, world)
  }

  get step(): number {
    return this.trainer?.iteration ?? 0
  }

  /** Bytes that a step takes on the device. */
  get bytes(): number {
    return this.trainer?.memory.planned ?? 0
  }

  /** Compiles the steps. `onProgress` is called as kernels are. */
  async compile(onProgress: (done: number, all: number) => void): Promise<void> {
    const { crop, batchSize, epochs } = this.extent
    this.trainer = await createTrainer(this.model.store.device, this.model, this.settings, {
      iterationsPerEpoch: stepsOf(this.extent) / epochs,
      labeled: batchSize,
      unlabeled: batchSize,
      height: crop,
      width: crop,
      onProgress,
    })
  }

  /** One step. Returns the loss of the labeled pictures, which both trainings have. */
  async learn(): Promise<number> {
    const trainer = this.ready()
    if (trainer.iteration % trainer.options.iterationsPerEpoch === 0) {
      trainer.beginEpoch(this.newBest)
      this.newBest = false
    }
    const { metrics } = await trainer.step(this.batch(trainer))
    return metrics.loss_x ?? metrics.total_loss ?? Number.NaN
  }

  /** What the network says of scenes, and how good that is. */
  async look(scenes: readonly Scene[]): Promise<Look> {
    this.evaluator.reset()
    const masks: Uint8Array<ArrayBuffer>[] = []
    for (const { image, label, size } of scenes) {
      const sides = { width: size, height: size }
      const pair = { image: { data: image, ...sides }, label: { data: label, ...sides } }
      const prediction = await this.evaluator.add(pair, true)
      masks.push(Uint8Array.from(prediction?.label ?? []))
    }
    const { miou } = await this.evaluator.scores()
    if (this.step > 0 && miou > this.best) {
      this.best = miou
      this.newBest = true
    }
    return { miou, masks }
  }

  /** Copies the training to the host. */
  async save(): Promise<LearnerState> {
    const { best, newBest } = this
    return { training: await copyTrainer(this.ready()), best, newBest }
  }

  /** Goes on where a training on another device was copied. */
  restore({ training, best, newBest }: LearnerState): void {
    restoreTrainer(this.ready(), training)
    Object.assign(this, { best, newBest })
  }

  destroy(): void {
    this.trainer?.destroy()
    this.evaluator.destroy()
    this.model.store.destroy()
  }

  private batch({ layout, epoch, iteration, options: { iterationsPerEpoch } }: Trainer): Batch {
    const { crop: size, batchSize } = this.extent
    const { seed, ignore_index: ignoreIndex } = this.settings
    const place = { epoch, iteration: iteration % iterationsPerEpoch, iterationsPerEpoch }
    return memoryBatch(layout, this.world.images, { size, batchSize, seed, ignoreIndex }, place)
  }

  private ready(): Trainer {
    if (!this.trainer) throw new Error('unreachable: the steps are not compiled')
    return this.trainer
  }
}
