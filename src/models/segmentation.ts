import type { z } from 'zod'
import { AtrousError } from '../engine/error.js'
import { scoped } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import type { Shape } from '../engine/shape.js'
import type { Store, Variable } from '../engine/store.js'
import { concat } from '../kernels/movement.js'
import { mul } from '../kernels/pointwise.js'
import { resizeBilinear } from '../kernels/resize.js'
import type { Declarations, InitialRandom, Mode } from './layers.js'

/** Parts of a model by name, each with the scopes of its layers: their activations can be computed again. */
export type Stages = Readonly<Record<string, readonly string[]>>

/** A value of each of the four feature maps of a backbone, or of the stages that give them, the finest first. */
export type Four = readonly [number, number, number, number]

/** Shapes of a state_dict in PyTorch's layout, by the names of its tensors. */
export type StateShapes = ReadonlyMap<string, { readonly shape: Shape }>

/** What a state_dict tells of a configuration. */
export interface InferredConfig {
  /** The keys that the shapes of its tensors show; none that they leave open. */
  readonly widths: object
  /** The usual values of the keys that no tensor shows, such as dilations. */
  readonly geometry: object
}

/**
 * What a model reads: normalised RGB pixels [N, H, W, 3], or normalised DCT coefficients [N, ⌈H/4⌉, ⌈W/4⌉, 64] of an image,
 * see `normalizeCoefficients`.
 */
export type ModelInput = 'rgb' | 'coefficients'

/** A feature extractor whose variables bear names that begin with `backbone.`. */
export interface Backbone {
  /** Channels of the feature maps. */
  readonly channels: readonly number[]
  /** By how much each feature map is smaller than the image; extents are rounded up. */
  readonly strides: readonly number[]
  /** Feature maps of an input of `ModelInput`, the finest first: [N, H / stride, W / stride, channels]. */
  features(x: Tensor, mode: Mode): readonly Tensor[]
}

/** How state_dicts of other programs name a kind of backbone. */
export interface BackboneNames {
  /** A tensor that every backbone of the kind has, behind `backbone.`. */
  readonly landmark: string
  /** What names begin with there, and here; the first one that fits counts. */
  readonly synonyms: readonly (readonly [theirs: string, ours: string])[]
  /** The same of names outside of the backbone. */
  readonly outside?: readonly (readonly [theirs: string, ours: string])[]
  /** Gives a name of `program` behind `backbone.` ours; it stays where none corresponds. */
  readonly translate?: (name: string) => string
  readonly program?: string
  /**
   * Tensors that are one here: what the names of each part hold. They lie one after the other along the first axis, and the
   * whole is translated by the name of the first.
   */
  readonly joined?: readonly (readonly string[])[]
  /** Matrices [O, I] there that are 1x1 convolutions [O, I, 1, 1] here: what their names end with. */
  readonly convolutions?: readonly string[]
}

/** What a file of weights for a backbone alone may have and lack. */
export interface PretrainedRules {
  /** Names, without the prefix `backbone.`, of tensors that are left aside. */
  readonly leftAside: RegExp
  /** Whether tensors may be missing, which then keep their initial values. */
  readonly mayLack: boolean
}

/** Backbones of one kind, such as all depths and widths of a residual network. */
export interface BackboneFamily {
  readonly inputChannels: number
  /** Default: `rgb`. */
  readonly input?: ModelInput
  readonly names: BackboneNames
  /** Without it such a file has all tensors of the backbone and no others. */
  readonly pretrained?: PretrainedRules
  /** Its part of the configuration. */
  readonly keys: z.ZodRawShape
  /** Configurations by the name that a user gives as `backbone`. */
  readonly presets: Readonly<Record<string, object>>
  readonly stages: Stages
  /** Declares the variables; `config` may hold further keys, which are those of the decoder. */
  create(at: Declarations, config: object): Backbone
  inferConfig(state: StateShapes): InferredConfig
  /** Why weights that a user may well try cannot fit, and what would. */
  explainMismatch?(state: StateShapes): string | undefined
}

/** A model cannot compute an image, or a part of one, whose sides are too short for its reductions. */
export class ImageTooSmallError extends AtrousError {
  override name = 'ImageTooSmallError'

  constructor(height: number, width: number, smallest: number) {
    super(
      `the model computes no image of ${height} x ${width} pixels, or window of that size at a border: its sides must have ` +
        `${smallest} at least: enlarge or leave out such images, or choose another crop_size of windows`,
    )
  }
}

/** What every model's configuration has, besides the keys of its architecture. */
export interface ModelConfig {
  /** Number of classes. */
  readonly nclass: number
  readonly [key: string]: unknown
}

/** What an optimizer may treat differently. */
export interface ParameterGroup {
  readonly name: 'backbone' | 'head'
  /** What training changes by its gradient: everything but the running statistics. */
  readonly parameters: readonly Variable[]
  /** Those of normalisation layers among them. */
  readonly normalization?: ReadonlySet<Variable>
}

/** Feature maps whose channels are dropped to perturb them: the same ones of each map. */
export interface DropoutLevel {
  /** Their places among the features. */
  readonly levels: readonly number[]
  readonly name: string
  readonly channels: number
}

/**
 * A network that gives each pixel of an image a score per class. Its variables carry the names of PyTorch's state_dict;
 * convolution weights are [KH, KW, Cin, Cout], see weights.ts for the conversion.
 */
export interface SegmentationModel {
  /** Its row of the table of architectures, and its configuration there. */
  readonly architecture: string
  readonly config: ModelConfig
  readonly store: Store
  readonly inputChannels: number
  /** Default: `rgb`. */
  readonly input?: ModelInput | undefined
  readonly groups: readonly ParameterGroup[]
  /** Training-mode passes so far of each batch norm, by its `num_batches_tracked`. Nothing is computed from it. */
  readonly batchesTracked: Map<string, number>
  readonly dropoutLevels: readonly DropoutLevel[]
  readonly stages: Stages
  /** Of which the sides of images are multiples; those of others are resized to the nearest, see `fittingSize`. */
  readonly multiple?: number | undefined
  /** Without it a file of weights for the backbone has all of its tensors and no others. */
  readonly pretrained?: PretrainedRules | undefined
  /** The feature maps that the decoder reads, of what `input` says. */
  features(x: Tensor, mode: Mode): readonly Tensor[]
  /** Logits [N, h, w, nclass] with h = logitSize(H), w = logitSize(W). */
  decode(features: readonly Tensor[], mode: Mode): Tensor
  /** Height or width of the decoder's logits for that of an image. */
  logitSize(extent: number): number
}

/** A kind of model: a row of the table in index.ts. */
export interface Architecture {
  readonly name: string
  /** A whole model in words, with its parts. */
  readonly contents: string
  /** Its keys in the section `model` of a configuration. */
  readonly keys: z.ZodRawShape
  /** Checks a whole configuration; further keys are refused. */
  readonly schema: z.ZodType<ModelConfig>
  /** Configurations without the number of classes, by the name of the backbone. */
  readonly presets: Readonly<Record<string, object>>
  /** The backbone of a configuration that names the architecture alone. */
  readonly defaultBackbone: string
  /** Names of the stages of its models, over all backbones. */
  readonly stages: readonly string[]
  /** Names of the stages of the model of a configuration. */
  stagesOf(config: ModelConfig): readonly string[]
  /** What the model of a configuration reads. Default: `rgb`. */
  inputOf?(config: ModelConfig): ModelInput
  /** How the tensors of its backbones are found in a state_dict. */
  readonly backboneNames: readonly BackboneNames[]
  /** Height and width that images have at least; any where it is absent. */
  smallestSide?(config: ModelConfig): number
  /** Of which the sides of training crops are multiples; of any where it is absent. */
  multipleOf?(config: ModelConfig): number
  /**
   * Declares the variables in an empty store, in the order of PyTorch's state_dict.
   * @param random draws the initial weights as PyTorch does; without it they are 0, for values that are loaded afterwards
   * @throws Error where the configuration is not one of this architecture
   */
  create(store: Store, config: ModelConfig, random?: InitialRandom): SegmentationModel
  inferConfig(state: StateShapes): InferredConfig
  /**
   * Why weights that a user may well try cannot fit, and what would.
   * @param config that of the model that they are for; without it, why they fit no model
   */
  explainMismatch?(state: StateShapes, config?: ModelConfig): string | undefined
}

/** What training changes by its gradient, in the order of the store, which is PyTorch's. */
export function parametersOf({ store, groups }: SegmentationModel): Variable[] {
  const parameters = new Set(groups.flatMap((group) => group.parameters))
  return store.all().filter((variable) => parameters.has(variable))
}

/** Logits at the size of the decoder: [N, logitSize(H), logitSize(W), nclass] for images [N, H, W, 3]. */
export const lowLogits = (model: SegmentationModel, x: Tensor, mode: Mode): Tensor =>
  model.decode(model.features(x, mode), mode)

/** The size nearest to that of an image, or of what a model reads of it, that the model computes. */
export function fittingSize(
  { multiple = 1 }: Pick<SegmentationModel, 'multiple'>,
  size: readonly [number, number],
): readonly [number, number] {
  const fitting = (extent: number) => multiple * Math.max(1, Math.floor(extent / multiple + 0.5))
  return [fitting(size[0]), fitting(size[1])]
}

/**
 * Logits of images at their size: [N, H, W, nclass]. Images whose sides a model does not compute are resized to those that
 * it does (bilinear, aligned corners), and their logits back.
 * @param x see `ModelInput`
 * @param size [H, W] of the images, where `x` is not as large as they are
 */
export function logits(model: SegmentationModel, x: Tensor, mode: Mode, size?: readonly [number, number]): Tensor {
  const [, height = 0, width = 0] = x.shape
  return upsample(decoderLogits(model, x, mode), size ?? [height, width])
}

/** The same before they are resized to the size of the images. */
export function decoderLogits(model: SegmentationModel, x: Tensor, mode: Mode): Tensor {
  const [, height = 0, width = 0] = x.shape
  const fitting = fittingSize(model, [height, width])
  if (fitting[0] === height && fitting[1] === width) return lowLogits(model, x, mode)
  return upsample(lowLogits(model, resizeBilinear(x, fitting), mode), fitting)
}

/** Logits at another size, bilinearly with aligned corners: linear in the logits. */
export const upsample = (low: Tensor, size: readonly [number, number]): Tensor =>
  scoped('upsample', () => resizeBilinear(low, size))

/** `passes` more batches went through every batch norm in training mode, but for those of a backbone that is not trained. */
export function countBatches({ batchesTracked, groups }: SegmentationModel, passes: number): void {
  const isLocked = !groups.some(({ name }) => name === 'backbone')
  for (const [name, count] of batchesTracked) {
    if (!isLocked || !name.startsWith('backbone.')) batchesTracked.set(name, count + passes)
  }
}

/**
 * Features with the channels of the dropout levels multiplied.
 * @param multipliers of each level, [N, channels]
 */
export function perturbed(
  { dropoutLevels }: SegmentationModel,
  features: readonly Tensor[],
  multipliers: readonly Tensor[],
): Tensor[] {
  return scoped('dropout', () =>
    features.map((x, level) => {
      const by = multipliers[dropoutLevels.findIndex(({ levels }) => levels.includes(level))]
      const [n = 0, , , channels = 0] = x.shape
      return by ? mul(x, by.reshape(n, 1, 1, channels)) : x
    }),
  )
}

/**
 * A doubled batch for the decoder: the features, then the same features with the channels of the dropout levels multiplied.
 * @param multipliers of each level, [N, channels]
 */
export function withPerturbed(
  model: SegmentationModel,
  features: readonly Tensor[],
  multipliers: readonly Tensor[],
): Tensor[] {
  const others = perturbed(model, features, multipliers)
  return scoped('dropout', () => features.map((x, level) => concat([x, others[level] ?? x], 0)))
}

/**
 * For `compile`'s `recompute`: the stage among the `chosen` ones that a scope belongs to.
 * @throws Error where the model has no stage of a chosen name
 */
export function stageOf(
  { stages }: Pick<SegmentationModel, 'stages'>,
  chosen: readonly string[],
): (scope: string) => string | undefined {
  for (const name of chosen) {
    if (!Object.hasOwn(stages, name)) {
      throw new Error(`the model has no stage '${name}': choose among ${Object.keys(stages).join(', ')}`)
    }
  }
  return (scope) =>
    chosen.find((stage) => stages[stage]?.some((path) => scope === path || scope.startsWith(`${path}.`)))
}
