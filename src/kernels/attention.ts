import type { AdapterTraits } from '../engine/adapter.js'
import { apply, applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import {
  type Candidate,
  ceilDiv,
  floatBits,
  inputBuffer,
  type KernelContext,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import { isFloat, type Spec, sameShape, showShape, spec } from '../engine/shape.js'
import { bySample } from './arrangement.js'
import { slicesFor } from './conv2d-tiles.js'
import { mul, sumTo } from './pointwise.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { slicesOf, sumSlices, type Target } from './slice-sums.js'
import { packType, storedType } from './views.js'

export interface AttentionAttrs {
  readonly heads: number
  /** What scores are multiplied by. */
  readonly scale: number
}

/** A thread holds a few rows of a head in registers, which compilers move to memory beyond this. */
const maxHead = 256

/** Samples, queries, keys, and the channels of a head. Throws where the operands do not fit. */
function extents([q, k, v]: readonly (Spec | undefined)[], { heads }: AttentionAttrs) {
  if (q?.shape.length !== 3 || k?.shape.length !== 3 || !v || !sameShape(k.shape, v.shape)) {
    throw new Error('expects queries [N, L, C], and keys and values [N, M, C] of one shape')
  }
  if (![q, k, v].every(isFloat)) throw new Error('expects floating-point numbers')
  const [samples = 0, queries = 0, channels = 0] = q.shape
  const [keySamples, keys = 0, keyChannels] = k.shape
  if (keySamples !== samples || keyChannels !== channels) {
    throw new Error(`queries ${showShape(q.shape)} and keys ${showShape(k.shape)} differ in samples or channels`)
  }
  if (!Number.isInteger(heads) || heads < 1 || channels % heads !== 0) {
    throw new Error(`${channels} channels do not divide into ${heads} heads`)
  }
  if (queries === 0 || keys === 0) throw new Error('needs a query and a key at least')
  const head = channels / heads
  if (head > maxHead) throw new Error(`a head has ${head} channels, and ${maxHead} at most: use more heads`)
  return { samples, queries, keys, channels, head }
}

/** Constants, types and hooks that both kernels share; rows of a head are taken four channels at once where they can. */
function layout(head: number, { software, maxWorkgroupStorage }: AdapterTraits, shared: boolean) {
  const pack: 1 | 4 = head % 4 === 0 ? 4 : 1
  const packs = head / pack
  // Where its length is a uniform, a pipeline serves shorter heads too.
  const dim = software ? Math.max(16, 2 ** Math.ceil(Math.log2(packs))) : packs
  let tile = 32
  while (tile > 4 && 2 * tile * dim * pack * 4 > maxWorkgroupStorage) tile /= 2
  return {
    pack,
    packs,
    constants: { DIM: dim, SHARED: shared, TILE: tile },
    P: pack === 4 ? 'vec4f' : 'f32',
    hooks: {
      ...(pack === 1 ? { sum_of: 'fn sum_of(pack: P) -> f32 {\n  return pack;\n}' } : {}),
      ...(software ? { dim: 'fn dim() -> u32 {\n  return u.dim;\n}' } : {}),
    },
  }
}

/** Rows that a thread each of one workgroup computes. */
const rowsOfGroup = 64

function forward(context: KernelContext<AttentionAttrs>, shared: boolean): Candidate {
  const { inputs, outputs, attrs, adapter } = context
  const { samples, queries, keys, head } = extents(inputs, attrs)
  const { pack, packs, constants, P, hooks } = layout(head, adapter, shared)
  const [Q = '', K = '', V = '', U = ''] = [...inputs.slice(0, 3), ...outputs].map((one) => packType(one, pack))
  const dispatch = {
    label: 'attention',
    source: shader(shaders.attention, { constants, aliases: { Q, K, V, U, P }, hooks }),
    reads: [inputBuffer(0), inputBuffer(1), inputBuffer(2)],
    writes: [outputBuffer(0), outputBuffer(1)],
    uniforms: [queries, keys, attrs.heads, floatBits(attrs.scale), packs],
    grid: [ceilDiv(queries, rowsOfGroup), attrs.heads, samples] as const,
  }
  return { name: shared ? 'workgroup' : 'direct', dispatches: [dispatch] }
}

/** On a CPU driver a barrier costs as much as dozens of loads. */
const inOrder = (candidate: (shared: boolean) => Candidate, software: boolean): Candidate[] =>
  [!software, software].map(candidate)

/** y and the logarithms of the sums of exponentials [N, L, heads], with which the gradient computes the weights again. */
const attentionOp = defineOp<AttentionAttrs>('attention', {
  precision: 'same',
  divide: bySample(),
  fullOutputs: [1],
  shape: (inputs, attrs) => {
    const { samples, queries, channels } = extents(inputs, attrs)
    return [spec([samples, queries, channels]), spec([samples, queries, attrs.heads])]
  },
  vjp: ({ inputs: [q, k, v], outputs: [y, logSums], attrs, grads: [dy], wanted }) => {
    if (!q || !k || !v || !y || !logSums || !dy) return []
    const [samples = 0, queries = 0, channels = 0] = y.shape
    const byHead = [samples, queries, attrs.heads, channels / attrs.heads]
    const delta = sumTo(mul(dy.reshape(...byHead), y.reshape(...byHead)), byHead.with(3, 1))
    const gradient = (of: 0 | 1 | 2) => applyOne(attentionGradOp, [q, k, v, dy, logSums, delta], { ...attrs, of })
    return ([0, 1, 2] as const).map((of) => (wanted[of] ? gradient(of) : undefined))
  },
  kernel: (context) => inOrder((shared) => forward(context, shared), context.adapter.software),
})

interface AttentionGradAttrs extends AttentionAttrs {
  /** The input whose gradient is computed: queries, keys or values. */
  readonly of: 0 | 1 | 2
}

function gradient(context: KernelContext<AttentionGradAttrs>, shared: boolean): Candidate {
  const { inputs, outputs, attrs, adapter } = context
  const { samples, queries, keys, channels, head } = extents(inputs, attrs)
  const { pack, packs, constants, P, hooks } = layout(head, adapter, shared)
  const [rows, others] = attrs.of === 0 ? [queries, keys] : [keys, queries]
  const groups = ceilDiv(rows, rowsOfGroup)
  const slices = slicesFor(groups * attrs.heads * samples, others, adapter)
  const result = outputs[0] ?? spec([])
  const target: Target = { extents: [samples, 1, rows, channels], type: storedType(result) }
  const parts = slicesOf(target, slices)
  const [Q = '', K = '', V = '', D = ''] = inputs.slice(0, 4).map((one) => packType(one, pack))
  const S = storedType(inputs[5] ?? spec([]))
  const U = packType(slices > 1 ? parts : result, pack)
  const label = 'attentionGrad'
  const dispatch = {
    label,
    source: shader(shaders.attention_grad, {
      constants: { ...constants, OF: attrs.of },
      aliases: { Q, K, V, D, S, U, P },
      hooks,
    }),
    reads: [0, 1, 2, 3, 4, 5].map(inputBuffer),
    writes: [slices > 1 ? temporaryBuffer(0) : outputBuffer(0)],
    uniforms: [queries, keys, attrs.heads, floatBits(attrs.scale), samples, slices, packs],
    grid: [groups, attrs.heads, samples * slices] as const,
  }
  const name = shared ? 'workgroup' : 'direct'
  if (slices === 1) return { name, dispatches: [dispatch] }
  return {
    name,
    temporaries: [parts],
    dispatches: [dispatch, sumSlices(label, temporaryBuffer(0), slices, target)],
  }
}

/** q, k, v, the gradient of y, the logarithms of sums, and of each head the sums of dy · y → the gradient of one input. */
const attentionGradOp = defineOp<AttentionGradAttrs>('attentionGrad', {
  precision: 'same',
  divide: bySample(),
  shape: (inputs, { of }) => [spec(inputs[of]?.shape ?? [])],
  kernel: (context) => inOrder((shared) => gradient(context, shared), context.adapter.software),
})

/**
 * Scaled dot-product attention (Vaswani et al., 2017): for each head softmax(q · kᵀ · scale) · v, of which neither the
 * scores nor their gradients are stored (Dao et al., 2022): memory grows as the number of queries and keys, not as their
 * product.
 *
 * @param q [N, L, C]; head h is the h-th of `heads` equal parts of the channels
 * @param k [N, M, C]
 * @param v [N, M, C]
 * @param options `scale` is 1 / √(C / heads) where it is not given
 * @returns [N, L, C]
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { heads = 1, scale = 1 / Math.sqrt((q.shape.at(-1) ?? 1) / heads) }: { heads?: number; scale?: number } = {},
): Tensor {
  const [y] = apply(attentionOp, [q, k, v], { heads, scale })
  if (!y) throw new Error('unreachable: attention has outputs')
  return y
}
