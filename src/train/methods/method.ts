import type { z } from 'zod'
import type { Tensor } from '../../engine/ir.js'
import type { Program } from '../../engine/program.js'
import type { Data, Spec } from '../../engine/shape.js'
import type { Store } from '../../engine/store.js'
import type { ModelChoice, ModelSpec } from '../../models/index.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import type { BatchLayout } from '../data/batch.js'
import type { Criterion } from './losses.js'
import type { SnapshotList } from './snapshots.js'

/** Settings that every method may read, under their names in the configuration. */
export type CommonSettings = {
  readonly method: string
  readonly seed: number
  readonly dataset: string
  readonly epochs: number
  /** The images of which an epoch is one pass, where it is not as the method has it. */
  readonly epoch_of?: 'labeled' | 'unlabeled' | undefined
  /** Learning rate of the backbone, and that of everything else as a multiple of it. */
  readonly lr: number
  readonly lr_multi: number
  readonly batch_size: number
  readonly criterion: Criterion
  /** Confidence that a model's own pseudo-labels need. */
  readonly conf_thresh: number
  /** Label of the labeled pixels that do not count. */
  readonly ignore_index: number
  /** Share of each parameter that is added to its gradient; 1e-4 where it is absent. */
  readonly weight_decay?: number | undefined
  /** Whether the backbones stay as they are. */
  readonly lock_backbone?: boolean | undefined
}

/** What a method reads of the configuration: the common settings, and those of its own keys. */
export type Settings<K extends z.ZodRawShape> = CommonSettings & z.infer<z.ZodObject<K>>

export type Tensors = Readonly<Record<string, Tensor>>

/** A training method: one file, and one row in `methods` (index.ts). */
export interface Method<K extends z.ZodRawShape = z.ZodRawShape> {
  /** The value of the configuration's `method`. */
  readonly name: string
  /** One line for `--help`. */
  readonly description: string
  /** The configuration's keys that are the method's own. */
  readonly keys: K
  /** The images of which an epoch is one pass. Default: the unlabeled ones, where it takes any. */
  readonly epochOf?: 'labeled' | 'unlabeled'
  /** Why a batch cannot be taken in parts, where it cannot. */
  readonly wholeBatch?: string
  /** What a batch holds. */
  layout(settings: Settings<K>): BatchLayout
  /** Throws `fail(what)` for settings that the method cannot train with. */
  check?(settings: Settings<K>, fail: (what: string) => Error): void
  /** The models by their numbers, where they are not the one of the configuration's own keys. */
  models?(settings: Settings<K> & Pick<ModelChoice, 'nclass'>): readonly ModelSpec[]
  /** The file of pretrained weights of each of these, where they have files of their own. */
  pretrained?(settings: Settings<K>): readonly (string | undefined)[]
  /** Makes what one training works with. Nothing is traced or computed yet. */
  create(context: MethodContext<Settings<K>>): MethodRun
}

/** What a method works with. */
export interface MethodContext<S extends CommonSettings = CommonSettings> {
  readonly settings: S
  /**
   * Images from each split, in a stream that takes `batch_size` of them; where a step takes its batch in parts, those of
   * a part.
   */
  readonly labeled: number
  readonly unlabeled: number
  /** Height and width of the crops, in pixels. */
  readonly size: readonly [number, number]
  /**
   * A model in a store of its own. Number 0 is the one whose weights have the plain names in checkpoints. In training mode
   * it drops what it drops at random, such as whole residual branches, by draws of the trainer.
   *
   * @param label names its store, in checkpoints and where memory is listed
   * @param origin a model that it is a copy of, or what it is where that is not what number 0 is. Without a model to copy
   * each number has initial weights of its own.
   */
  model(index: number, label: string, origin?: SegmentationModel | ModelSpec): SegmentationModel
  /** Within a trace: a field of the step's batch, or of its part; see `fieldSpec`. */
  batch(field: string): Tensor
  /** For variables that live between the programs of one step. Not part of checkpoints. */
  readonly workspace: Store
}

/** Compiles a program that shares the memory and the precision of the step's; it may read the batch. */
export type CompileProgram = <I extends Record<string, Spec>>(
  label: string,
  inputs: I,
  body: (tensors: { readonly [K in keyof I]: Tensor }) => Tensors,
) => Promise<Program<I>>

/** Where a training stands before a step; epochs and iterations from 0. */
export interface StepInfo {
  readonly iteration: number
  /** Numbers the batches, or their parts where a step takes its batch in parts: else it is the iteration. */
  readonly batchIndex: number
  readonly epoch: number
  readonly epochs: number
  readonly iterationsPerEpoch: number
}

/** Where a training stands before an epoch. */
export interface EpochInfo extends StepInfo {
  /** Whether the epoch before reached a new best validation result. */
  readonly newBest: boolean
}

/** The random choices for a batch, or a part of it, by name. */
export type Draws = Readonly<Record<string, ArrayLike<number>>>

/** What the host hands to a step. */
export interface Prepared {
  /** Values of the method's inputs. */
  readonly inputs: Readonly<Record<string, Data>>
  /** Further numbers for the log, the same for all parts of a batch. */
  readonly values?: Readonly<Record<string, number>>
  /** Metrics that mean nothing in this step, whatever the part. */
  readonly absent?: readonly string[]
}

/** Something that happened, for log.jsonl and the terminal. */
export interface MethodEvent {
  readonly name: string
  readonly fields: Readonly<Record<string, unknown>>
  readonly line: string
}

/** A number that each step computes beside the total loss, and how it is shown. */
export interface MetricSpec {
  /** In log.jsonl. */
  readonly name: string
  /** Of a loss, on the terminal. */
  readonly short?: string
  /** Its curve in the report: a loss, or a share of pixels. */
  readonly curve?: {
    readonly chart: 'loss' | 'mask'
    readonly label: string
    readonly color: 'blue' | 'amber' | 'red' | 'green'
    readonly dashed?: true
  }
  /** TensorBoard's `train/` tags, each the sum of the metrics that name it times their shares. */
  readonly tensorboard?: readonly (readonly [tag: string, share: number])[]
}

/** A model that is validated. */
export interface DeployedModel {
  /** What it is called in the log, such as `student`. */
  readonly name: string
  readonly model: SegmentationModel
}

/** What the losses of a method are traced into. */
export interface Losses {
  readonly total: Tensor
  readonly metrics: Tensors
  /** Of any shape, for those who look into a step: `Trainer.details` reads them. */
  readonly details?: Tensors
}

/** One training by a method. */
export interface MethodRun {
  /** Models whose parameters the optimizer updates. The first one has the plain names in checkpoints. */
  readonly trained: readonly SegmentationModel[]
  /** Models that are validated. The first one's score decides what `best.safetensors` keeps; those of others are logged. */
  readonly deployed: readonly DeployedModel[]
  /**
   * Whether these are rivals: the best of them decides then what `best.safetensors` keeps, and the best weights of each are
   * kept besides, as `best-NAME.safetensors`.
   */
  readonly rivals?: boolean
  /** Names of the kinds of steps that compute differently, such as a warm-up. Default: one kind. */
  readonly phases?: readonly string[]
  /** Which of them a step is. */
  phase?(at: StepInfo): string
  /** Learning rate of the backbone in a step; by default the one of `learningRateAt`. */
  learningRate?(base: number, iteration: number, iterations: number): number
  /** Stores that belong to a checkpoint, such as a teacher's weights. */
  readonly stores?: Readonly<Record<string, Store>>
  /** Copies of weights that never change once made, each a file of its own beside the checkpoint. */
  readonly snapshots?: SnapshotList
  /** Inputs of the step besides the batch. */
  readonly inputs?: Readonly<Record<string, Spec>>
  readonly metrics: readonly MetricSpec[]
  /**
   * Within the trace of a phase's step: the total loss, a scalar, and a scalar for each metric that means something in this
   * phase, of a batch, or of each of its parts: the step then goes by the means over the parts.
   */
  losses(inputs: Tensors, phase: string): Losses
  /**
   * Within the step's trace, when the parameters are updated.
   * @param skipped in half precision a scalar that is not 0 where the step leaves the parameters as they are
   */
  afterUpdate?(inputs: Tensors, skipped: Tensor | undefined, phase: string): void
  /** Compiles further programs, when the step is compiled. */
  compile?(compile: CompileProgram): Promise<void>
  /** The random choices for a batch, or a part, which depend on the seed and the batch's index alone. */
  draw?(at: StepInfo): Draws
  /** Before the losses of each batch, or part, when it is on the device. */
  prepare?(at: StepInfo, draws: Draws): Prepared
  /** Before the first step of each epoch. */
  beginEpoch?(at: EpochInfo): readonly MethodEvent[]
  /** What a resumed run needs of the host, as JSON. */
  state?(): unknown
  restore?(state: unknown): void
  /** Frees what the method made besides models and programs. */
  destroy?(): void
}

/** A tensor by name. Throws where it is missing. */
export function get(tensors: Tensors, name: string): Tensor {
  const tensor = tensors[name]
  if (!tensor) throw new Error(`the step has no input '${name}'`)
  return tensor
}
