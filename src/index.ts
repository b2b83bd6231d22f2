/**
 * The engine of atrous: tensors on WebGPU with automatic differentiation.
 *
 * `compile` traces a function of symbolic tensors once and returns a `Program` that replays it. Tensors own no memory:
 * a `Store` owns parameters, a `Program` owns its intermediates. Maps are [N, H, W, C], convolution weights
 * [KH, KW, C / groups, O], matrices row-major; all arithmetic is float32.
 *
 * Open a device with `open` of `atrous/node` or of `atrous/browser`, or pass an adapter to `openDevice`.
 */
export { type AdapterSummary, summarizeAdapter, usefulFeatures } from './engine/adapter.js'
export {
  BindingLimitError,
  Device,
  DeviceLostError,
  KernelError,
  OutOfMemoryError,
  ValidationError,
  type Wait,
} from './engine/device.js'
export { AtrousError, NoAdapterError } from './engine/error.js'
export { assign, read, scoped } from './engine/graph.js'
export type { Tensor } from './engine/ir.js'
export { openDevice, shareDevice } from './engine/open-device.js'
export type { Signal } from './engine/pipelines.js'
export { printProgram } from './engine/print-program.js'
export { type CompileOptions, compile, type MemorySummary, type Program, type RunOptions } from './engine/program.js'
export { type Data, type DType, type Shape, type Spec, spec } from './engine/shape.js'
export { Store, type Variable } from './engine/store.js'
export { attention } from './kernels/attention.js'
export { grad } from './kernels/autograd.js'
export { batchedMatmul } from './kernels/batched-matmul.js'
export { type BatchNormTensors, batchNormEvaluation, batchNormTraining } from './kernels/batchnorm.js'
export { type Conv2dOptions, conv2d } from './kernels/conv2d.js'
export { cutmix, normalizeImage } from './kernels/images.js'
export { layerNorm } from './kernels/layernorm.js'
export {
  type ConfidenceMode,
  type ConfidenceOptions,
  confidenceWeightedLoss,
  crossEntropy,
  crossEntropyMean,
  type OhemOptions,
  ohemCrossEntropy,
} from './kernels/loss.js'
export { matmul } from './kernels/matmul.js'
export { confusionMatrix } from './kernels/metrics.js'
export { concat, slice, split } from './kernels/movement.js'
export { permute } from './kernels/permute.js'
export {
  add,
  atLeast,
  broadcastTo,
  div,
  equals,
  fill,
  gelu,
  mul,
  relu,
  scale,
  sub,
  sum,
  sumTo,
  toU32,
  where,
} from './kernels/pointwise.js'
export { globalAveragePool, maxPool2d } from './kernels/pool.js'
export { resizeBilinear } from './kernels/resize.js'
export { kthSmallest } from './kernels/select.js'
export { softmax, softmaxMax } from './kernels/softmax.js'
export {
  type AdamWOptions,
  type AdamWTensors,
  adamw,
  movingAverage,
  type SgdTensors,
  sgd,
} from './kernels/update.js'
