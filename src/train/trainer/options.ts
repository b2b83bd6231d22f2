import type { Signal } from '../../engine/pipelines.js'
import type { Exchange } from '../../kernels/exchange.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import type { CommonSettings } from '../methods/method.js'
import type { OptimizerSection, ScheduleSection } from './optimizer-settings.js'

/** What a trainer takes from the configuration, under the names it has there; and the keys of its method. */
export type TrainerSettings = CommonSettings & {
  readonly optimizer?: OptimizerSection | undefined
  readonly lr_schedule?: ScheduleSection | undefined
  /** Stages whose activations are computed again in the backward pass instead of being kept. The results stay the same. */
  readonly activation_checkpointing?: readonly string[] | undefined
  /** Labeled images whose losses are computed at a time, a divisor of `batch_size`; all of them where it is absent. */
  readonly micro_batch?: number | undefined
  /** With several ranks: whether batch norm takes the statistics of all of them, as it does where this is absent. */
  readonly sync_batchnorm?: boolean | undefined
  /** What the training was planned to take at most, as a text. */
  readonly memory?: string | undefined
}

export interface TrainerOptions {
  readonly iterationsPerEpoch: number
  /** Labeled images per step, and unlabeled images, in each stream of the method that takes `batch_size` of them. */
  readonly labeled: number
  readonly unlabeled: number
  /** Size of the crops. */
  readonly height: number
  readonly width: number
  /** Also compute the norm of the gradients. */
  readonly gradNorm?: boolean
  /**
   * Keep what each step starts from, so that `firstNonFinite` can repeat it: it takes the memory of weights, statistics
   * and momentum buffers once more, and a copy of them at each step.
   */
  readonly keepBefore?: boolean
  /** Compute in half precision with a scaled loss: the adapter must have it. */
  readonly amp?: boolean
  /** The ranks that train together, where there are several. */
  readonly exchange?: Exchange | undefined
  /** Nothing is trained: the weights of further models are not drawn, which takes longer than planning. */
  readonly planned?: boolean
  /** Gives a further model of the method its pretrained weights. */
  readonly pretrain?: (model: SegmentationModel, index: number) => void
  /** Called as pipelines are compiled. */
  readonly onProgress?: (done: number, total: number) => void
  /** Ends the compilation early, with its reason. */
  readonly signal?: Signal | undefined
}
