import { z } from 'zod'
import { scoped } from '../engine/graph.js'
import type { Store } from '../engine/store.js'
import { concat } from '../kernels/movement.js'
import { relu } from '../kernels/pointwise.js'
import { resizeBilinear } from '../kernels/resize.js'
import { knownWidths, outputsOf } from './infer.js'
import {
  batchCounters,
  batchNorm,
  conv,
  Declarations,
  dropChannels,
  type InitialRandom,
  type Layer,
  named,
} from './layers.js'
import { createMit, inferMit, type MitConfig, mitKeys, mitPresets, mitStages, smallestSideOf } from './mit.js'
import { mitNames } from './mit-names.js'
import type { Architecture, ModelConfig, SegmentationModel, StateShapes } from './segmentation.js'

/** Widths and depths; the keys are those of the configuration files. */
export interface SegFormerConfig extends ModelConfig, MitConfig {
  /** Channels of the head. */
  readonly head_channels: number
  /** Share of the channels that are dropped in training before the classifier. */
  readonly head_dropout: number
}

const headKeys = {
  head_channels: z.int().min(1).describe('SegFormer: channels of the head.'),
  head_dropout: z
    .number()
    .min(0)
    .lt(1)
    .describe('SegFormer: share of the channels that are dropped in training before the classifier.'),
}

const schema = z
  .strictObject({ ...mitKeys, ...headKeys, nclass: z.int().min(1) })
  .refine(({ embed_dims, num_heads }) => embed_dims.every((channels, i) => channels % (num_heads[i] ?? 1) === 0), {
    path: ['num_heads'],
    error: 'embed_dims must be multiples of num_heads, stage by stage',
  })

const usualHead = { head_channels: 256, head_dropout: 0.1 }

const stages = { ...mitStages, head: ['head'] }

/** SegFormer (Xie et al., 2021) as mmsegmentation has it. */
export const segformer: Architecture = {
  name: 'segformer',
  contents: 'SegFormer (backbone, and a head of convs, fusion_conv and conv_seg)',
  keys: { ...mitKeys, ...headKeys },
  schema,
  presets: Object.fromEntries(Object.entries(mitPresets).map(([name, widths]) => [name, { ...widths, ...usualHead }])),
  defaultBackbone: 'mit_b2',
  stages: Object.keys(stages),
  backboneNames: mitNames,
  stagesOf: () => Object.keys(stages),
  smallestSide: (config) => smallestSideOf(schema.parse(config)),
  create: (store, config, random) => create(store, schema.parse(config), random),
  inferConfig(state) {
    const { widths, geometry } = inferMit(state)
    const head = knownWidths({
      head_channels: outputsOf(state, 'head.fusion_conv.conv'),
      nclass: outputsOf(state, 'head.conv_seg'),
    })
    return { widths: { ...widths, ...head }, geometry: { ...geometry, head_dropout: usualHead.head_dropout } }
  },
  explainMismatch,
}

function create(store: Store, config: SegFormerConfig, random?: InitialRandom): SegmentationModel {
  const { embed_dims, head_channels: channels, head_dropout: rate, nclass } = config
  const encoder = new Declarations(store, random, 'backbone')
  const backbone = createMit(encoder, config)
  const at = new Declarations(store, random, 'head')
  const classify = conv(at.at('conv_seg'), channels, nclass, { bias: true, init: { deviation: 0.01 } })
  const convs = embed_dims.map((cin, stage) => named(`convs.${stage}`, unit(at.at(`convs.${stage}`), cin, channels)))
  const fuse = named('fusion_conv', unit(at.at('fusion_conv'), convs.length * channels, channels))
  return {
    architecture: segformer.name,
    config,
    store,
    inputChannels: 3,
    groups: [
      { name: 'backbone', ...encoder.group },
      { name: 'head', ...at.group },
    ],
    batchesTracked: batchCounters(store),
    // The names are those of a residual network's first and fourth map.
    dropoutLevels: [
      { levels: [0], name: 'c1', channels: embed_dims[0] },
      { levels: [3], name: 'c4', channels: embed_dims[3] },
    ],
    stages,
    pretrained: { leftAside: /^(head|classifier)\./, mayLack: false },
    features: backbone.features,
    decode: (maps, mode) =>
      scoped('head', () => {
        const [, height = 0, width = 0] = maps[0]?.shape ?? []
        const parts = convs.map((layer, stage) => {
          const map = maps[stage]
          if (!map) throw new Error('the head of SegFormer reads four feature maps')
          return resizeBilinear(layer(map, mode), [height, width])
        })
        const fused = dropChannels(fuse(concat(parts, 3), mode), 'head', rate, mode)
        return scoped('conv_seg', () => classify(fused, mode))
      }),
    logitSize: (extent) => Math.ceil(extent / 4),
  }
}

/** 1x1 convolution without bias, batch norm, ReLU. */
function unit(at: Declarations, cin: number, cout: number): Layer {
  const convolve = conv(at.at('conv'), cin, cout, { init: 'fanOut' })
  const normalize = batchNorm(at.at('bn'), cout)
  return (x, mode) => relu(normalize(convolve(x, mode), mode))
}

/** The head of SegFormer's own code, which has linear layers in place of convolutions with batch norm. */
function explainMismatch(state: StateShapes): string | undefined {
  if (!state.has('head.linear_c1.proj.weight') && !state.has('head.linear_c.0.proj.weight')) return undefined
  return (
    "its head is that of SegFormer's own code, of linear layers without batch norm, where the model has that of " +
    'mmsegmentation: only its backbone can be used, as `pretrained`'
  )
}
