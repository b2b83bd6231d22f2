import { scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import type { Store, Variable } from '../engine/store.js'
import { concat } from '../kernels/movement.js'
import { broadcastTo, mul } from '../kernels/pointwise.js'
import { globalAveragePool } from '../kernels/pool.js'
import { resizeBilinear } from '../kernels/resize.js'
import { conv, convUnit, Declarations, type InitialRandom, type Layer, type Mode, named, sequence } from './layers.js'
import { type Features, type ResNetConfig, resnet } from './resnet.js'

export type { InitialRandom, Mode } from './layers.js'
export type { Features } from './resnet.js'

/** Widths and depths; the keys are those of the configuration files. */
export interface ModelConfig extends ResNetConfig {
  readonly nclass: number
  /** Rates of the three dilated branches of the pyramid. */
  readonly dilations: readonly [number, number, number]
  /** Channels to which the features of layer1 are reduced. */
  readonly reduce_channels: number
  /** Channels of each branch of the pyramid, and of its result. */
  readonly aspp_channels: number
  readonly fuse_channels: number
}

const resnet50: Omit<ModelConfig, 'nclass'> = {
  stem: [64, 64, 128],
  planes: [64, 128, 256, 512],
  blocks: [3, 4, 6, 3],
  expansion: 4,
  replace_stride_with_dilation: [false, false, true],
  dilations: [6, 12, 18],
  reduce_channels: 48,
  aspp_channels: 256,
  fuse_channels: 256,
}

/** Models by the name of their backbone, without the number of classes. */
export const presets = {
  resnet50,
  resnet101: { ...resnet50, blocks: [3, 4, 23, 3] },
} as const satisfies Record<string, Omit<ModelConfig, 'nclass'>>

type Partly<T> = { readonly [Key in keyof T]?: T[Key] | undefined }

export interface ModelChoice extends Partly<Pick<ModelConfig, 'replace_stride_with_dilation' | 'dilations'>> {
  readonly nclass: number
  readonly backbone?: keyof typeof presets | undefined
  /** What differs from the backbone's usual widths and depths. */
  readonly model?: Partly<ModelConfig> | undefined
}

/** The widths and depths that a configuration asks for. `model` prevails over the other keys. */
export function modelConfig(choice: ModelChoice): ModelConfig {
  const { backbone = 'resnet50', nclass, replace_stride_with_dilation, dilations, model = {} } = choice
  const given = { replace_stride_with_dilation, dilations, ...model }
  const known = Object.entries(given).filter(([, value]) => value !== undefined)
  return { ...presets[backbone], nclass, ...Object.fromEntries(known) }
}

/** Multipliers of the channels of c1 [N, C1] and c4 [N, C4]: channel dropout, drawn by the caller. */
export interface FeatureDropout {
  readonly c1: Tensor
  readonly c4: Tensor
}

/**
 * DeepLabV3+ (Chen et al., 2018) as the PrevMatch code has it. Its variables carry the names of PyTorch's state_dict;
 * convolution weights are [KH, KW, Cin, Cout], see weights.ts for the conversion.
 */
export class DeepLabV3Plus {
  private readonly backbone: (x: Tensor, mode: Mode) => Features
  private readonly pyramid: Layer
  private readonly reduce: Layer
  private readonly fuse: Layer
  private readonly classifier: Layer
  /** Training-mode passes so far of each batch norm, by its `num_batches_tracked`. Nothing is computed from it. */
  readonly batchesTracked = new Map<string, number>()

  /**
   * Declares the variables in `store`, in the order of PyTorch's state_dict.
   * @param random draws the initial weights as PyTorch does by default (the backbone's: normal, by fan-out);
   *   without it they are 0, for values that are loaded afterwards
   */
  constructor(
    readonly config: ModelConfig,
    readonly store: Store,
    random?: InitialRandom,
  ) {
    const at = new Declarations(store, random)
    const { planes, expansion, aspp_channels: wide, reduce_channels: low, fuse_channels: fused, nclass } = config
    this.backbone = resnet(at.at('backbone'), config)
    this.pyramid = pyramid(at.at('head'), planes[3] * expansion, wide, config.dilations)
    this.reduce = named('reduce', convUnit(at.at('reduce'), 0, planes[0] * expansion, low))
    const fuse = at.at('fuse')
    this.fuse = named(
      'fuse',
      sequence([convUnit(fuse, 0, low + wide, fused, { kernel: 3 }), convUnit(fuse, 3, fused, fused, { kernel: 3 })]),
    )
    this.classifier = named('classifier', conv(at.at('classifier'), fused, nclass, { bias: true }))
    for (const { name } of store.all()) {
      if (name.endsWith('.running_var')) this.batchesTracked.set(batchesTrackedName(name), 0)
    }
  }

  /** What training changes by its gradient: everything but the running statistics. In PyTorch's order. */
  get parameters(): Variable[] {
    return this.store.all().filter(({ name }) => !/\.running_(mean|var)$/.test(name))
  }

  /** Feature maps of normalised images [N, H, W, 3]. */
  features(x: Tensor, mode: Mode): Features {
    return this.backbone(x, mode)
  }

  /** Logits at the size of c1, [N, H/4, W/4, nclass]: `upsample` them to the size of the image. */
  decode({ c1, c4 }: Features, mode: Mode): Tensor {
    const [, height = 0, width = 0] = c1.shape
    const [shallow, deep] = [this.reduce(c1, mode), this.pyramid(c4, mode)]
    const both = scoped('decoder', () => concat([shallow, resizeBilinear(deep, [height, width])], 3))
    return this.classifier(this.fuse(both, mode), mode)
  }

  /** Logits at a quarter of the size of the images. */
  lowLogits(x: Tensor, mode: Mode): Tensor {
    return this.decode(this.features(x, mode), mode)
  }

  /** Logits of normalised images [N, H, W, 3] at their size: [N, H, W, nclass]. */
  logits(x: Tensor, mode: Mode): Tensor {
    const [, height = 0, width = 0] = x.shape
    return upsample(this.lowLogits(x, mode), [height, width])
  }

  /** `passes` more batches went through every batch norm in training mode. */
  countBatches(passes: number): void {
    for (const [name, count] of this.batchesTracked) this.batchesTracked.set(name, count + passes)
  }
}

/** Declares a model's variables in an empty store; see `DeepLabV3Plus`. */
export const createModel = (store: Store, config: ModelConfig, random?: InitialRandom): DeepLabV3Plus =>
  new DeepLabV3Plus(config, store, random)

/** Logits at another size, bilinearly with aligned corners: linear in the logits. */
export const upsample = (logits: Tensor, size: readonly [number, number]): Tensor =>
  scoped('upsample', () => resizeBilinear(logits, size))

/** Height or width of c1 and of the decoder's logits, for that of the image. */
export const quarter = (extent: number): number => Math.ceil(Math.ceil(extent / 2) / 2)

/** A doubled batch for the decoder: the features, then the same features with their channels multiplied. */
export function withPerturbed({ c1, c4 }: Features, dropout: FeatureDropout): Features {
  const both = (x: Tensor, multipliers: Tensor): Tensor => {
    const [n = 0, , , channels = 0] = x.shape
    return concat([x, mul(x, multipliers.reshape(n, 1, 1, channels))], 0)
  }
  return scoped('dropout', () => ({ c1: both(c1, dropout.c1), c4: both(c4, dropout.c4) }))
}

/** PyTorch's counter beside a running statistic. */
const batchesTrackedName = (name: string): string => name.replace(/running_var$/, 'num_batches_tracked')

/** Atrous spatial pyramid pooling: 1x1, three dilated 3x3, and the mean over the map. */
function pyramid(at: Declarations, cin: number, cout: number, dilations: readonly number[]): Layer {
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
