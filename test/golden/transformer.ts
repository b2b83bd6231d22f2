import type { Tensor } from '#dist/engine/ir.js'
import { elements } from '#dist/engine/shape.js'
import { attention } from '#dist/kernels/attention.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { type Conv2dOptions, conv2d } from '#dist/kernels/conv2d.js'
import { layerNorm } from '#dist/kernels/layernorm.js'
import { matmul } from '#dist/kernels/matmul.js'
import { concat, slice } from '#dist/kernels/movement.js'
import { add, gelu, mul, relu, scale } from '#dist/kernels/pointwise.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { softmax } from '#dist/kernels/softmax.js'
import type { Params, Rules, Tensors } from './case.js'

/** x · weightᵀ + bias over the last axis of tokens [N, L, C]. */
function linear(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const [n = 0, length = 0, channels = 0] = x.shape
  const y = matmul(x.reshape(n * length, channels), weight, { transposeB: true })
  return add(y, bias).reshape(n, length, weight.shape[0] ?? 0)
}

/** A layer by the beginning of its names. */
const linearOf = (t: Tensors, name: string, x: Tensor): Tensor => linear(x, t(`${name}.weight`), t(`${name}.bias`))
const convOf = (t: Tensors, name: string, x: Tensor, options: Conv2dOptions = {}): Tensor =>
  add(conv2d(x, t(`${name}.weight`), options), t(`${name}.bias`))
const normOf = (t: Tensors, name: string, x: Tensor): Tensor =>
  layerNorm(x, { weight: t(`${name}.weight`), bias: t(`${name}.bias`) }, { eps: 1e-6 })

const tokens = (map: Tensor): Tensor => {
  const [n = 0, h = 0, w = 0, c = 0] = map.shape
  return map.reshape(n, h * w, c)
}

type Extents = readonly [height: number, width: number]
const mapOf = (x: Tensor, [h, w]: Extents): Tensor => x.reshape(x.shape[0] ?? 0, h, w, x.shape[2] ?? 0)

/** Samples, or samples and channels, times 0 or 1 / (1 − rate). */
function kept(x: Tensor, keep: Tensor, rate: number): Tensor {
  const [n = 0, channels = 1] = keep.shape
  const axes = x.shape.map((_, axis) => (axis === 0 ? n : axis === x.shape.length - 1 ? channels : 1))
  return mul(x, scale(keep, 1 / (1 - rate)).reshape(...axes))
}

/** Of `path` [..., 2, N] what a branch of a block keeps. */
function flagsOf(path: Tensor, block: number, k: 0 | 1): Tensor {
  const samples = path.shape.at(-1) ?? 1
  return slice(scale(path, 1).reshape(elements(path.shape) / samples, samples), 0, 2 * block + k, 1).reshape(samples)
}

/** Multi-head attention whose input projection holds the rows of queries, keys and values. */
function projected(t: Tensors, names: readonly [string, string, string, string], q: Tensor, kv: Tensor, heads: number) {
  const [weight, bias, outWeight, outBias] = names.map(t) as [Tensor, Tensor, Tensor, Tensor]
  const channels = q.shape[2] ?? 0
  const part = (x: Tensor, k: number) =>
    linear(x, slice(weight, 0, k * channels, channels), slice(bias, 0, k * channels, channels))
  return linear(attention(part(q, 0), part(kv, 1), part(kv, 2), { heads }), outWeight, outBias)
}

/** Attention whose keys and values come from a map that is reduced `sr` times. */
function reducedAttention(t: Tensors, prefix: string, x: Tensor, size: Extents, heads: number, sr: number): Tensor {
  const at = (name: string) => `${prefix}${name}`
  const reduced = sr > 1 ? normOf(t, at('norm'), tokens(convOf(t, at('sr'), mapOf(x, size), { stride: sr }))) : x
  const names = ['attn.in_proj_weight', 'attn.in_proj_bias', 'attn.out_proj.weight', 'attn.out_proj.bias'].map(at)
  return projected(t, names as [string, string, string, string], x, reduced, heads)
}

function mixFfn(t: Tensors, prefix: string, x: Tensor, size: Extents): Tensor {
  const wide = convOf(t, `${prefix}layers.0`, mapOf(x, size))
  const mixed = convOf(t, `${prefix}layers.1`, wide, { padding: 1, groups: wide.shape[3] ?? 1 })
  return tokens(convOf(t, `${prefix}layers.4`, gelu(mixed)))
}

interface BlockOptions {
  readonly size: Extents
  readonly heads: number
  readonly sr: number
  /** What the branches are multiplied with; without, they stay. */
  readonly path?: (branch: Tensor, k: 0 | 1) => Tensor
}

function encoderBlock(t: Tensors, prefix: string, x: Tensor, { size, heads, sr, path = (y) => y }: BlockOptions) {
  const attended = reducedAttention(t, `${prefix}attn.`, normOf(t, `${prefix}norm1`, x), size, heads, sr)
  const y = add(x, path(attended, 0))
  return add(y, path(mixFfn(t, `${prefix}ffn.`, normOf(t, `${prefix}norm2`, y), size), 1))
}

interface SegformerOptions {
  readonly embed: number
  readonly heads: readonly number[]
  readonly layers: readonly number[]
  readonly patch: readonly number[]
  readonly stride: readonly number[]
  readonly sr: readonly number[]
  readonly head_drop: number
}

/** The whole network in training, with the running statistics of its head. */
function segformer(t: Tensors, p: Params): Record<string, Tensor> {
  const { heads, layers, patch, stride, sr, head_drop: headDrop } = p.record('model') as unknown as SegformerOptions
  const rates = p.numbers('path_rates')
  const statistics: Record<string, Tensor> = {}
  const convBn = (name: string, x: Tensor): Tensor => {
    const at = `b/head.${name}.bn.`
    const { y, runningMean, runningVar } = batchNormTraining(conv2d(x, t(`p/head.${name}.conv.weight`)), {
      weight: t(`p/head.${name}.bn.weight`),
      bias: t(`p/head.${name}.bn.bias`),
      runningMean: t(`${at}running_mean`),
      runningVar: t(`${at}running_var`),
    })
    Object.assign(statistics, { [`${at}running_mean`]: runningMean, [`${at}running_var`]: runningVar })
    return relu(y)
  }
  let block = 0
  let map = t('x')
  const maps = heads.map((count, stage) => {
    const prefix = `p/backbone.layers.${stage}.`
    const [kernel = 1, step = 1] = [patch[stage], stride[stage]]
    const embedded = convOf(t, `${prefix}0.projection`, map, { stride: step, padding: Math.floor(kernel / 2) })
    const size: Extents = [embedded.shape[1] ?? 0, embedded.shape[2] ?? 0]
    let x = normOf(t, `${prefix}0.norm`, tokens(embedded))
    for (let b = 0; b < (layers[stage] ?? 0); b++, block++) {
      const [rate = 0, own] = [rates[block], block]
      const path = (branch: Tensor, k: 0 | 1) => (rate === 0 ? branch : kept(branch, flagsOf(t('path'), own, k), rate))
      x = encoderBlock(t, `${prefix}1.${b}.`, x, { size, heads: count, sr: sr[stage] ?? 1, path })
    }
    map = mapOf(normOf(t, `${prefix}2`, x), size)
    return map
  })
  const [, height = 0, width = 0] = maps[0]?.shape ?? []
  const parts = maps.map((one, stage) => resizeBilinear(convBn(`convs.${stage}`, one), [height, width]))
  const fused = kept(convBn('fusion_conv', concat(parts, 3)), t('chan'), headDrop)
  const [, imageHeight = 0, imageWidth = 0] = t('x').shape
  const y = resizeBilinear(convOf(t, 'p/head.conv_seg', fused), [imageHeight, imageWidth])
  return { y, ...statistics }
}

function residualUnit(t: Tensors, prefix: string, x: Tensor): Tensor {
  const inner = convOf(t, `${prefix}conv1`, relu(x), { padding: 1 })
  return add(x, convOf(t, `${prefix}conv2`, relu(inner), { padding: 1 }))
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
  mix_ffn: (t, p) => ({ y: mixFfn(t, 'p/', t('x'), [p.number('h'), p.number('w')]) }),
  reduced_attention: (t, p) => ({
    y: reducedAttention(t, 'p/', t('x'), [p.number('h'), p.number('w')], p.number('heads'), p.number('sr')),
  }),
  encoder_block: (t, p) => ({
    y: encoderBlock(t, 'p/', t('x'), {
      size: [p.number('h'), p.number('w')],
      heads: p.number('heads'),
      sr: p.number('sr'),
      path: (branch, k) => kept(branch, flagsOf(t('path'), 0, k), p.number('rate')),
    }),
  }),
  segformer,
  layer_scale: (t) => ({ y: mul(t('x'), t('gamma')) }),
  patch_embed: (t, p) => ({ y: tokens(add(conv2d(t('x'), t('w'), { stride: p.number('patch') }), t('b'))) }),
  vit_block: (t, p) => {
    const names = ['p/attn.qkv.weight', 'p/attn.qkv.bias', 'p/attn.proj.weight', 'p/attn.proj.bias'] as const
    const normed = normOf(t, 'p/norm1', t('x'))
    const attended = add(t('x'), mul(projected(t, names, normed, normed, p.number('heads')), t('p/ls1.gamma')))
    const wide = gelu(linearOf(t, 'p/mlp.fc1', normOf(t, 'p/norm2', attended)))
    return { y: add(attended, mul(linearOf(t, 'p/mlp.fc2', wide), t('p/ls2.gamma'))) }
  },
  residual_unit: (t) => ({ y: residualUnit(t, 'p/', t('x')) }),
  fusion: (t, p) => {
    const joined = p.flag('skip') ? add(t('deep'), residualUnit(t, 'p/resConfUnit1.', t('skip'))) : t('deep')
    const y = residualUnit(t, 'p/resConfUnit2.', joined)
    const [, h = 0, w = 0] = y.shape
    const [height = 0, width = 0] = p.has('size') ? p.numbers('size') : [2 * h, 2 * w]
    return { y: convOf(t, 'p/out_conv', resizeBilinear(y, [height, width])) }
  },
}
