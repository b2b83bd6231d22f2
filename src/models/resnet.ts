import { z } from 'zod'
import { scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { add, relu } from '../kernels/pointwise.js'
import { maxPool2d } from '../kernels/pool.js'
import { knownWidths, outputsOf } from './infer.js'
import {
  activated,
  batchNorm,
  convolution,
  type Declarations,
  dropPath,
  dropPathRates,
  type Layer,
  type Mode,
  named,
  sequence,
} from './layers.js'
import type { Backbone, BackboneFamily, Four, InferredConfig, StateShapes } from './segmentation.js'

/** What residual networks have behind their stem. */
export interface ResidualConfig {
  /** Inner channels of the blocks of layer1 to layer4. */
  readonly planes: Four
  /** Blocks of layer1 to layer4. */
  readonly blocks: Four
  /** Channels that leave a block, as a multiple of its planes. */
  readonly expansion: number
  /** For layer2 to layer4: dilate its blocks after the first instead of halving the map. */
  readonly replace_stride_with_dilation: readonly [boolean, boolean, boolean]
  /** By what the dilations of the first three blocks of layer4 are multiplied. Default: 1. */
  readonly multi_grid?: readonly [number, number, number] | undefined
  /** Stochastic depth in training: rate of the last block, to which those of the blocks before rise from 0. Default: 0. */
  readonly drop_path_rate?: number | undefined
}

export interface ResNetConfig extends ResidualConfig {
  /** Channels of the three 3x3 convolutions in front. */
  readonly stem: readonly [number, number, number]
}

const count = z.int().min(1)
const factor = count.max(1000)
const four = z.tuple([count, count, count, count])

export const residualKeys = {
  planes: four.describe('ResNet: channels inside the blocks of layer1 to layer4.'),
  blocks: four.describe('ResNet: number of blocks of layer1 to layer4.'),
  expansion: count.describe('ResNet: channels behind a block, as a multiple of those inside.'),
  replace_stride_with_dilation: z
    .tuple([z.boolean(), z.boolean(), z.boolean()])
    .describe('In place of the key of the same name above.'),
  multi_grid: z
    .tuple([factor, factor, factor])
    .optional()
    .describe(
      'ResNet: by what the dilations of the first three blocks of layer4 are multiplied, such as [2, 2, 4]. Default: 1.',
    ),
  drop_path_rate: z
    .number()
    .min(0)
    .lt(1)
    .optional()
    .describe(
      'Stochastic depth: probability with which a sample of a training step leaves out the last residual branch; it rises ' +
        'linearly from 0 at the first one. Default: 0 for residual networks.',
    ),
}

const keys = {
  stem: z.tuple([count, count, count]).describe('ResNet: channels of the three convolutions of the stem.'),
  ...residualKeys,
}

/** ResNet-50 and 101 behind their stem. */
export const residual50: ResidualConfig = {
  planes: [64, 128, 256, 512],
  blocks: [3, 4, 6, 3],
  expansion: 4,
  replace_stride_with_dilation: [false, false, true],
  multi_grid: [1, 1, 1],
}
export const residual101: ResidualConfig = { ...residual50, blocks: [3, 4, 23, 3] }

const stem: ResNetConfig['stem'] = [64, 64, 128]

export const residualStages = {
  layer1: ['backbone.layer1'],
  layer2: ['backbone.layer2'],
  layer3: ['backbone.layer3'],
  layer4: ['backbone.layer4'],
}

/** Deep-stem residual networks with bottleneck blocks (He et al., 2015, as torchvision and the PrevMatch code have them). */
export const resnet: BackboneFamily = {
  inputChannels: 3,
  // mmsegmentation has the last batch norm of the stem in its sequence.
  names: {
    landmark: 'layer1.0.conv1.weight',
    synonyms: [
      ['stem.7.', 'bn1.'],
      ['stem.', 'conv1.'],
    ],
    // The code of Diverse Co-training has the whole decoder in a module of its own.
    outside: [
      ['head.head.', 'head.'],
      ['head.reduce.', 'reduce.'],
      ['head.fuse.', 'fuse.'],
      ['head.classifier.', 'classifier.'],
    ],
  },
  keys,
  presets: { resnet50: { stem, ...residual50 }, resnet101: { stem, ...residual101 } },
  stages: { stem: ['backbone.conv1', 'backbone.bn1'], ...residualStages },
  create: (at, config) => createResNet(at, z.object(keys).parse(config)),
  inferConfig(state) {
    if (readsCoefficients(state)) return inferResidual(new Map())
    const stem = ['0', '3', '6'].map((place) => outputsOf(state, `backbone.conv1.${place}`))
    const { widths, geometry } = inferResidual(state)
    return { widths: { ...knownWidths({ stem }), ...widths }, geometry }
  },
  explainMismatch,
}

function createResNet(at: Declarations, config: ResNetConfig): Backbone {
  const [a, b, c] = config.stem
  const inner = at.at('conv1')
  // In PyTorch's Sequential the places 1, 2 and 4, 5 are batch norm and ReLU; the last batch norm is outside of it.
  const stem = sequence([
    named('conv1.0', convolution(inner.at('0'), 3, a, { kernel: 3, stride: 2 })),
    named('conv1.1', activated(batchNorm(inner.at('1'), a))),
    named('conv1.3', convolution(inner.at('3'), a, b, { kernel: 3 })),
    named('conv1.4', activated(batchNorm(inner.at('4'), b))),
    named('conv1.6', convolution(inner.at('6'), b, c, { kernel: 3 })),
    named('bn1', activated(batchNorm(at.at('bn1'), c))),
  ])
  const front = (x: Tensor, mode: Mode) => maxPool2d(stem(x, mode), { kernel: 3, stride: 2, padding: 1 })
  return residualLayers(at, config, c, front)
}

/**
 * Feature maps after layer1 to layer4, the first one at a quarter of the image's size.
 * @param channels of what layer1 reads, at that size
 * @param front makes it of the input
 */
export function residualLayers(
  at: Declarations,
  config: ResidualConfig,
  channels: number,
  front: Layer = (x) => x,
): Backbone {
  let cin = channels
  let dilation = 1
  let reduction = 4
  const strides: number[] = []
  const rates = dropPathRates(config.blocks, config.drop_path_rate ?? 0)
  const layers = config.planes.map((planes, index) => {
    const name = `layer${index + 1}`
    const dilated = index > 0 && config.replace_stride_with_dilation[index - 1] === true
    const first = { stride: index === 0 || dilated ? 1 : 2, dilation }
    if (dilated) dilation *= 2
    reduction *= first.stride
    strides.push(reduction)
    const rest = { stride: 1, dilation }
    const cout = planes * config.expansion
    const grid = index === 3 ? config.multi_grid : undefined
    const blocks = Array.from({ length: config.blocks[index] ?? 0 }, (_, i) => {
      const { stride, dilation } = i === 0 ? first : rest
      const scaled = { stride, dilation: dilation * (grid?.[i] ?? 1) }
      const own = { ...scaled, name: `${name}.${i}`, dropRate: rates.shift() ?? 0 }
      return named(own.name, bottleneck(at.at(own.name), i === 0 ? cin : cout, planes, cout, own))
    })
    cin = cout
    return sequence(blocks)
  })
  const features = (x: Tensor, mode: Mode): Tensor[] => {
    const maps: Tensor[] = []
    let map = front(x, mode)
    for (const layer of layers) {
      map = layer(map, mode)
      maps.push(map)
    }
    return maps
  }
  return {
    channels: config.planes.map((planes) => planes * config.expansion),
    strides,
    features: (x, mode) => scoped('backbone', () => features(x, mode)),
  }
}

/** Whether a state_dict is of a residual network that reads 64 coefficients where others have a stem. */
export const readsCoefficients = (state: StateShapes): boolean =>
  state.get('backbone.layer1.0.conv1.weight')?.shape[1] === 64 &&
  !state.has('backbone.conv1.0.weight') &&
  !state.has('backbone.conv1.weight')

/** What a state_dict tells of layer1 to layer4. */
export function inferResidual(state: StateShapes): InferredConfig {
  const layers = [1, 2, 3, 4].map((layer) => `backbone.layer${layer}`)
  const depth = (layer: string): number => {
    let blocks = 0
    while (state.has(`${layer}.${blocks}.conv1.weight`)) blocks++
    return blocks
  }
  const planes = layers.map((layer) => outputsOf(state, `${layer}.0.conv1`))
  const widths = knownWidths({
    planes,
    blocks: layers.map(depth),
    expansion: outputsOf(state, 'backbone.layer1.0.conv3') / (planes[0] ?? 0),
  })
  const { replace_stride_with_dilation, multi_grid } = residual50
  return { widths, geometry: { replace_stride_with_dilation, multi_grid } }
}

/**
 * Why a state_dict does not fit, where it begins with one 7x7 convolution, as torchvision's ResNet does, rather than with
 * three 3x3; undefined where it does not.
 */
function explainMismatch(state: StateShapes): string | undefined {
  const [, , height, width] = (state.get('backbone.conv1.weight') ?? state.get('conv1.weight'))?.shape ?? []
  if (height !== 7 || width !== 7) return undefined
  return (
    "it is a ResNet with one 7x7 convolution in front, as torchvision's are, where the model has a deep stem of three " +
    '3x3 convolutions: take a deep-stem ResNet, such as the one that the PrevMatch and UniMatch code starts from'
  )
}

interface BottleneckOptions {
  readonly stride: number
  readonly dilation: number
  /** Of its draws of stochastic depth, and their rate. */
  readonly name: string
  readonly dropRate: number
}

/** 1x1, 3x3 with the stride and the dilation, 1x1, around which the input is added. */
function bottleneck(
  at: Declarations,
  cin: number,
  planes: number,
  cout: number,
  { stride, dilation, name, dropRate }: BottleneckOptions,
): Layer {
  const body = sequence([
    named('conv1', convolution(at.at('conv1'), cin, planes)),
    named('bn1', activated(batchNorm(at.at('bn1'), planes))),
    named('conv2', convolution(at.at('conv2'), planes, planes, { kernel: 3, stride, dilation })),
    named('bn2', activated(batchNorm(at.at('bn2'), planes))),
    named('conv3', convolution(at.at('conv3'), planes, cout)),
    named('bn3', batchNorm(at.at('bn3'), cout)),
  ])
  const shortcut =
    stride !== 1 || cin !== cout
      ? sequence([
          named('downsample.0', convolution(at.at('downsample.0'), cin, cout, { stride })),
          named('downsample.1', batchNorm(at.at('downsample.1'), cout)),
        ])
      : undefined
  return (x, mode) => relu(add(dropPath(body(x, mode), name, dropRate, mode), shortcut ? shortcut(x, mode) : x))
}
