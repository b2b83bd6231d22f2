/**
 * Training, prediction and checkpoints of atrous, on data in memory: what `atrous/train` exports. Nothing here needs Node.
 *
 * `Segmenter` is the short way: it loads a checkpoint, segments, is fine-tuned and saved. Below it are the parts: a
 * `Trainer` takes the steps of a method, `memoryBatch` makes its batches, `Evaluator` scores and `Predictor` predicts,
 * `parseCheckpoint`, `describeCheckpoint` and `openModel` read weights, `contentsOf` and `safetensorsParts` write them.
 */
export { exportOnnx, type OnnxOptions } from '../onnx/export.js'
export * from '../segmenter/index.js'
export { type CheckpointInfo, type Contents, contentsOf } from '../train/checkpoint/contents.js'
export { describeCheckpoint, type LoadedModel, openModel } from '../train/checkpoint/loaded-model.js'
export { type Checkpoint, checkpointModel, loadWeights, parseCheckpoint } from '../train/checkpoint/parse.js'
export { type Config, parseConfig } from '../train/config/parse.js'
export {
  type Batch,
  type BatchLayout,
  type FieldData,
  type FieldSpec,
  type Geometry,
  imagesOf,
  type StreamSpec,
  takes,
} from '../train/data/batch.js'
export { type Rgb, vocPalette } from '../train/data/classes.js'
export type { Filling } from '../train/data/fill-batch.js'
export type { AnyImage, ImageParts } from '../train/data/image-parts.js'
export { type BatchPlace, type MemoryImages, memoryBatch } from '../train/data/memory-batch.js'
export type { Box, Image } from '../train/data/pixels.js'
export { DamagedFileError, UserError, WriteError } from '../train/error.js'
export {
  type EvaluationImage,
  type EvaluationOptions,
  Evaluator,
  type ImageSize,
  type Prediction,
  type Scores,
} from '../train/evaluation/evaluator.js'
export { type PredictionPlan, Predictor, type PredictorOptions } from '../train/evaluation/predictor.js'
export { type ByteSource, sourceOf } from '../train/io/byte-source.js'
export {
  type Dtype,
  type FileTensor,
  parseSafetensors,
  type Safetensors,
  safetensorsParts,
  type TensorData,
  toFloat32,
} from '../train/io/safetensors-format.js'
export { firstModelOf, methodOf, methods, modelsOf, registerMethod } from '../train/methods/index.js'
export type {
  CommonSettings,
  CompileProgram,
  DeployedModel,
  Draws,
  EpochInfo,
  Losses,
  Method,
  MethodContext,
  MethodEvent,
  MethodRun,
  MetricSpec,
  Prepared,
  Settings,
  StepInfo,
  Tensors,
} from '../train/methods/method.js'
export { PURPOSE, Random, type RandomState } from '../train/random.js'
export { createTrainer } from '../train/trainer/create.js'
export type { TrainerOptions, TrainerSettings } from '../train/trainer/options.js'
export type { StepResult, Trainer } from '../train/trainer/trainer.js'
