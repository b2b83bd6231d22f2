import { scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { add, relu } from '../kernels/pointwise.js'
import { maxPool2d } from '../kernels/pool.js'
import {
  batchNorm,
  type ConvOptions,
  conv,
  type Declarations,
  type Layer,
  type Mode,
  named,
  sequence,
} from './layers.js'

type Four = readonly [number, number, number, number]

export interface ResNetConfig {
  /** Channels of the three 3x3 convolutions in front. */
  readonly stem: readonly [number, number, number]
  /** Inner channels of the blocks of layer1 to layer4. */
  readonly planes: Four
  /** Blocks of layer1 to layer4. */
  readonly blocks: Four
  /** Channels that leave a block, as a multiple of its planes. */
  readonly expansion: number
  /** For layer2 to layer4: dilate its blocks after the first instead of halving the map. */
  readonly replace_stride_with_dilation: readonly [boolean, boolean, boolean]
}

/** Feature maps of the backbone. */
export interface Features {
  /** After layer1, at a quarter of the image's size: [N, H/4, W/4, planes[0] * expansion]. */
  readonly c1: Tensor
  /** After layer4: [N, H/16, W/16, planes[3] * expansion] with the usual dilation of layer4. */
  readonly c4: Tensor
}

/** Deep-stem residual network with bottleneck blocks (He et al., 2015, as torchvision and the PrevMatch code have it). */
export function resnet(at: Declarations, config: ResNetConfig): (x: Tensor, mode: Mode) => Features {
  const [a, b, c] = config.stem
  const front = at.at('conv1')
  // In PyTorch's Sequential the places 1, 2 and 4, 5 are batch norm and ReLU; the last batch norm is outside of it.
  const stem = sequence([
    named('conv1.0', convolution(front.at('0'), 3, a, { kernel: 3, stride: 2 })),
    named('conv1.1', activated(batchNorm(front.at('1'), a))),
    named('conv1.3', convolution(front.at('3'), a, b, { kernel: 3 })),
    named('conv1.4', activated(batchNorm(front.at('4'), b))),
    named('conv1.6', convolution(front.at('6'), b, c, { kernel: 3 })),
    named('bn1', activated(batchNorm(at.at('bn1'), c))),
  ])
  let cin = c
  let dilation = 1
  const layers = config.planes.map((planes, index) => {
    const name = `layer${index + 1}`
    const dilated = index > 0 && config.replace_stride_with_dilation[index - 1] === true
    const first = { stride: index === 0 || dilated ? 1 : 2, dilation }
    if (dilated) dilation *= 2
    const rest = { stride: 1, dilation }
    const cout = planes * config.expansion
    const blocks = Array.from({ length: config.blocks[index] ?? 0 }, (_, i) => {
      const block = bottleneck(at.at(`${name}.${i}`), i === 0 ? cin : cout, planes, cout, i === 0 ? first : rest)
      return named(`${name}.${i}`, block)
    })
    cin = cout
    return sequence(blocks)
  })
  const [layer1, ...deeper] = layers as [Layer, ...Layer[]]
  return (x, mode) =>
    scoped('backbone', () => {
      const c1 = layer1(maxPool2d(stem(x, mode), { kernel: 3, stride: 2, padding: 1 }), mode)
      return { c1, c4: sequence(deeper)(c1, mode) }
    })
}

const convolution = (at: Declarations, cin: number, cout: number, options: ConvOptions = {}): Layer =>
  conv(at, cin, cout, { ...options, init: 'fanOut' })

const activated =
  (layer: Layer): Layer =>
  (x, mode) =>
    relu(layer(x, mode))

/** 1x1, 3x3 with the stride and the dilation, 1x1, around which the input is added. */
function bottleneck(
  at: Declarations,
  cin: number,
  planes: number,
  cout: number,
  { stride, dilation }: { stride: number; dilation: number },
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
  return (x, mode) => relu(add(body(x, mode), shortcut ? shortcut(x, mode) : x))
}
