import { z } from 'zod'
import { scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { add, relu } from '../kernels/pointwise.js'
import { knownWidths, outputsOf } from './infer.js'
import {
  activated,
  batchNorm,
  convolution,
  type Declarations,
  type Layer,
  type Mode,
  named,
  sequence,
} from './layers.js'
import type { Backbone, BackboneFamily, InferredConfig, StateShapes } from './segmentation.js'

export interface XceptionConfig {
  /** Channels of the two 3x3 convolutions in front. */
  readonly conv1: number
  readonly conv2: number
  /** Channels of block1 to block3. */
  readonly entry: readonly [number, number, number]
  /** Blocks from block4 on, as wide as block3. */
  readonly middle_blocks: number
  /** Channels of block20, conv3, conv4 and conv5. */
  readonly exit: readonly [number, number, number, number]
  /** By how much the last features are smaller than the image; at 8 block3 keeps the size, and what follows is dilated. */
  readonly output_stride: 8 | 16
  readonly backbone_bn_momentum: number
}

const count = z.int().min(1)
/** Middle blocks are block4 to block19 at most: block20 is the next one's name. */
const firstMiddle = 4
const mostMiddle = 16

const keys = {
  conv1: count.describe('Xception: channels of the first convolution.'),
  conv2: count.describe('Xception: channels of the second convolution.'),
  entry: z.tuple([count, count, count]).describe('Xception: channels of block1 to block3.'),
  middle_blocks: z.int().min(0).max(mostMiddle).describe('Xception: number of blocks of the middle flow.'),
  exit: z.tuple([count, count, count, count]).describe('Xception: channels of block20, conv3, conv4 and conv5.'),
  output_stride: z.literal([8, 16]).describe('Xception: by how much its last features are smaller than the image.'),
  backbone_bn_momentum: z
    .number()
    .gt(0)
    .max(1)
    .describe('Xception: share of a batch in the running statistics of its batch norms.'),
}

const xception65: XceptionConfig = {
  conv1: 32,
  conv2: 64,
  entry: [128, 256, 728],
  middle_blocks: 16,
  exit: [1024, 1536, 1536, 2048],
  output_stride: 16,
  backbone_bn_momentum: 0.0003,
}

const blockScopes = (first: number, blocks: number): string[] =>
  Array.from({ length: blocks }, (_, i) => `backbone.block${first + i}`)

const landmark = 'block1.sepconv1.depthwise.weight'

/** Xception-65 (Chollet, 2016; Chen et al., 2018), every convolution but the first two separable, as the PrevMatch code has it. */
export const xception: BackboneFamily = {
  inputChannels: 3,
  names: { landmark, synonyms: [] },
  // As the PrevMatch code loads it.
  pretrained: { leftAside: /itr|tmp|track/, mayLack: true },
  keys,
  presets: { xception: xception65 },
  stages: {
    stem: ['conv1', 'bn1', 'conv2', 'bn2'].map((name) => `backbone.${name}`),
    entry: blockScopes(1, 3),
    middle: blockScopes(firstMiddle, mostMiddle),
    exit: ['block20', 'conv3', 'conv4', 'conv5'].map((name) => `backbone.${name}`),
  },
  create: (at, config) => createXception(at, z.object(keys).parse(config)),
  inferConfig,
}

/** Feature maps within block2, at a quarter of the image's size and with negative values, and after conv5. */
function createXception(at: Declarations, config: XceptionConfig): Backbone {
  const { conv1, conv2, entry, exit, output_stride, backbone_bn_momentum: momentum } = config
  const dilation = 16 / output_stride
  const stem = sequence([
    named('conv1', convolution(at.at('conv1'), 3, conv1, { kernel: 3, stride: 2 })),
    named('bn1', activated(batchNorm(at.at('bn1'), conv1, { momentum }))),
    named('conv2', convolution(at.at('conv2'), conv1, conv2, { kernel: 3 })),
    named('bn2', activated(batchNorm(at.at('bn2'), conv2, { momentum }))),
  ])
  const block = (name: string, [cin, inner, cout]: readonly [number, number, number], options: BlockOptions) =>
    createBlock(name, at.at(name), [cin, inner, cout], { momentum, ...options })
  const [first, second, third] = entry
  const block1 = block('block1', [conv2, first, first], { stride: 2 })
  const block2 = block('block2', [first, second, second], { stride: 2 })
  const block3 = block('block3', [second, third, third], { stride: output_stride / 8 })
  const middle = Array.from({ length: config.middle_blocks }, (_, i) =>
    block(`block${firstMiddle + i}`, [third, third, third], { dilation }),
  )
  // The one block that widens in its second convolution.
  const block20 = block('block20', [third, third, exit[0]], { dilation })
  const last = exit.slice(1).map((cout, i) => {
    const name = `conv${3 + i}`
    return separable(name, at.at(name), exit[i] ?? 0, cout, { momentum, dilation, isActivated: true })
  })
  const features = (x: Tensor, mode: Mode): Tensor[] => {
    const entered = block2(block1(stem(x, mode), mode).result, mode)
    const deep = [block3, ...middle, block20].reduce((y, each) => each(y, mode).result, entered.result)
    return [entered.second, sequence(last)(deep, mode)]
  }
  return {
    channels: [second, exit[3]],
    strides: [4, output_stride],
    features: (x, mode) => scoped('backbone', () => features(x, mode)),
  }
}

function inferConfig(state: StateShapes): InferredConfig {
  const geometry = { output_stride: xception65.output_stride, backbone_bn_momentum: xception65.backbone_bn_momentum }
  if (!state.has(`backbone.${landmark}`)) return { widths: {}, geometry }
  const pointwise = (name: string): number => outputsOf(state, `backbone.${name}.pointwise`)
  let blocks = 0
  while (blocks < mostMiddle && state.has(`backbone.block${firstMiddle + blocks}.sepconv1.depthwise.weight`)) blocks++
  const known = knownWidths({
    conv1: outputsOf(state, 'backbone.conv1'),
    conv2: outputsOf(state, 'backbone.conv2'),
    entry: [1, 2, 3].map((block) => pointwise(`block${block}.sepconv3`)),
    exit: ['block20.sepconv3', 'conv3', 'conv4', 'conv5'].map(pointwise),
  })
  return { widths: { ...known, middle_blocks: blocks }, geometry }
}

interface BlockOptions {
  readonly stride?: number
  readonly dilation?: number
}

interface SeparableOptions extends BlockOptions {
  readonly momentum: number
  /** Whether a ReLU follows each of its batch norms. */
  readonly isActivated?: boolean
}

/** 3x3 on each channel alone, with the stride and the dilation, then 1x1, each with batch norm. */
function separable(
  name: string,
  at: Declarations,
  cin: number,
  cout: number,
  { stride = 1, dilation = 1, momentum, isActivated = false }: SeparableOptions,
): Layer {
  const normalized = (norm: string, channels: number): Layer => {
    const layer = batchNorm(at.at(norm), channels, { momentum })
    return named(norm, isActivated ? activated(layer) : layer)
  }
  const depthwise = { kernel: 3, stride, dilation, groups: cin }
  const layers = sequence([
    named('depthwise', convolution(at.at('depthwise'), cin, cin, depthwise)),
    normalized('bn1', cin),
    named('pointwise', convolution(at.at('pointwise'), cin, cout)),
    normalized('bn2', cout),
  ])
  return named(name, layers)
}

/** Three separable convolutions behind a ReLU each, to which the block's input is added. */
function createBlock(
  name: string,
  at: Declarations,
  [cin, inner, cout]: readonly [cin: number, inner: number, cout: number],
  { momentum, stride = 1, dilation = 1 }: SeparableOptions,
): (x: Tensor, mode: Mode) => { result: Tensor; second: Tensor } {
  const projection =
    stride !== 1 || cin !== cout
      ? sequence([
          named('skip', convolution(at.at('skip'), cin, cout, { stride })),
          named('skipbn', batchNorm(at.at('skipbn'), cout, { momentum })),
        ])
      : undefined
  const one = separable('sepconv1', at.at('sepconv1'), cin, inner, { momentum, dilation })
  const two = separable('sepconv2', at.at('sepconv2'), inner, cout, { momentum, dilation })
  const three = separable('sepconv3', at.at('sepconv3'), cout, cout, { momentum, stride, dilation })
  return (x, mode) =>
    scoped(name, () => {
      const positive = relu(x)
      const second = two(relu(one(positive, mode)), mode)
      const body = three(relu(second), mode)
      // Without a projection the reference adds what its first ReLU left in the place of x.
      return { result: add(body, projection ? projection(x, mode) : positive), second }
    })
}
