import { z } from 'zod'
import { read, scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import type { Store } from '../engine/store.js'
import { convTranspose2d } from '../kernels/conv-transpose2d.js'
import { add, relu } from '../kernels/pointwise.js'
import { resizeBilinear } from '../kernels/resize.js'
import {
  conflictIn,
  createDinoV2,
  type DinoV2Config,
  dinoV2Keys,
  dinoV2Presets,
  dinoV2Stages,
  inferDinoV2,
} from './dinov2.js'
import { dinoV2Names } from './dinov2-names.js'
import { knownWidths, outputsOf } from './infer.js'
import { conv, Declarations, type InitialRandom, type Layer, type Mode, named, sequence } from './layers.js'
import type { Architecture, Four, ModelConfig, SegmentationModel, StateShapes } from './segmentation.js'

/** Widths and depths; the keys are those of the configuration files. */
export interface DptConfig extends ModelConfig, DinoV2Config {
  /** Channels to which each feature map is projected. */
  readonly out_channels: Four
  /** Channels of the maps that are fused. */
  readonly features: number
}

const count = z.int().min(1)

const headKeys = {
  out_channels: z
    .tuple([count, count, count, count])
    .describe('DPT: channels to which each of the four feature maps is projected.'),
  features: count.describe('DPT: channels of the maps that are fused.'),
}

const schema = z.strictObject({ ...dinoV2Keys, ...headKeys, nclass: count }).check(({ value, issues }) => {
  const message = conflictIn(value)
  if (message !== undefined) issues.push({ code: 'custom', message, input: value })
})

const heads = {
  'dinov2-small': { out_channels: [48, 96, 192, 384], features: 64 },
  'dinov2-base': { out_channels: [96, 192, 384, 768], features: 128 },
  'dinov2-large': { out_channels: [256, 512, 1024, 1024], features: 256 },
} satisfies Record<keyof typeof dinoV2Presets, unknown>

const stageNames = ['stage1', 'stage2', 'stage3', 'stage4', 'head']

/** The dense prediction head of DPT (Ranftl et al., 2021) on DINOv2, without batch norm, as UniMatch V2 has it. */
export const dpt: Architecture = {
  name: 'dpt',
  contents: 'DPT on DINOv2 (backbone, and a head of projects, resize_layers and scratch)',
  keys: { ...dinoV2Keys, ...headKeys },
  schema,
  presets: Object.fromEntries(
    Object.entries(dinoV2Presets).map(([name, widths]) => [name, { ...widths, ...heads[name as keyof typeof heads] }]),
  ),
  defaultBackbone: 'dinov2-small',
  stages: stageNames,
  backboneNames: dinoV2Names,
  stagesOf: () => stageNames,
  multipleOf: (config) => schema.parse(config).patch,
  create: (store, config, random) => create(store, schema.parse(config), random),
  inferConfig(state) {
    const { widths, geometry } = inferDinoV2(state)
    const head = knownWidths({
      out_channels: [0, 1, 2, 3].map((i) => outputsOf(state, `head.projects.${i}`)),
      features: outputsOf(state, 'head.scratch.output_conv.0'),
      nclass: outputsOf(state, 'head.scratch.output_conv.2'),
    })
    return { widths: { ...widths, ...head }, geometry }
  },
  explainMismatch,
}

function create(store: Store, config: DptConfig, random?: InitialRandom): SegmentationModel {
  const { dim, patch } = config
  const encoder = new Declarations(store, random, 'backbone')
  const backbone = createDinoV2(encoder, config)
  const at = new Declarations(store, random, 'head')
  const decode = dptHead(at, config)
  return {
    architecture: dpt.name,
    config,
    store,
    inputChannels: 3,
    groups: [
      { name: 'backbone', ...encoder.group },
      { name: 'head', ...at.group },
    ],
    batchesTracked: new Map(),
    dropoutLevels: [{ levels: [0, 1, 2, 3], name: 'taps', channels: dim }],
    stages: { ...dinoV2Stages(config), head: ['head'] },
    multiple: patch,
    features: backbone.features,
    decode: (maps, mode) => scoped('head', () => decode(maps, mode)),
    logitSize: (extent) => (8 * extent) / patch,
  }
}

/** Four maps [N, h, w, dim] → logits [N, 8 h, 8 w, nclass]. */
export function dptHead(
  at: Declarations,
  { dim, out_channels: widths, features, nclass }: Pick<DptConfig, 'dim' | 'out_channels' | 'features' | 'nclass'>,
): (maps: readonly Tensor[], mode: Mode) => Tensor {
  const same = (name: string, cin: number, cout: number, options = {}): Layer =>
    named(name, conv(at.at(name), cin, cout, { bias: true, ...options }))
  const projects = widths.map((width, i) => same(`projects.${i}`, dim, width))
  const resizes: readonly (Layer | undefined)[] = [
    named('resize_layers.0', enlarging(at.at('resize_layers.0'), widths[0], 4)),
    named('resize_layers.1', enlarging(at.at('resize_layers.1'), widths[1], 2)),
    undefined,
    same('resize_layers.3', widths[3], widths[3], { kernel: 3, stride: 2 }),
  ]
  const narrow = widths.map((width, i) => same(`scratch.layer${i + 1}_rn`, width, features, { kernel: 3, bias: false }))
  const fusions = [1, 2, 3, 4].map((level) => {
    const name = `scratch.refinenet${level}`
    const fuse = fusion(at.at(name), features, level < 4)
    return (deep: Tensor | undefined, skip: Tensor, size: Size | undefined, mode: Mode) =>
      scoped(name, () => fuse(deep, skip, size, mode))
  })
  const output = same('scratch.output_conv.0', features, features, { kernel: 3 })
  const classify = same('scratch.output_conv.2', features, nclass)
  return (maps, mode) => {
    const skips = maps.map((map, i) => {
      const projected = projects[i]?.(map, mode) ?? map
      const resized = resizes[i]?.(projected, mode) ?? projected
      return narrow[i]?.(resized, mode) ?? resized
    })
    const path = [3, 2, 1, 0].reduce<Tensor | undefined>((deep, level) => {
      const skip = skips[level]
      const fuse = fusions[level]
      if (!skip || !fuse) throw new Error('the head of DPT reads four feature maps')
      return fuse(deep, skip, sizeOf(skips[level - 1]), mode)
    }, undefined)
    if (!path) throw new Error('unreachable: there are four maps')
    return classify(relu(output(path, mode)), mode)
  }
}

type Size = readonly [height: number, width: number]

const sizeOf = (map: Tensor | undefined): Size | undefined => map && [map.shape[1] ?? 0, map.shape[2] ?? 0]

/** A transposed convolution that gives each pixel a square of its own, with PyTorch's initial weights. */
function enlarging(at: Declarations, channels: number, factor: number): Layer {
  const { random } = at
  const bound = 1 / Math.sqrt(channels * factor * factor)
  const uniform = random && (() => random.uniform(-bound, bound))
  const weight = at.parameter('weight', [factor, factor, channels, channels], uniform)
  const bias = at.parameter('bias', [channels], uniform)
  return (x) => add(convTranspose2d(x, read(weight), { stride: factor }), read(bias))
}

/** x + conv2(relu(conv1(relu(x)))), 3x3 each. */
export function residualUnit(at: Declarations, channels: number): Layer {
  const options = { kernel: 3, bias: true }
  const inner = sequence([
    (x) => relu(x),
    named('conv1', conv(at.at('conv1'), channels, channels, options)),
    (x) => relu(x),
    named('conv2', conv(at.at('conv2'), channels, channels, options)),
  ])
  return (x, mode) => add(x, inner(x, mode))
}

/**
 * What comes from the coarser map, and a residual unit of the finer one, through another unit: at the size of the next
 * finer map, or twice its own. The coarsest level has nothing to add, so that its first unit is there, but never computed.
 */
export function fusion(at: Declarations, channels: number, adds: boolean) {
  const project = named('out_conv', conv(at.at('out_conv'), channels, channels, { bias: true }))
  const ofSkip = at.at('resConfUnit1')
  const unit1 = named('resConfUnit1', residualUnit(adds ? ofSkip : ofSkip.untrained(), channels))
  const unit2 = named('resConfUnit2', residualUnit(at.at('resConfUnit2'), channels))
  return (deep: Tensor | undefined, skip: Tensor, size: Size | undefined, mode: Mode): Tensor => {
    const joined = deep ? add(deep, unit1(skip, mode)) : skip
    // A 1x1 convolution commutes with a resize, whose weights sum to 1: before it there are fewer pixels.
    const y = project(unit2(joined, mode), mode)
    const [height, width] = sizeOf(y) ?? [0, 0]
    return resizeBilinear(y, size ?? [2 * height, 2 * width])
  }
}

/** Encoders that are much like it. */
function explainMismatch(state: StateShapes): string | undefined {
  if (!state.has('backbone.register_tokens')) return undefined
  return 'its backbone is a DINOv2 with register tokens, which the model has not: choose the file without registers'
}
