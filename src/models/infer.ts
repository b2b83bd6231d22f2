import type { Shape } from '../engine/shape.js'
import type { ModelConfig } from './deeplabv3plus.js'

/** What the shapes of a state_dict tell of a model: all but its dilations and strides. */
export type Widths = Omit<ModelConfig, 'dilations' | 'replace_stride_with_dilation'>

type Four = readonly [number, number, number, number]

/**
 * Widths and depths of the model that a state_dict is of, from the shapes of its tensors in PyTorch's layout. What
 * cannot be told, such as the classes of a lone backbone, is left out.
 */
export function inferWidths(state: ReadonlyMap<string, { readonly shape: Shape }>): Partial<Widths> {
  const outputs = (name: string): number => {
    const shape = state.get(`${name}.weight`)?.shape ?? []
    // A convolution without a single value tells nothing, however wide it claims to be.
    return shape.length === 4 && shape.every((extent) => extent > 0) ? (shape[0] ?? 0) : 0
  }
  const layers = [1, 2, 3, 4].map((layer) => `backbone.layer${layer}`)
  const depth = (layer: string): number => {
    let blocks = 0
    while (state.has(`${layer}.${blocks}.conv1.weight`)) blocks++
    return blocks
  }
  const planes = layers.map((layer) => outputs(`${layer}.0.conv1`)) as unknown as Four
  const widths: Widths = {
    stem: [outputs('backbone.conv1.0'), outputs('backbone.conv1.3'), outputs('backbone.conv1.6')],
    planes,
    blocks: layers.map(depth) as unknown as Four,
    expansion: outputs('backbone.layer1.0.conv3') / planes[0],
    reduce_channels: outputs('reduce.0'),
    aspp_channels: outputs('head.b0.0'),
    fuse_channels: outputs('fuse.0'),
    nclass: outputs('classifier'),
  }
  const isKnown = (value: number | readonly number[]) => [value].flat().every((n) => Number.isInteger(n) && n > 0)
  return Object.fromEntries(Object.entries(widths).filter(([, value]) => isKnown(value)))
}

/** The keys in which a model differs from the widths of a state_dict. */
export const differingKeys = (config: ModelConfig, widths: Partial<Widths>): (keyof Widths)[] =>
  (Object.keys(widths) as (keyof Widths)[]).filter((key) => String(widths[key]) !== String(config[key]))

/** Whether a state_dict begins with one 7x7 convolution, as torchvision's ResNet does, rather than with three 3x3. */
export function hasPlainStem(state: ReadonlyMap<string, { readonly shape: Shape }>): boolean {
  const [, , height, width] = (state.get('backbone.conv1.weight') ?? state.get('conv1.weight'))?.shape ?? []
  return height === 7 && width === 7
}
