import { assign, read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { elements } from '#dist/engine/shape.js'
import type { Store } from '#dist/engine/store.js'
import { attention } from '#dist/kernels/attention.js'
import { layerNorm } from '#dist/kernels/layernorm.js'
import { slice } from '#dist/kernels/movement.js'
import { add, gelu, mul, relu, scale } from '#dist/kernels/pointwise.js'
import { softmax } from '#dist/kernels/softmax.js'
import { createModel } from '#dist/models/index.js'
import { Declarations, type Layer, type Noise } from '#dist/models/layers.js'
import { encoderBlock, mixFeedForward, reducedAttention } from '#dist/models/mit.js'
import { logits } from '#dist/models/segmentation.js'
import { linear } from '#dist/models/transformer.js'
import type { Params, Rules, Tensors } from './case.js'
import { blockNames, type RecordedSegFormer, segFormerConfig } from './recorded-segformer.js'

const tokens = (map: Tensor): Tensor => {
  const [n = 0, h = 0, w = 0, c = 0] = map.shape
  return map.reshape(n, h * w, c)
}

/** Samples, or samples and channels, times 0 or 1 / (1 − rate). */
function kept(x: Tensor, keep: Tensor, rate: number): Tensor {
  const [n = 0, channels = 1] = keep.shape
  const axes = x.shape.map((_, axis) => (axis === 0 ? n : axis === x.shape.length - 1 ? channels : 1))
  return mul(x, scale(keep, 1 / (1 - rate)).reshape(...axes))
}

/** Tokens [N, H · W, C] as a map of the case's height and width. */
const mapOf = (x: Tensor, p: Params): Tensor =>
  x.reshape(x.shape[0] ?? 0, p.number('h'), p.number('w'), x.shape[2] ?? 0)

/** Gives the variables of a model the values of a case's inputs, from which gradients are then taken. */
function bind(store: Store, t: Tensors): void {
  for (const variable of store.all()) {
    const { name } = variable
    assign(variable, t(`${/running_(mean|var)$/.test(name) ? 'b' : 'p'}/${name}`))
  }
}

/** What a layer of a model computes of a map in training, by the inputs of a case. */
function trained(layer: Layer, x: Tensor, store: Store, t: Tensors, noise?: Noise): Tensor {
  bind(store, t)
  return layer(x, { training: true, ...(noise ? { noise } : {}) })
}

/** Multipliers by recorded flags: `path` [..., 2, N], a pair of rows for each name, and `chan` [N, C] of all others. */
function recordedNoise(t: Tensors, names: readonly string[]): Noise {
  return (name, { rate }) => {
    const block = names.findIndex((each) => name.startsWith(`${each}.`))
    if (block < 0) return scale(t('chan'), 1 / (1 - rate))
    const path = t('path')
    const samples = path.shape.at(-1) ?? 1
    const rows = scale(path, 1 / (1 - rate)).reshape(elements(path.shape) / samples, samples)
    return slice(rows, 0, 2 * block + (name.endsWith('.attn') ? 0 : 1), 1).reshape(samples)
  }
}

/** The whole network in training, with the running statistics of its head. */
function wholeSegFormer(t: Tensors, p: Params, store: Store): Record<string, Tensor> {
  const config = segFormerConfig(p.record('model') as unknown as RecordedSegFormer)
  const model = createModel(store, { architecture: 'segformer', config })
  bind(store, t)
  const noise = recordedNoise(t, blockNames(config.depths))
  const y = logits(model, t('x'), { training: true, noise })
  const statistics = store.all().filter(({ name }) => /running_(mean|var)$/.test(name))
  return { y, ...Object.fromEntries(statistics.map((variable) => [`b/${variable.name}`, read(variable)])) }
}

/** Multi-head attention whose input projection holds the rows of queries, keys and values. */
function projected(t: Tensors, names: readonly [string, string, string, string], q: Tensor, kv: Tensor, heads: number) {
  const [weight, bias, outWeight, outBias] = names.map(t) as [Tensor, Tensor, Tensor, Tensor]
  const channels = q.shape[2] ?? 0
  const part = (x: Tensor, k: number) =>
    linear(x, slice(weight, 0, k * channels, channels), slice(bias, 0, k * channels, channels))
  return linear(attention(part(q, 0), part(kv, 1), part(kv, 2), { heads }), outWeight, outBias)
}

export const transformerRules: Rules = {
  layer_norm: (t, p) => ({ y: layerNorm(t('x'), { weight: t('w'), bias: t('b') }, { eps: p.number('eps') }) }),
  gelu: (t) => ({ y: gelu(t('x')) }),
  softmax_last: (t) => ({ y: softmax(t('x')) }),
  attention: (t, p) => {
    const names = ['in_proj_weight', 'in_proj_bias', 'out_proj_weight', 'out_proj_bias'] as const
    return { y: projected(t, names, t('xq'), t('xkv'), p.number('heads')) }
  },
  keep_scale: (t, p) => ({ y: kept(t('x'), t('keep'), p.number('rate')) }),
  drop_path: (t) => ({ y: relu(add(t('skip'), kept(t('branch'), t('mult'), 0))) }),
  mix_ffn: (t, p, store) => {
    const x = mapOf(t('x'), p)
    const hidden = t('p/layers.0.bias').shape[0] ?? 0
    const layer = mixFeedForward(new Declarations(store, undefined), x.shape[3] ?? 0, hidden)
    return { y: tokens(trained(layer, x, store, t)) }
  },
  reduced_attention: (t, p, store) => {
    const x = mapOf(t('x'), p)
    const at = new Declarations(store, undefined)
    const layer = reducedAttention(at, x.shape[3] ?? 0, p.number('heads'), p.number('sr'))
    return { y: tokens(trained(layer, x, store, t)) }
  },
  encoder_block: (t, p, store) => {
    const x = mapOf(t('x'), p)
    const channels = x.shape[3] ?? 0
    const layer = encoderBlock(new Declarations(store, undefined), channels, {
      heads: p.number('heads'),
      reduction: p.number('sr'),
      mlp_ratio: (t('p/ffn.layers.0.bias').shape[0] ?? 0) / channels,
      rate: p.number('rate'),
      noise: 'block',
    })
    return { y: tokens(trained(layer, x, store, t, recordedNoise(t, ['block']))) }
  },
  segformer: wholeSegFormer,
}
