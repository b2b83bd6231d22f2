import { Arena } from '../../engine/arena.js'
import type { Device } from '../../engine/device.js'
import { read } from '../../engine/graph.js'
import { type FirstNonFinite, NanTracer } from '../../engine/passes/trace-nan.js'
import { compile, type Program } from '../../engine/program.js'
import { type Spec, spec } from '../../engine/shape.js'
import { Store } from '../../engine/store.js'
import { countNonFinite, nonFiniteCounts } from '../../kernels/finite.js'
import { castCall, div } from '../../kernels/pointwise.js'
import { countBatches, parametersOf, type SegmentationModel, stageOf } from '../../models/segmentation.js'
import type { Batch, BatchField } from '../data/batch.js'
import type { Criterion } from '../methods/losses.js'
import { dropoutInput, get, semiSupervised, supervised, type Tensors } from '../methods/methods.js'
import { Ensemble, type PreviousDraws, PreviousModels, type PreviousSettings } from '../methods/previous.js'
import { LossScale } from './loss-scale.js'
import { lambdaAt, learningRateAt } from './lr-schedule.js'
import { explainFit } from './memory-advice.js'
import { createVelocities, globalNorm, updateParameters } from './optimizer.js'

export type Method = 'supervised' | 'unimatch' | 'prevmatch'

/** What a trainer takes from the configuration, under the names it has there. */
export interface TrainerConfig {
  readonly method: Method
  readonly dataset: string
  readonly epochs: number
  readonly lr: number
  /** Learning rate of everything but the backbone, as a multiple of `lr`. */
  readonly lr_multi: number
  readonly criterion: Criterion
  readonly conf_thresh: number
  readonly prev: PreviousSettings
  /** Label of the labeled pixels that do not count. */
  readonly ignore_index: number
  /** Stages whose activations are computed again in the backward pass instead of being kept. The results stay the same. */
  readonly checkpoint?: readonly string[]
}

export interface TrainerOptions {
  readonly iterationsPerEpoch: number
  /** Labeled images per step, and unlabeled images in each of the two unlabeled batches. */
  readonly labeled: number
  readonly unlabeled: number
  /** Size of the crops. */
  readonly height: number
  readonly width: number
  /** Also compute the norm of the gradients. */
  readonly gradNorm?: boolean
  /**
   * Keep what each step starts from, so that `firstNonFinite` can repeat it: it takes the memory of weights, statistics
   * and momenta once more, and a copy of them at each step.
   */
  readonly keepBefore?: boolean
  /** Compute in half precision with a scaled loss: the adapter must have it. */
  readonly amp?: boolean
  /** Called as pipelines are compiled. */
  readonly onProgress?: (done: number, total: number) => void
}

/** The random choices of one step. */
export interface Draws {
  /** Multipliers (0 or 2) of the channels of each dropout level for labeled and unlabeled images, by `dropoutInput`. */
  readonly dropout: Readonly<Record<string, Float32Array>>
  /** Previous models, where there are any. */
  readonly previous?: PreviousDraws
}

/** What one step computed. What its method lacks is undefined. */
export interface StepResult {
  readonly total_loss: number
  readonly loss_x: number
  readonly loss_s1?: number
  readonly loss_s2?: number
  readonly loss_fp?: number
  readonly mask_ratio?: number
  readonly loss_s1_prev?: number
  readonly loss_s2_prev?: number
  readonly loss_fp_prev?: number
  readonly mask_ratio_prev?: number
  readonly grad_norm?: number
  /** In half precision: what the loss was multiplied by, and the steps that were skipped since the training began. */
  readonly loss_scale?: number
  readonly skipped_steps?: number
  /** Learning rates of the backbone and of everything else. */
  readonly lr_used: readonly [number, number]
  readonly lambda: number
  /** Weights and statistics that hold NaN or an infinity after the step: so did their gradients, or what was summed up. */
  readonly nonFinite: readonly string[]
}

type LossName = Exclude<keyof StepResult, 'lr_used' | 'lambda' | 'nonFinite'>
const labeledFields = ['img_x', 'mask_x'] as const satisfies readonly BatchField[]
const unlabeledImages = [
  'img_u_w',
  'img_u_s1',
  'img_u_s2',
  'img_u_w_mix',
  'img_u_s1_mix',
  'img_u_s2_mix',
] as const satisfies readonly BatchField[]
const unlabeledMaps = [
  'ignore_mask',
  'ignore_mask_mix',
  'cutmix_box1',
  'cutmix_box2',
] as const satisfies readonly BatchField[]
const scalars = ['lr_backbone', 'lr_rest'] as const
const scalarsOfPrevious = ['lambda', 'denominator'] as const

/** What a step computes. */
interface StepBody {
  readonly specs: Record<string, Spec>
  readonly body: (inputs: Tensors) => Tensors
}

type StepInputs = Parameters<Program['run']>[0]

/** Where the last step began. */
interface Before {
  /** What a step changes, and a copy of each. */
  readonly stores: readonly { readonly store: Store; readonly copy: Store }[]
  inputs: StepInputs | undefined
}

/** Trains a model; the state of a training between its steps. */
export class Trainer {
  /** Steps done. Set it to go on after a checkpoint. */
  iteration = 0
  private readonly before: Before | undefined

  private constructor(
    readonly model: SegmentationModel,
    readonly config: TrainerConfig,
    readonly options: TrainerOptions,
    /** Momentum of the parameters, under their names. */
    readonly velocities: Store,
    readonly previous: PreviousModels,
    private readonly workspace: Store,
    /** In half precision. */
    readonly lossScale: LossScale | undefined,
    /** The step and the previous models follow one another, in the same memory. */
    private readonly arena: Arena,
    private readonly stepBody: StepBody,
    private readonly program: Program,
    private readonly ensemble: Ensemble | undefined,
  ) {
    if (!options.keepBefore) return
    const changed = [model.store, velocities, ...(lossScale ? [lossScale.store] : [])]
    const stores = changed.map((store) => ({ store, copy: store.snapshot(`${store.label} before the step`) }))
    this.before = { stores, inputs: undefined }
  }

  /** See `createTrainer`. */
  static async create(
    device: Device,
    model: SegmentationModel,
    config: TrainerConfig,
    options: TrainerOptions,
  ): Promise<Trainer> {
    const { labeled, unlabeled, height, width, gradNorm, amp, onProgress } = options
    const velocities = createVelocities(parametersOf(model))
    const workspace = new Store(device, 'workspace')
    const guideShape = [2 * unlabeled, model.logitSize(height), model.logitSize(width), model.config.nclass]
    const previousLogits =
      config.method === 'prevmatch' ? workspace.declare('previous logits', spec(guideShape)) : undefined
    const { criterion, ignore_index: ignoreIndex, conf_thresh: threshold, prev, dataset } = config
    const setting = { model, criterion, ignoreIndex, threshold, labeled, unlabeled, size: [height, width] as const }
    const trust = { threshold: prev.conf_thresh, mode: dataset === 'cityscapes' ? 'pixelavg' : 'pixelwise' } as const
    const lossScale = amp ? new LossScale(new Store(device, 'loss scale')) : undefined
    const body = (inputs: Tensors): Tensors => {
      const guide = previousLogits && { logits: previousLogits, trust }
      const losses =
        config.method === 'supervised' ? supervised(setting, inputs) : semiSupervised(setting, inputs, guide)
      const rates = { backbone: get(inputs, 'lr_backbone'), rest: get(inputs, 'lr_rest') }
      const { total_loss: loss } = losses
      const { gradients, scaled } = updateParameters(loss, model.groups, velocities, rates, lossScale)
      const scaling = scaled ? { loss_scale: scaled.scale, skipped_steps: scaled.skippedSteps } : {}
      const all = { ...losses, ...scaling, non_finite: nonFiniteCounts(model.store.all().map(read)) }
      if (!gradNorm) return all
      const norm = globalNorm(gradients)
      return { ...all, grad_norm: scaled ? div(norm, scaled.scale) : norm }
    }
    const specs = inputSpecs(model, config, options)
    const checkpoint = stageOf(model, config.checkpoint ?? [])
    const arena = new Arena(device, 'training buffer')
    const shared = { arena, autocast: amp ? castCall : undefined, ...(onProgress ? { onProgress } : {}) }
    try {
      const label = `${config.method} step`
      const program = await compile(device, specs, body, { label, checkpoint, ...shared })
      const images = [unlabeled, height, width, 3] as const
      const ensemble = previousLogits && (await Ensemble.compile(device, model, images, previousLogits, shared))
      const previous = new PreviousModels(config.prev.list_max_len, (snapshot) => ensemble?.forget(snapshot))
      const stepBody = { specs, body }
      const stores = [velocities, previous, workspace, lossScale] as const
      return new Trainer(model, config, options, ...stores, arena, stepBody, program, ensemble)
    } catch (error) {
      arena.destroy()
      const checkpointed = (config.checkpoint ?? []).length > 0
      throw explainFit(error, model, { batch: labeled, crop: Math.max(height, width), checkpointed })
    }
  }

  get iterations(): number {
    return this.config.epochs * this.options.iterationsPerEpoch
  }

  /** Epoch of the next step, from 0. */
  get epoch(): number {
    return Math.floor(this.iteration / this.options.iterationsPerEpoch)
  }

  /** Learning rates of the next step: of the backbone and of everything else. */
  get learningRates(): [number, number] {
    const rate = learningRateAt(this.config.lr, this.iteration, this.iterations)
    return [rate, rate * this.config.lr_multi]
  }

  /** What the step's program computes, after fusion. */
  get nodes(): Program['nodes'] {
    return this.program.nodes
  }

  /** Memory of the step's program in bytes; see `MemorySummary`. */
  get memory(): Program['memory'] {
    return this.program.memory
  }

  /**
   * Keeps a copy of the model for the next epochs where the method does so. Call it before the first step of an epoch.
   * @param newBest whether the epoch before reached a new best validation result
   * @returns whether a copy was kept
   */
  beginEpoch(epoch: number, newBest: boolean): boolean {
    const { method, prev } = this.config
    if (method !== 'prevmatch' || !newBest || epoch < prev.base_only_epoch) return false
    this.previous.push(this.model.store, `iteration-${String(this.iteration).padStart(7, '0')}`)
    return true
  }

  /** One iteration: forward, losses, gradients, update. The learning rates follow after it. */
  async step(batch: Batch, draws: Draws): Promise<StepResult> {
    const { method } = this.config
    const [backbone, rest] = this.learningRates
    const guided = method === 'prevmatch' && this.previous.length > 0
    const lambda = guided ? lambdaAt(this.epoch, this.config.epochs) : 0
    if (guided) {
      if (!draws.previous?.prev_indices.length) throw new Error('there are previous models, but none is drawn')
      this.ensemble?.run(batch, this.previous, draws.previous)
    }
    const inputs = {
      ...batch,
      ...draws.dropout,
      lr_backbone: Float32Array.of(backbone),
      lr_rest: Float32Array.of(rest),
      lambda: Float32Array.of(lambda),
      denominator: Float32Array.of(2 + lambda),
    }
    if (this.before) {
      for (const { store, copy } of this.before.stores) copy.copyFrom(store)
      this.before.inputs = inputs
    }
    this.program.run(inputs)
    const names = lossNames(method, this.options)
    const values = await this.program.readAll([...names, 'non_finite'])
    const counts = values.at(-1) ?? []
    const nonFinite = this.model.store.all().flatMap(({ name }, i) => (counts[i] === 0 ? [] : [name]))
    const named = names.map((name, i) => [name, values[i]?.[0]] as const)
    const given = guided ? named : named.filter(([name]) => !name.endsWith('_prev'))
    this.iteration++
    countBatches(this.model, method === 'supervised' ? 1 : 2)
    const losses = Object.fromEntries(given) as Pick<StepResult, LossName>
    return { ...losses, lr_used: [backbone, rest], lambda, nonFinite }
  }

  /**
   * Repeats the last step operator by operator, and finds the first one whose result is not finite. The weights are then
   * those before the step, and the trainer is of no further use.
   *
   * @returns undefined where all results are finite this time: fused kernels round differently
   * @throws Error without the option `keepBefore`, or before the first step
   */
  async firstNonFinite(): Promise<FirstNonFinite | undefined> {
    const { before, model, stepBody, program, ensemble, arena } = this
    if (!before?.inputs) throw new Error('there is no step to repeat: it takes the option keepBefore')
    // The memory of the step is needed for the step that counts.
    ensemble?.destroy()
    program.destroy()
    arena.destroy()
    const { device } = model.store
    const restore = () => {
      for (const { store, copy } of before.stores) store.copyFrom(copy)
    }
    const counts = new Store(device, 'counts')
    const tracer = new NanTracer(counts, countNonFinite)
    restore()
    const autocast = this.options.amp ? castCall : undefined
    const options = { label: 'step that is looked into', pass: tracer.pass, autocast, optimize: false, share: true }
    const counting = await compile(device, stepBody.specs, stepBody.body, options)
    counting.run(before.inputs)
    const found = await tracer.first()
    restore()
    counting.destroy()
    counts.destroy()
    return found
  }

  /** Frees everything but the model. */
  destroy(): void {
    this.previous.destroy()
    this.ensemble?.destroy()
    this.program.destroy()
    this.arena.destroy()
    this.velocities.destroy()
    this.workspace.destroy()
    for (const { copy } of this.before?.stores ?? []) copy.destroy()
    this.lossScale?.destroy()
  }
}

/**
 * Compiles the training step of a model.
 * @param model its weights are trained in place
 * @throws Error that names the operator or the kernel that cannot run
 */
export const createTrainer = (
  device: Device,
  model: SegmentationModel,
  config: TrainerConfig,
  options: TrainerOptions,
): Promise<Trainer> => Trainer.create(device, model, config, options)

/** Draws the multipliers of channel dropout with probability 1/2, each 0 or 2: see `Draws`. */
export function drawDropout(
  random: { word(): number },
  samples: number,
  { dropoutLevels }: Pick<SegmentationModel, 'dropoutLevels'>,
): Record<string, Float32Array> {
  const draw = (channels: number) =>
    Float32Array.from({ length: samples * channels }, () => (random.word() < 2 ** 31 ? 2 : 0))
  return Object.fromEntries(dropoutLevels.map((level) => [dropoutInput(level), draw(level.channels)]))
}

function lossNames(method: Method, { gradNorm, amp }: TrainerOptions): LossName[] {
  const names: LossName[] = ['total_loss', 'loss_x']
  if (method !== 'supervised') names.push('loss_s1', 'loss_s2', 'loss_fp', 'mask_ratio')
  if (method === 'prevmatch') names.push('loss_s1_prev', 'loss_s2_prev', 'loss_fp_prev', 'mask_ratio_prev')
  if (gradNorm) names.push('grad_norm')
  if (amp) names.push('loss_scale', 'skipped_steps')
  return names
}

function inputSpecs(
  model: SegmentationModel,
  { method }: TrainerConfig,
  options: TrainerOptions,
): Record<string, Spec> {
  const { labeled, unlabeled, height, width } = options
  const specs: Record<string, Spec> = {}
  for (const name of scalars) specs[name] = spec([])
  for (const name of labeledFields) {
    specs[name] = spec(name === 'img_x' ? [labeled, height, width, 3] : [labeled, height, width], 'u8')
  }
  if (method === 'supervised') return specs
  for (const name of unlabeledImages) specs[name] = spec([unlabeled, height, width, 3], 'u8')
  for (const name of unlabeledMaps) specs[name] = spec([unlabeled, height, width], 'u8')
  for (const level of model.dropoutLevels) specs[dropoutInput(level)] = spec([labeled + unlabeled, level.channels])
  if (method === 'prevmatch') for (const name of scalarsOfPrevious) specs[name] = spec([])
  return specs
}
