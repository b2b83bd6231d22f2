import type { SegmentationModel } from '../../models/segmentation.js'
import type { Config } from '../config/load.js'
import type { Sample } from '../data/dataset.js'
import type { Loader } from '../data/loader.js'
import type { Evaluator, Scores } from '../evaluation/evaluator.js'
import type { WriteFailures } from '../io/write-failures.js'
import type { Means } from '../logging/log.js'
import type { RunLogger } from '../logging/run-logger.js'
import type { Display } from '../logging/terminal.js'
import type { Trainer } from '../trainer/trainer.js'
import type { Fingerprint } from './fingerprint.js'
import type { RunLock } from './run-lock.js'
import type { RunFiles, RunState } from './run-state.js'
import type { StepProfiler } from './step-profiler.js'
import type { Watchdog } from './watchdog.js'

export interface TrainingOptions {
  /** With labeled_id_path and val_id_path, and unlabeled_id_path unless the method is supervised. */
  readonly config: Config
  /** Folder for checkpoints and logs. */
  readonly savePath: string
  /** A `latest.safetensors` to resume from; `savePath` is then its folder. */
  readonly resume?: string | undefined
  /** A checkpoint of a whole network of the same kind to start from, in place of the configured `pretrained` backbone. */
  readonly init?: string | undefined
  /** Leaves out so many steps after resuming, such as one whose batch gave NaN. */
  readonly skipIterations?: number | undefined
  /** Stops after so many steps. */
  readonly maxIterations?: number | undefined
  /** Replaces the run that the folder holds. */
  readonly overwrite?: boolean
  /** Where a step gives NaN or an infinity, find the first operator and layer; see `TrainerOptions.keepBefore`. */
  readonly traceNan?: boolean
  /** Profiles so many steps after the first few, prints the tables and writes the trace; the training continues. */
  readonly profile?: { readonly file: string; readonly steps: number } | undefined
  /**
   * Whether kernels that were not measured on this adapter are; by default on GPUs only. false: earlier measurements are
   * not looked at either. A resumed run keeps its kernels.
   */
  readonly tune?: boolean | undefined
  /** Aborted: the step at hand is finished, a checkpoint written, and the training ends. */
  readonly signal?: AbortSignal
  readonly display: Display
}

export interface TrainingResult {
  readonly iterations: number
  /** The last validation; undefined where the training was interrupted before the first. */
  readonly scores: Scores | undefined
  readonly bestMiou: number
  readonly seconds: number
  readonly interrupted: boolean
  /** What could not be written in the end, and what there is to go back to, in words. */
  readonly unsaved: string | undefined
}

/** Scores a model that the method deploys. */
export interface DeployedEvaluator {
  readonly name: string
  readonly model: SegmentationModel
  readonly evaluator: Evaluator
}

/** What a run works with. */
export interface Run {
  readonly options: TrainingOptions
  readonly trainer: Trainer
  /** Of the models that the method deploys, in their order. */
  readonly evaluators: readonly DeployedEvaluator[]
  readonly loader: Loader
  readonly validation: readonly Sample[]
  readonly logger: RunLogger
  readonly lock: RunLock
  readonly files: RunFiles
  readonly failures: WriteFailures
  /** Writes config.yaml and kernels.json where they are missing. */
  readonly writeSettings: () => void
  readonly watchdog: Watchdog
  readonly profiler: StepProfiler | undefined
  readonly means: Means
  readonly state: RunState
  readonly fingerprint: Fingerprint
  /** Where this process ends. */
  readonly lastIteration: number
}
