import { type DryAdapter, type DryBuffer, type DryUse, dryDevice } from '../../engine/dry-device.js'
import { Store } from '../../engine/store.js'
import { createModel } from '../../models/index.js'
import { parametersOf } from '../../models/segmentation.js'
import type { Config } from '../config/load.js'
import type { Image } from '../data/pixels.js'
import { singleProcess } from '../distributed/group.js'
import { Evaluator } from '../evaluation/evaluator.js'
import { firstModelOf } from '../methods/index.js'
import { createTrainer } from '../trainer/create.js'
import type { Trainer } from '../trainer/trainer.js'
import { evaluationOf } from './evaluation-of.js'

/** What a training takes of a device. */
export interface PlannedRun {
  readonly use: DryUse
  /** What is held when all of it is there. */
  readonly buffers: readonly DryBuffer[]
  readonly trainer: Trainer
  /** In which the image is evaluated. */
  readonly tiles: number
}

export interface PlanOptions {
  /** Its `amp` says whether to compute in half precision. */
  readonly config: Config
  /** What is evaluated: evaluation takes memory by its size. */
  readonly image: Image
  /** See `TrainerOptions`. */
  readonly keepBefore: boolean
  /** Processes that train together. Default: one. */
  readonly ranks?: number
}

/**
 * Does on a dry device what a training allocates: model, step, previous models, evaluation.
 * @throws UserError where the adapter cannot bind what it needs, with what it can
 */
export async function planRun(
  real: DryAdapter,
  { config, image, keepBefore, ranks = 1 }: PlanOptions,
): Promise<PlannedRun> {
  const { device, use } = dryDevice(real)
  const store = new Store(device, 'model')
  const model = createModel(store, firstModelOf(config))
  const sizes = { labeled: config.batch_size, unlabeled: config.batch_size }
  const crop = { height: config.crop_size, width: config.crop_size }
  const amp = config.amp === true
  const trainer = await createTrainer(device, model, config, {
    iterationsPerEpoch: 1,
    planned: true,
    ...sizes,
    ...crop,
    keepBefore,
    amp,
    exchange: ranks > 1 ? { ...singleProcess(), size: ranks } : undefined,
  })
  const { snapshots } = trainer.run
  for (let i = 0; i < (snapshots?.most ?? 0); i++) snapshots?.push(store, String(i))
  let tiles = 1
  for (const { model: deployed } of trainer.run.deployed) {
    const evaluator = new Evaluator(device, deployed, evaluationOf(config, amp))
    tiles = (await evaluator.plan(image)).length
    await evaluator.predict(image)
  }
  return { use, buffers: [...use.buffers], trainer, tiles }
}

/** A part of the memory of a training, in words. */
export interface MemoryPart {
  readonly what: string
  readonly bytes: number
}

const keptByOptimizer = ({ optimizer }: Trainer): string =>
  optimizer.name === 'sgd' ? 'momentum buffers' : 'averages of gradients and of their squares'

/** What the memory of a training is for. */
export function memoryParts(
  { use, buffers, trainer, tiles }: PlannedRun,
  { config, image }: PlanOptions,
): MemoryPart[] {
  const part = (what: string, wanted: (label: string) => boolean): MemoryPart => {
    const found = buffers.filter(({ label }) => wanted(label))
    return { what, bytes: found.reduce((total, { bytes }) => total + bytes, 0) }
  }
  const parameters = new Set(parametersOf(trainer.model).map(({ name }) => `model/${name}`))
  const { snapshots } = trainer.run
  const kept = trainer.optimizerState.map(({ label }) => label)
  const furtherStores = trainer.savedStores.map(({ store }) => store.label).filter((label) => !kept.includes(label))
  const before = (label: string) => / before the step\//.test(label)
  const ofParts = trainer.parts > 1 ? ` in ${trainer.parts} parts` : ''
  const inTiles = tiles > 1 ? `, in ${tiles} tiles` : ''
  const parts = [
    part(`parameters, ${parameters.size} tensors`, (label) => parameters.has(label)),
    part(config.lock_backbone ? 'locked backbone, running statistics' : 'running statistics', (label) => {
      return label.startsWith('model/') && !parameters.has(label)
    }),
    part(keptByOptimizer(trainer), (label) => kept.some((store) => label.startsWith(`${store}/`))),
    part(`${snapshots?.label}, at most ${snapshots?.most}`, (label) => {
      return snapshots !== undefined && label.startsWith(`${snapshots.label}/`)
    }),
    ...[...new Set(furtherStores)].map((store) => part(store, (label) => label.startsWith(`${store}/`))),
    part('--trace-nan: what a step begins with', before),
    part('sums of gradients over the parts of a batch', (label) => label.startsWith('sums over parts/')),
    part(`inputs and intermediates of the ${config.method} step${ofParts}`, (label) => {
      return !before(label) && /^(training buffer|workspace|batch)/.test(label)
    }),
    part(`evaluation of an image of ${image.width}x${image.height}, the largest looked at${inTiles}`, (label) => {
      return /^evaluation( buffer|\/)/.test(label)
    }),
  ]
  const rest = use.peak - parts.reduce((total, { bytes }) => total + bytes, 0)
  return [...parts, { what: 'uniforms and what is read back', bytes: rest }].filter(({ bytes }) => bytes > 0)
}
