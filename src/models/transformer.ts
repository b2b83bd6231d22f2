// Layers that transformers share.
import { read } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { attention } from '../kernels/attention.js'
import { layerNorm as normalize } from '../kernels/layernorm.js'
import { matmul } from '../kernels/matmul.js'
import { slice } from '../kernels/movement.js'
import { add } from '../kernels/pointwise.js'
import type { Declarations, Layer } from './layers.js'

/** Layer norm over the channels of feature maps or tokens [..., C], with the names of `torch.nn.LayerNorm`. */
export function layerNorm(at: Declarations, channels: number, { eps = 1e-5 }: { eps?: number } = {}): Layer {
  const weight = at.normalizing('weight', [channels], () => 1)
  const bias = at.normalizing('bias', [channels])
  return (x) => normalize(x, { weight: read(weight), bias: read(bias) }, { eps })
}

/**
 * x · weightᵀ + bias over the last axis.
 * @param x [..., I]
 * @param weight [O, I], as PyTorch lays it out
 * @param bias [O]
 * @returns [..., O]
 */
export const linear = (x: Tensor, weight: Tensor, bias: Tensor): Tensor =>
  add(matmul(x, weight, { transposeB: true }), bias)

/** Standard deviation of the initial weights of linear layers and position tables, as vision transformers have it. */
export const initialDeviation = 0.02

/** A linear layer of tokens [..., I], with the names of `torch.nn.Linear`. */
export function linearLayer(at: Declarations, cin: number, cout: number): Layer {
  const { random } = at
  const weight = at.parameter('weight', [cout, cin], random && (() => initialDeviation * random.normal()))
  const bias = at.parameter('bias', [cout])
  return (x) => linear(x, read(weight), read(bias))
}

/** What the names of the two projections of attention begin with. */
export interface AttentionNames {
  readonly input: string
  readonly output: string
}

/**
 * Multi-head attention (Vaswani et al., 2017), by default with the names of `torch.nn.MultiheadAttention`, whose input
 * projection holds the rows of queries, then those of keys, then those of values.
 *
 * @returns of tokens [N, L, channels] that ask and tokens [N, M, channels] that answer: [N, L, channels]
 */
export function multiHeadAttention(
  at: Declarations,
  channels: number,
  heads: number,
  { input, output }: AttentionNames = { input: 'in_proj_', output: 'out_proj.' },
): (queries: Tensor, keys: Tensor) => Tensor {
  const { random } = at
  const normal = random && (() => initialDeviation * random.normal())
  const weight = at.parameter(`${input}weight`, [3 * channels, channels], normal)
  const bias = at.parameter(`${input}bias`, [3 * channels])
  const outWeight = at.parameter(`${output}weight`, [channels, channels], normal)
  const outBias = at.parameter(`${output}bias`, [channels])
  const projected = (x: Tensor, part: 0 | 1 | 2): Tensor =>
    linear(x, slice(read(weight), 0, part * channels, channels), slice(read(bias), 0, part * channels, channels))
  return (queries, keys) => {
    const y = attention(projected(queries, 0), projected(keys, 1), projected(keys, 2), { heads })
    return linear(y, read(outWeight), read(outBias))
  }
}
