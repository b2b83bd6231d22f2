import { attention } from '#dist/kernels/attention.js'
import { body, type Family, family, mapSizes, normal } from './case.js'
import * as reference from './reference/index.js'

interface AttentionCase {
  readonly n?: number
  readonly queries: number
  readonly keys: number
  readonly channels: number
  readonly heads?: number
  /** Spread of queries and keys. */
  readonly spread?: number
  readonly scale?: number
  readonly tolerance?: number
  readonly gradientScale?: number
}

export const attentionFamily = family<AttentionCase>(
  'attention',
  ({ n = 1, queries, keys, channels, heads = 1, spread = 1, scale = 1 / Math.sqrt(channels / heads), ...numerics }) =>
    body({
      inputs: {
        q: normal([n, queries, channels], { scale: spread }),
        k: normal([n, keys, channels], { scale: spread }),
        v: normal([n, keys, channels]),
      },
      run: (t) => ({ out: attention(t.q, t.k, t.v, { heads, scale }) }),
      reference: (v) => ({ out: reference.attention(v.q, v.k, v.v, heads, scale) }),
      differentiable: ['q', 'k', 'v'],
      terms: Math.max(queries, keys, channels / heads),
      // The gradients of scores subtract the sums of y · dy, of which y and without fusion the products were rounded.
      halfRoundings: 12,
      flops: 4 * n * queries * keys * channels,
      ...numerics,
    }),
  {
    odd: { n: 2, queries: 9, keys: 5, channels: 6, heads: 2 },
    'one query': { queries: 1, keys: 7, channels: 4 },
    // Whatever the score its weight is 1: the gradients of queries and keys cancel totally.
    'one key': { queries: 7, keys: 1, channels: 5, gradientScale: 1 },
    'several tiles of keys': { queries: 5, keys: 71, channels: 8, heads: 2 },
    'several groups of queries': { queries: 131, keys: 3, channels: 4 },
    'five heads': { n: 2, queries: 17, keys: 17, channels: 20, heads: 5 },
    'heads of 64': { queries: 9, keys: 11, channels: 128, heads: 2 },
    'heads of one channel': { queries: 6, keys: 9, channels: 3, heads: 3 },
    // Sums over the queries in slices.
    'many queries': { queries: 1030, keys: 5, channels: 4, heads: 2 },
    'a scale of its own': { queries: 8, keys: 12, channels: 12, heads: 3, scale: 0.7 },
    // Nearly all weight on one key, whose exponentials would overflow. Scores of some hundreds round to 3e-5, by which
    // share their weights change.
    sharp: { queries: 12, keys: 40, channels: 8, heads: 2, spread: 9, tolerance: 3e-5 },
  },
  ({ crop, batch }): Record<string, AttentionCase> => {
    const { s4, s16 } = mapSizes(crop)
    return {
      'stride 4, keys reduced eight times': { n: batch, queries: s4 * s4, keys: Math.ceil(s4 / 8) ** 2, channels: 64 },
      'stride 16': { n: batch, queries: s16 * s16, keys: s16 * s16, channels: 384, heads: 6 },
      'DINOv2-Small, 518 pixels': { n: batch, queries: 1370, keys: 1370, channels: 384, heads: 6 },
    }
  },
)

export const attentionFamilies: Family[] = [attentionFamily]
