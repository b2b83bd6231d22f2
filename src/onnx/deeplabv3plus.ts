import type { DeepLabV3PlusConfig } from '../models/deeplabv3plus.js'
import type { ModelConfig } from '../models/segmentation.js'
import type { StateTensor } from '../models/weights.js'
import { type Extent, GraphBuilder, type Message } from '../train/io/protobuf.js'

export interface OnnxOptions {
  /** Height and width of the one image per run; by default any number of images of any size. */
  readonly size?: readonly [number, number] | undefined
  /** Texts by key, which readers of the file can see. */
  readonly metadata?: Readonly<Record<string, string>>
}

const opset = 17

const doc =
  'Input image: float32 [batch, 3, height, width], RGB, (value / 255 - mean) / std with mean 0.485, 0.456, 0.406 and ' +
  'std 0.229, 0.224, 0.225. Output logits: float32 [batch, classes, height, width].'

/**
 * The evaluation graph of a model as an ONNX file: input `image`, normalised [N, 3, H, W]; output `logits`
 * [N, nclass, H, W]. Constants carry the names of the state_dict.
 *
 * @returns pieces of the file in their order
 * @throws Error that names a tensor which is missing, superfluous or of another shape
 */
export function exportOnnx(
  given: ModelConfig,
  state: ReadonlyMap<string, StateTensor>,
  { size, metadata = {} }: OnnxOptions = {},
): Message {
  const config = given as DeepLabV3PlusConfig
  const network = new Network(state)
  const image = { name: 'image', channels: 3 }
  const { c1, c4 } = backbone(network, image, config)
  const deep = network.resizeLike('decoder/resize', pyramid(network, c4, config.dilations), c1)
  const low = network.unit('reduce.0', 'reduce.1', c1)
  const fused = network.unit('fuse.0', 'fuse.1', network.concat('decoder/concat', [low, deep]))
  const scores = network.convolution('classifier', network.unit('fuse.3', 'fuse.4', fused))
  const logits = network.resizeLike('logits', scores, image)
  network.checkUsed()
  const shape = ({ channels }: FeatureMap): Extent[] =>
    size ? [1, channels, ...size] : ['batch', channels, 'height', 'width']
  const port = (map: FeatureMap) => ({ name: map.name, shape: shape(map) })
  return network.graph.model(port(image), port(logits), { opset, doc, metadata })
}

/** A value [N, C, H, W] of the graph. */
interface FeatureMap {
  readonly name: string
  readonly channels: number
}

interface Geometry {
  readonly stride?: number
  readonly dilation?: number
}

/** Layers as nodes, by the names of their parameters. */
class Network {
  readonly graph = new GraphBuilder()
  private readonly used = new Set<string>()

  constructor(private readonly state: ReadonlyMap<string, StateTensor>) {}

  has(name: string): boolean {
    return this.state.has(name)
  }

  /** A convolution that keeps the size of the map, up to its stride. */
  convolution(name: string, x: FeatureMap, { stride = 1, dilation = 1 }: Geometry = {}): FeatureMap {
    const [channels = 0, , kernel = 0] = this.state.get(`${name}.weight`)?.shape ?? []
    const weight = this.constant(`${name}.weight`, [channels, x.channels, kernel, kernel])
    const bias = this.has(`${name}.bias`) ? [this.constant(`${name}.bias`, [channels])] : []
    const padding = dilation * Math.floor(kernel / 2)
    return this.node(name, 'Conv', channels, [x.name, weight, ...bias], {
      dilations: [dilation, dilation],
      kernel_shape: [kernel, kernel],
      pads: [padding, padding, padding, padding],
      strides: [stride, stride],
    })
  }

  /** Batch norm by the running statistics; its epsilon is the default of ONNX, 1e-5. */
  batchNorm(name: string, x: FeatureMap): FeatureMap {
    const parameters = ['weight', 'bias', 'running_mean', 'running_var'].map((key) =>
      this.constant(`${name}.${key}`, [x.channels]),
    )
    return this.node(name, 'BatchNormalization', x.channels, [x.name, ...parameters])
  }

  relu(name: string, x: FeatureMap): FeatureMap {
    return this.node(`${name}/relu`, 'Relu', x.channels, [x.name])
  }

  /** Convolution, batch norm, ReLU. */
  unit(conv: string, norm: string, x: FeatureMap, geometry: Geometry = {}): FeatureMap {
    return this.relu(norm, this.batchNorm(norm, this.convolution(conv, x, geometry)))
  }

  add(name: string, x: FeatureMap, y: FeatureMap): FeatureMap {
    if (x.channels !== y.channels) throw new Error(`${name}: ${x.channels} and ${y.channels} channels cannot be added`)
    return this.node(name, 'Add', x.channels, [x.name, y.name])
  }

  concat(name: string, maps: readonly FeatureMap[]): FeatureMap {
    const channels = maps.reduce((sum, map) => sum + map.channels, 0)
    const names = maps.map((map) => map.name)
    return this.node(name, 'Concat', channels, names, { axis: 1 })
  }

  maxPool(name: string, x: FeatureMap): FeatureMap {
    const attributes = { kernel_shape: [3, 3], pads: [1, 1, 1, 1], strides: [2, 2] }
    return this.node(name, 'MaxPool', x.channels, [x.name], attributes)
  }

  globalAveragePool(name: string, x: FeatureMap): FeatureMap {
    return this.node(name, 'GlobalAveragePool', x.channels, [x.name])
  }

  /** Repeats a map of one pixel over the height and width of another with as many channels. */
  expandLike(name: string, x: FeatureMap, like: FeatureMap): FeatureMap {
    const shape = this.graph.node(`${name}/shape`, 'Shape', [like.name])
    return this.node(name, 'Expand', x.channels, [x.name, shape])
  }

  /** Bilinear resize with aligned corners to the height and width of another map. */
  resizeLike(name: string, x: FeatureMap, like: FeatureMap): FeatureMap {
    const kept = this.graph.node(`${name}/kept`, 'Shape', [x.name], { start: 0, end: 2 })
    const extent = this.graph.node(`${name}/extent`, 'Shape', [like.name], { start: 2, end: 4 })
    const sizes = this.graph.node(`${name}/sizes`, 'Concat', [kept, extent], { axis: 0 })
    return this.node(name, 'Resize', x.channels, [x.name, '', '', sizes], {
      coordinate_transformation_mode: 'align_corners',
      mode: 'linear',
    })
  }

  /** Throws where the state_dict has parameters that no layer took. */
  checkUsed(): void {
    const left = [...this.state.keys()].filter((name) => !this.used.has(name) && !/num_batches_tracked$/.test(name))
    if (left.length > 0) throw new Error(`unexpected: ${left.slice(0, 5).join(', ')} (${left.length} in all)`)
  }

  private node(name: string, op: string, channels: number, ...rest: NodeArguments): FeatureMap {
    return { name: this.graph.node(name, op, ...rest), channels }
  }

  private constant(name: string, shape: readonly number[]): string {
    const tensor = this.state.get(name)
    if (!tensor) throw new Error(`missing: ${name}`)
    if (String(tensor.shape) !== String(shape)) {
      throw new Error(`of another shape: ${name} [${tensor.shape}] instead of [${shape}]`)
    }
    this.used.add(name)
    return this.graph.constant(name, shape, tensor.data)
  }
}

type NodeArguments = Parameters<GraphBuilder['node']> extends [string, string, ...infer Rest] ? Rest : never

/** As `resnet` in models/resnet.ts. */
function backbone(
  network: Network,
  image: FeatureMap,
  { blocks, replace_stride_with_dilation: dilate }: DeepLabV3PlusConfig,
) {
  const at = (name: string) => `backbone.${name}`
  let x = network.unit(at('conv1.0'), at('conv1.1'), image, { stride: 2 })
  x = network.unit(at('conv1.3'), at('conv1.4'), x)
  x = network.maxPool(at('maxpool'), network.unit(at('conv1.6'), at('bn1'), x))
  let dilation = 1
  const maps = blocks.map((count, index) => {
    const dilated = index > 0 && dilate[index - 1] === true
    const first = { stride: index === 0 || dilated ? 1 : 2, dilation }
    if (dilated) dilation *= 2
    for (let i = 0; i < count; i++) {
      x = bottleneck(network, at(`layer${index + 1}.${i}`), x, i === 0 ? first : { stride: 1, dilation })
    }
    return x
  })
  return { c1: maps[0] ?? x, c4: x }
}

function bottleneck(
  network: Network,
  name: string,
  x: FeatureMap,
  geometry: { stride: number; dilation: number },
): FeatureMap {
  let y = network.unit(`${name}.conv1`, `${name}.bn1`, x)
  y = network.unit(`${name}.conv2`, `${name}.bn2`, y, geometry)
  y = network.batchNorm(`${name}.bn3`, network.convolution(`${name}.conv3`, y))
  const { stride } = geometry
  const shortcut = network.has(`${name}.downsample.0.weight`)
    ? network.batchNorm(`${name}.downsample.1`, network.convolution(`${name}.downsample.0`, x, { stride }))
    : x
  return network.relu(name, network.add(`${name}/add`, y, shortcut))
}

/** As `pyramid` in models/deeplabv3plus.ts: 1x1, three dilated 3x3, and the mean over the map. */
function pyramid(network: Network, x: FeatureMap, dilations: readonly number[]): FeatureMap {
  const first = network.unit('head.b0.0', 'head.b0.1', x)
  const others = dilations.map((dilation, i) => network.unit(`head.b${i + 1}.0`, `head.b${i + 1}.1`, x, { dilation }))
  const mean = network.globalAveragePool('head.b4/mean', x)
  const pooled = network.unit('head.b4.gap.1', 'head.b4.gap.2', mean)
  const spread = network.expandLike('head.b4/expand', pooled, first)
  const joined = network.concat('head/concat', [first, ...others, spread])
  return network.unit('head.project.0', 'head.project.1', joined)
}
