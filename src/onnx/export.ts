import { tracingDevice } from '../engine/dry-device.js'
import { Store } from '../engine/store.js'
import { createModel, type ModelSpec } from '../models/index.js'
import type { SegmentationModel } from '../models/segmentation.js'
import { checkStateDict, type StateTensor } from '../models/weights.js'
import { reasonOf, UserError } from '../train/error.js'
import { type Extent, GraphBuilder, type Message } from '../train/io/protobuf.js'
import { Emitter } from './emitter.js'
import { findEmit } from './operators.js'
import { traceTwice } from './twin.js'

export interface OnnxOptions {
  /** Height and width of the one image per run; by default any number of images of any size. */
  readonly size?: readonly [number, number] | undefined
  /** Texts by key, which readers of the file can see. */
  readonly metadata?: Readonly<Record<string, string>>
  /** Name that errors give to a tensor, by its name in the model. Default: the same. */
  readonly nameInFile?: ((name: string) => string) | undefined
}

const opset = 17

const doc =
  'Input image: float32 [batch, 3, height, width], RGB, (value / 255 - mean) / std with mean 0.485, 0.456, 0.406 and ' +
  'std 0.229, 0.224, 0.225. Output logits: float32 [batch, classes, height, width].'

/**
 * The evaluation of a model as an ONNX file: input `image`, normalised [N, 3, H, W]; output `logits` [N, nclass, H, W].
 * Constants carry the names of the state_dict. The graph is the model's trace; its values need no device.
 *
 * @returns pieces of the file in their order
 * @throws Error that names a tensor which is missing, superfluous or of another shape, or an operator without counterpart,
 * and for a model that reads DCT coefficients, which no operator of ONNX makes
 */
export function exportOnnx(
  model: SegmentationModel,
  state: ReadonlyMap<string, StateTensor>,
  { size, metadata = {}, nameInFile }: OnnxOptions = {},
): Message {
  checkStateDict(model, state, '', nameInFile)
  if (model.input === 'coefficients') {
    throw new Error('it reads DCT coefficients, which no operator of ONNX makes: export a model that reads RGB')
  }
  const graph = new GraphBuilder()
  const trace = traceTwice(model, size)
  const emitter = new Emitter(graph, trace, state, findEmit)
  const { name } = emitter.channelsFirst(emitter.value(trace.logits))
  graph.rename(name, 'logits')
  const port = (name: string, channels: number) => {
    const shape: Extent[] = size ? [1, channels, ...size] : ['batch', channels, 'height', 'width']
    return { name, shape }
  }
  const [image, logits] = [port('image', model.inputChannels), port('logits', model.config.nclass)]
  return graph.model(image, logits, { opset, doc, metadata, name: model.architecture })
}

/**
 * The same of an architecture, which is traced without a device.
 * @param source what errors call it
 * @throws UserError where it has no counterpart in ONNX
 */
export function onnxOf(
  spec: ModelSpec,
  state: ReadonlyMap<string, StateTensor>,
  source: string,
  options: OnnxOptions,
): Message {
  const model = createModel(new Store(tracingDevice(), 'model'), spec)
  try {
    return exportOnnx(model, state, options)
  } catch (error) {
    throw new UserError(`${source} cannot become ONNX: ${reasonOf(error)}`)
  }
}
