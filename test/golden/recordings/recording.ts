import type { SegmentationModel } from '#dist/models/segmentation.js'
import type { Batch, BatchLayout } from '#dist/train/data/batch.js'
import type { Draws } from '#dist/train/methods/method.js'
import type { StepResult } from '#dist/train/trainer/step-result.js'
import type { Trainer } from '#dist/train/trainer/trainer.js'
import type { TensorFile } from '../files.js'

/** `config.json` as it stands in the file. */
export type RecordedConfig = Readonly<Record<string, unknown>> & { readonly iters_per_epoch: number }

/** A training of a folder. */
export interface RecordedRun {
  /** Shown behind the folder's name. */
  readonly label: string
  /** Behind the names `expected` and `final`, such as `_adamw`. */
  readonly suffix: string
  /** Of a run of the first steps alone: how many. */
  readonly steps?: number
}

/** Where a recorded step stands. */
export interface RecordedStep {
  readonly file: TensorFile
  readonly iteration: number
  readonly config: RecordedConfig
  readonly run: RecordedRun
  readonly trainer: Trainer
}

/** Quantities of a step, by the names of `expected.json`: a number, or several. */
export type Quantities = Readonly<Record<string, number | readonly number[]>>

/** How the recorded trainings of a method are read. All but `method` and `matches` has a default. */
export interface Recording {
  readonly method: string
  /** Whether a `config.json` that names no method is of this one. */
  matches(config: RecordedConfig): boolean
  /** Trainings of a folder that share its inputs. Default: one. */
  runs?(config: RecordedConfig, folder: string): readonly RecordedRun[]
  /** Steps and updates before the first recorded one. Default: none. */
  firstIteration?(config: RecordedConfig): number
  /**
   * The keys of a configuration file that the trainer and the model are made with, where `config.json` does not have them
   * under these names; they are merged into it.
   */
  settings?(config: RecordedConfig, run: RecordedRun): Readonly<Record<string, unknown>>
  /** Default: tensors with the names of the fields. */
  batch?(step: RecordedStep, layout: BatchLayout): Batch
  /** Default: all tensors that are not bytes, by their names. */
  draws?(step: RecordedStep): Draws
  /**
   * The name in a checkpoint (such as `stores/teacher/classifier.bias` or `models/second/momentum/…`) of a tensor of
   * `init.safetensors` or `final.safetensors`. Default: the same.
   */
  nameInCheckpoint?(name: string, config: RecordedConfig): string
  /** Tensors of `final.safetensors` that are not compared, because the folder's README gives them no meaning. */
  isLeftOut?(name: string): boolean
  /** Quantities that are compared beside the step's metrics, read when it is done. */
  quantities?(step: RecordedStep, result: StepResult): Promise<Quantities>
  /** Learning rates as `lr_used` lists them. Default: of the backbone, and of everything else. */
  learningRates?(result: StepResult, config: RecordedConfig, run: RecordedRun): readonly number[]
}

/** What names begin with in a checkpoint that hold a model of a trainer. Empty for the first one. */
export function checkpointPrefix(trainer: Trainer, { store }: SegmentationModel): string {
  return trainer.savedStores.find((saved) => saved.store === store)?.prefix ?? ''
}
