import { z } from 'zod'
import { scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { add, gelu } from '../kernels/pointwise.js'
import { knownWidths, outputsOf } from './infer.js'
import {
  type ConvOptions,
  conv,
  type Declarations,
  dropPath,
  dropPathRates,
  type Layer,
  named,
  sequence,
} from './layers.js'
import { type Backbone, type Four, ImageTooSmallError, type InferredConfig, type StateShapes } from './segmentation.js'
import { layerNorm, multiHeadAttention } from './transformer.js'

export interface MitConfig {
  /** Channels of the four stages. */
  readonly embed_dims: Four
  /** Blocks of each. */
  readonly depths: Four
  /** Heads of attention in the blocks of each. */
  readonly num_heads: Four
  /** By how much the map is smaller, along each side, from which keys and values come. */
  readonly sr_ratios: Four
  /** Channels within the feed-forward network of a block, as a multiple of the stage's. */
  readonly mlp_ratio: number
  /** Probability with which a branch of the last block is left out of a sample in training; those before have less. */
  readonly drop_path_rate: number
}

const count = z.int().min(1)
const four = z.tuple([count, count, count, count])

export const mitKeys = {
  embed_dims: four.describe('MiT: channels of its four stages.'),
  depths: four.describe('MiT: number of blocks of its stages.'),
  num_heads: four.describe('MiT: heads of attention in the blocks of its stages.'),
  sr_ratios: four.describe('MiT: by how much the sides of the map are reduced that keys and values come from.'),
  mlp_ratio: count.describe(
    'Transformers: channels within a feed-forward network, as a multiple of those that it reads.',
  ),
  drop_path_rate: z
    .number()
    .min(0)
    .lt(1)
    .describe(
      'Stochastic depth: probability with which a sample of a training step leaves out the last residual branch; it rises ' +
        'linearly from 0 at the first one. Default: 0 for residual networks, 0.1 for MiT.',
    ),
}

const widthsOf = (embed_dims: Four, depths: Four): MitConfig => ({
  embed_dims,
  depths,
  num_heads: [1, 2, 5, 8],
  sr_ratios: [8, 4, 2, 1],
  mlp_ratio: 4,
  drop_path_rate: 0.1,
})

const wide: Four = [64, 128, 320, 512]

/** The Mix Transformers of the SegFormer paper. */
export const mitPresets = {
  mit_b0: widthsOf([32, 64, 160, 256], [2, 2, 2, 2]),
  mit_b1: widthsOf(wide, [2, 2, 2, 2]),
  mit_b2: widthsOf(wide, [3, 4, 6, 3]),
  mit_b3: widthsOf(wide, [3, 4, 18, 3]),
  mit_b4: widthsOf(wide, [3, 8, 27, 3]),
  mit_b5: widthsOf(wide, [3, 6, 40, 3]),
}

export const mitStages = Object.fromEntries([0, 1, 2, 3].map((stage) => [`stage${stage + 1}`, [scopeOf(stage)]]))

function scopeOf(stage: number): string {
  return `backbone.layers.${stage}`
}

/** Height and width that an image has at least: the map of each stage can be reduced then. */
export const smallestSideOf = ({ sr_ratios }: Pick<MitConfig, 'sr_ratios'>): number =>
  Math.max(...sr_ratios.map((ratio, stage) => 4 * 2 ** stage * (ratio - 1) + 1))

/**
 * Mix Transformer (Xie et al., SegFormer, 2021): feature maps of its four stages, at a quarter to a thirty-second of the
 * image's size. Names are those of mmsegmentation.
 */
export function createMit(at: Declarations, config: MitConfig): Backbone {
  const { embed_dims, depths, num_heads, sr_ratios, mlp_ratio } = config
  const rates = dropPathRates(depths, config.drop_path_rate)
  const smallest = smallestSideOf(config)
  const stages = embed_dims.map((channels, stage) => {
    const name = `layers.${stage}`
    const before = depths.slice(0, stage).reduce((sum, depth) => sum + depth, 0)
    const patches = stage === 0 ? { kernel: 7, stride: 4 } : { kernel: 3, stride: 2 }
    const embedding = patchEmbedding(at.at(`${name}.0`), embed_dims[stage - 1] ?? 3, channels, patches)
    const blocks = Array.from({ length: depths[stage] ?? 0 }, (_, i) => {
      const [heads = 1, reduction = 1, rate = 0] = [num_heads[stage], sr_ratios[stage], rates[before + i]]
      const options = { heads, reduction, mlp_ratio, rate, noise: `${name}.1.${i}` }
      return named(`1.${i}`, encoderBlock(at.at(`${name}.1.${i}`), channels, options))
    })
    return named(name, sequence([named('0', embedding), ...blocks, named('2', norm(at.at(`${name}.2`), channels))]))
  })
  return {
    channels: embed_dims,
    strides: [4, 8, 16, 32],
    features: (x, mode) => {
      const [, height = 0, width = 0] = x.shape
      if (Math.min(height, width) < smallest) throw new ImageTooSmallError(height, width, smallest)
      const maps: Tensor[] = []
      scoped('backbone', () => {
        for (const stage of stages) maps.push(stage(maps.at(-1) ?? x, mode))
      })
      return maps
    },
  }
}

const norm = (at: Declarations, channels: number): Layer => layerNorm(at, channels, { eps: 1e-6 })

/** A convolution with bias, its initial weights normal by fan-out, and its bias 0. */
function convolution(at: Declarations, cin: number, cout: number, options: ConvOptions = {}): Layer {
  const { kernel = 1, groups = 1 } = options
  const deviation = Math.sqrt((2 * groups) / (kernel * kernel * cout))
  return conv(at, cin, cout, { ...options, bias: true, init: { deviation } })
}

const patchEmbedding = (at: Declarations, cin: number, cout: number, options: ConvOptions): Layer =>
  sequence([
    named('projection', convolution(at.at('projection'), cin, cout, options)),
    named('norm', norm(at.at('norm'), cout)),
  ])

interface BlockOptions {
  readonly heads: number
  /** By how much the sides of the map are reduced that keys and values come from. */
  readonly reduction: number
  readonly mlp_ratio: number
  /** Rate of `dropPath`, and what the names of its noise begin with. */
  readonly rate: number
  readonly noise: string
}

/** Attention, then a feed-forward network, each of what is normalised first, and added to its input. */
export function encoderBlock(at: Declarations, channels: number, options: BlockOptions): Layer {
  const { heads, reduction, mlp_ratio, rate, noise } = options
  const attend = sequence([
    named('norm1', norm(at.at('norm1'), channels)),
    named('attn', reducedAttention(at.at('attn'), channels, heads, reduction)),
  ])
  const feed = sequence([
    named('norm2', norm(at.at('norm2'), channels)),
    named('ffn', mixFeedForward(at.at('ffn'), channels, mlp_ratio * channels)),
  ])
  return (x, mode) => {
    const y = add(x, dropPath(attend(x, mode), `${noise}.attn`, rate, mode))
    return add(y, dropPath(feed(y, mode), `${noise}.ffn`, rate, mode))
  }
}

const tokensOf = (map: Tensor): Tensor => {
  const [n = 0, height = 0, width = 0, channels = 0] = map.shape
  return map.reshape(n, height * width, channels)
}

/** Attention of each place of a map to the map, or to what a convolution without overlap reduces it to. */
export function reducedAttention(at: Declarations, channels: number, heads: number, reduction: number): Layer {
  const attend = multiHeadAttention(at.at('attn'), channels, heads)
  const options = { kernel: reduction, stride: reduction, padding: 0 }
  const reduce =
    reduction > 1
      ? sequence([
          named('sr', convolution(at.at('sr'), channels, channels, options)),
          named('norm', norm(at.at('norm'), channels)),
        ])
      : undefined
  return (x, mode) => {
    const reduced = reduce ? reduce(x, mode) : x
    return scoped('attn', () => attend(tokensOf(x), tokensOf(reduced))).reshape(...x.shape)
  }
}

/** 1x1 to more channels, 3x3 on each of them alone, GELU, 1x1 back; names are places of a PyTorch `Sequential`. */
export function mixFeedForward(at: Declarations, channels: number, hidden: number): Layer {
  const place = (name: string): Declarations => at.at(`layers.${name}`)
  return sequence([
    named('layers.0', convolution(place('0'), channels, hidden)),
    named('layers.1', convolution(place('1'), hidden, hidden, { kernel: 3, groups: hidden })),
    (x) => gelu(x),
    named('layers.4', convolution(place('4'), hidden, channels)),
  ])
}

/** What a state_dict tells of a Mix Transformer. */
export function inferMit(state: StateShapes): InferredConfig {
  const { num_heads, drop_path_rate } = mitPresets.mit_b2
  const geometry = { num_heads, drop_path_rate }
  const stages = [0, 1, 2, 3].map(scopeOf)
  if (!state.has(`${stages[0]}.0.projection.weight`)) return { widths: {}, geometry }
  const depthOf = (stage: string): number => {
    let depth = 0
    while (state.has(`${stage}.1.${depth}.norm1.weight`)) depth++
    return depth
  }
  const embed_dims = stages.map((stage) => outputsOf(state, `${stage}.0.projection`))
  const widths = knownWidths({
    embed_dims,
    depths: stages.map(depthOf),
    sr_ratios: stages.map((stage) => state.get(`${stage}.1.0.attn.sr.weight`)?.shape[2] ?? 1),
    mlp_ratio: outputsOf(state, `${stages[0]}.1.0.ffn.layers.0`) / (embed_dims[0] ?? 0),
  })
  return { widths, geometry }
}
