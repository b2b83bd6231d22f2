import { z } from 'zod'
import { scoped } from '../engine/graph.js'
import type { Store } from '../engine/store.js'
import { concat } from '../kernels/movement.js'
import { broadcastTo } from '../kernels/pointwise.js'
import { globalAveragePool } from '../kernels/pool.js'
import { resizeBilinear } from '../kernels/resize.js'
import { knownWidths, outputsOf } from './infer.js'
import {
  batchCounters,
  conv,
  convUnit,
  Declarations,
  type InitialRandom,
  type Layer,
  named,
  sequence,
} from './layers.js'
import { type ResNetConfig, resnet } from './resnet.js'
import { resnetDct } from './resnet-dct.js'
import type {
  Architecture,
  BackboneFamily,
  InferredConfig,
  ModelConfig,
  SegmentationModel,
  StateShapes,
} from './segmentation.js'
import { xception } from './xception.js'

/** Kinds of backbones by the key `family` of a configuration. */
const families: Readonly<Record<string, BackboneFamily>> = { resnet, xception, resnet_dct: resnetDct }

/** The family of a configuration that names none. */
const defaultFamily = 'resnet'

/** Widths of all but the backbone; the keys are those of the configuration files. */
interface HeadConfig extends ModelConfig {
  readonly family?: string | undefined
  /** Rates of the three dilated branches of the ASPP. */
  readonly dilations: readonly [number, number, number]
  /** Channels to which the finest features are reduced. */
  readonly reduce_channels: number
  /** Channels of each branch of the ASPP, and of its result. */
  readonly aspp_channels: number
  readonly fuse_channels: number
}

/** Widths and depths with a residual network as the backbone. */
export type DeepLabV3PlusConfig = HeadConfig & ResNetConfig

const count = z.int().min(1)
const rate = count.max(1000)

const headKeys = {
  dilations: z.tuple([rate, rate, rate]).describe('In place of the key of the same name above.'),
  reduce_channels: count.describe('Channels to which the finest features are reduced.'),
  aspp_channels: count.describe('Channels of each branch of the ASPP, and of its result.'),
  fuse_channels: count.describe('Channels of the two convolutions of the decoder.'),
  nclass: count.describe('The same as the key `nclass`.'),
}

const usualHead = { dilations: [6, 12, 18], reduce_channels: 48, aspp_channels: 256, fuse_channels: 256 }

const schemaOf = ([name, { keys }]: readonly [string, BackboneFamily]) => {
  const family = name === defaultFamily ? z.literal(name).optional() : z.literal(name)
  return z.strictObject({ family, ...keys, ...headKeys })
}

const schema = z.discriminatedUnion('family', Object.entries(families).map(schemaOf) as [ReturnType<typeof schemaOf>])

const presets = Object.entries(families).flatMap(([name, family]) =>
  Object.entries(family.presets).map(([backbone, widths]) => {
    return [backbone, { ...(name === defaultFamily ? {} : { family: name }), ...widths, ...usualHead }] as const
  }),
)

const headStages = { head: ['head'], decoder: ['reduce', 'decoder', 'fuse', 'classifier'] }

/** DeepLabV3+ (Chen et al., 2018) as the PrevMatch code has it. */
export const deepLabV3Plus: Architecture = {
  name: 'deeplabv3plus',
  contents: 'DeepLabV3+ (backbone, head, reduce, fuse, classifier)',
  keys: Object.assign({}, ...Object.values(families).map(({ keys }) => keys), headKeys) as z.ZodRawShape,
  schema,
  presets: Object.fromEntries(presets),
  defaultBackbone: 'resnet50',
  stages: [
    ...new Set([...Object.values(families), { stages: headStages }].flatMap(({ stages }) => Object.keys(stages))),
  ],
  backboneNames: [...new Set(Object.values(families).map(({ names }) => names))],
  stagesOf: ({ family }) => Object.keys(stagesWith(familyOf(family))),
  inputOf: ({ family }) => familyOf(family).input ?? 'rgb',
  create: (store, config, random) => create(store, schema.parse(config), random),
  inferConfig,
  explainMismatch(state, config) {
    const concerned = config ? [familyOf(config.family)] : Object.values(families)
    const reasons = concerned.map((family) => family.explainMismatch?.(state))
    return reasons.find((reason) => reason !== undefined) ?? (config && explainFamily(state, familyOf(config.family)))
  },
}

function familyOf(name: unknown = defaultFamily): BackboneFamily {
  const family = families[String(name)]
  if (!family) throw new Error(`there is no family '${name}' of backbones`)
  return family
}

const stagesWith = ({ stages }: BackboneFamily) => ({ ...stages, ...headStages })

const knows = (object: object): boolean => Object.keys(object).length > 0

/** Why a state_dict does not fit models of a family, where its backbone is one of another. */
function explainFamily(state: StateShapes, wanted: BackboneFamily): string | undefined {
  const found = Object.values(families).find((family) => knows(family.inferConfig(state).widths))
  if (!found || found === wanted) return undefined
  const names = ({ presets }: BackboneFamily) => Object.keys(presets).join(' or ')
  return `its backbone is of the kind of ${names(found)}, where the model has that of ${names(wanted)}`
}

function create(store: Store, config: HeadConfig, random?: InitialRandom): SegmentationModel {
  const { nclass, aspp_channels: wide, reduce_channels: low, fuse_channels: fused } = config
  const family = familyOf(config.family)
  const encoder = new Declarations(store, random, 'backbone')
  const backbone = family.create(encoder, config)
  const [first, last] = [0, backbone.channels.length - 1]
  const channelsOf = (level: number): number => backbone.channels[level] ?? 0

  const at = new Declarations(store, random)
  const pooling = aspp(at.at('head'), channelsOf(last), wide, config.dilations)
  const reduce = named('reduce', convUnit(at.at('reduce'), 0, channelsOf(first), low))
  const fuseAt = at.at('fuse')
  const fuse = named(
    'fuse',
    sequence([convUnit(fuseAt, 0, low + wide, fused, { kernel: 3 }), convUnit(fuseAt, 3, fused, fused, { kernel: 3 })]),
  )
  const classifier = named('classifier', conv(at.at('classifier'), fused, nclass, { bias: true }))

  return {
    architecture: deepLabV3Plus.name,
    config,
    store,
    inputChannels: family.inputChannels,
    input: family.input,
    groups: [
      { name: 'backbone', ...encoder.group },
      { name: 'head', ...at.group },
    ],
    batchesTracked: batchCounters(store),
    // The last features have the name of a residual network's fourth map with every backbone.
    dropoutLevels: [
      { levels: [0], name: 'c1', channels: channelsOf(first) },
      { levels: [1], name: 'c4', channels: channelsOf(last) },
    ],
    stages: stagesWith(family),
    pretrained: family.pretrained,
    features(x, mode) {
      const maps = backbone.features(x, mode)
      return maps.filter((_, level) => level === first || level === last)
    },
    decode([finest, deepest], mode) {
      if (!finest || !deepest) throw new Error('the decoder of DeepLabV3+ reads two feature maps')
      const [, height = 0, width = 0] = finest.shape
      const [shallow, deep] = [reduce(finest, mode), pooling(deepest, mode)]
      const both = scoped('decoder', () => concat([shallow, resizeBilinear(deep, [height, width])], 3))
      return classifier(fuse(both, mode), mode)
    },
    logitSize: (extent) => Math.ceil(extent / (backbone.strides[first] ?? 1)),
  }
}

function inferConfig(state: StateShapes): InferredConfig {
  const inferred = Object.entries(families).map(([name, family]) => ({ name, ...family.inferConfig(state) }))
  const found = inferred.find(({ widths }) => knows(widths))
  const family = found && found.name !== defaultFamily ? { family: found.name } : {}
  const head = knownWidths({
    reduce_channels: outputsOf(state, 'reduce.0'),
    aspp_channels: outputsOf(state, 'head.b0.0'),
    fuse_channels: outputsOf(state, 'fuse.0'),
    nclass: outputsOf(state, 'classifier'),
  })
  return {
    widths: { ...family, ...found?.widths, ...head },
    geometry: { dilations: usualHead.dilations, ...found?.geometry },
  }
}

/** Atrous spatial pyramid pooling: 1x1, three dilated 3x3, and the mean over the map. */
function aspp(at: Declarations, cin: number, cout: number, dilations: readonly number[]): Layer {
  const branches = [
    named('b0', convUnit(at.at('b0'), 0, cin, cout)),
    ...dilations.map((dilation, i) =>
      named(`b${i + 1}`, convUnit(at.at(`b${i + 1}`), 0, cin, cout, { kernel: 3, dilation })),
    ),
  ]
  const pooled = named('b4.gap', convUnit(at.at('b4.gap'), 1, cin, cout))
  const project = named('project', convUnit(at.at('project'), 0, (branches.length + 1) * cout, cout))
  const layer: Layer = (x, mode) => {
    const maps = branches.map((branch) => branch(x, mode))
    const [n = 0, height = 0, width = 0] = x.shape
    const mean = broadcastTo(pooled(globalAveragePool(x), mode), [n, height, width, cout])
    return project(concat([...maps, mean], 3), mode)
  }
  return named('head', layer)
}
