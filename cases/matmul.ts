import { batchedMatmul } from '#dist/kernels/batched-matmul.js'
import { matmul } from '#dist/kernels/matmul.js'
import { body, type Family, family, normal } from './case.js'
import * as reference from './reference/index.js'

interface MatmulShape {
  /** Axes in front of the rows of what has a row for each of the same things: samples of tokens. */
  readonly samples?: readonly number[]
  readonly m: number
  readonly k: number
  readonly n: number
  readonly transposeA?: boolean
  readonly transposeB?: boolean
}

export const matmulFamily = family<MatmulShape>(
  'matmul',
  ({ samples = [], m, k, n, transposeA = false, transposeB = false }: MatmulShape) => {
    const count = samples.reduce((product, extent) => product * extent, 1)
    const asMatrix = (x: reference.Values): reference.Values => {
      const columns = x.shape.at(-1) ?? 1
      return { shape: [x.data.length / columns, columns], data: x.data }
    }
    return body({
      inputs: {
        a: normal([...samples, ...(transposeA ? [k, m] : [m, k])]),
        b: normal([...(transposeA ? samples : []), ...(transposeB ? [n, k] : [k, n])]),
      },
      run: (t) => ({ out: matmul(t.a, t.b, { transposeA, transposeB }) }),
      reference: (v) => {
        const [a, b] = [asMatrix(v.a), asMatrix(v.b)]
        const out = reference.matmul(transposeA ? reference.transpose(a) : a, transposeB ? reference.transpose(b) : b)
        return { out: transposeA ? out : { shape: [...samples, m, n], data: out.data } }
      },
      differentiable: ['a', 'b'],
      terms: Math.max(m, k, n) * count,
      flops: 2 * count * m * k * n,
    })
  },
  {
    '1x1x1': { m: 1, k: 1, n: 1 },
    '5x3x7': { m: 5, k: 3, n: 7 },
    '1x7x130': { m: 1, k: 7, n: 130 },
    '128x64x1': { m: 128, k: 64, n: 1 },
    '64x64x64': { m: 64, k: 64, n: 64 },
    '65x33x67': { m: 65, k: 33, n: 67 },
    '33x515x17': { m: 33, k: 515, n: 17 },
    '20x36x12': { m: 20, k: 36, n: 12 },
    'transposed a': { m: 17, k: 33, n: 7, transposeA: true },
    'transposed b': { m: 17, k: 33, n: 7, transposeB: true },
    'transposed b, long sum': { m: 65, k: 512, n: 20, transposeB: true },
    'transposed a, long sum': { m: 5, k: 515, n: 3, transposeA: true },
    'samples of tokens': { samples: [3], m: 17, k: 12, n: 20 },
    'samples of tokens, transposed b': { samples: [2], m: 17, k: 33, n: 36, transposeB: true },
    'maps, transposed b': { samples: [2, 3], m: 5, k: 8, n: 4, transposeB: true },
    'samples of tokens, transposed a': { samples: [3], m: 12, k: 17, n: 20, transposeA: true },
  },
  () => ({ '512x512x512': { m: 512, k: 512, n: 512 }, '1024x1024x1024': { m: 1024, k: 1024, n: 1024 } }),
)

interface BatchedShape extends MatmulShape {
  readonly batch: readonly number[]
}

export const batchedMatmulFamily = family<BatchedShape>(
  'batchedMatmul',
  ({ batch, m, k, n, transposeA = false, transposeB = false }) =>
    body({
      inputs: {
        a: normal([...batch, ...(transposeA ? [k, m] : [m, k])]),
        b: normal([...batch, ...(transposeB ? [n, k] : [k, n])]),
      },
      run: (t) => ({ out: batchedMatmul(t.a, t.b, { transposeA, transposeB }) }),
      reference: (v) => ({ out: reference.batchedMatmul(v.a, v.b, transposeA, transposeB) }),
      differentiable: ['a', 'b'],
      terms: Math.max(m, k, n),
      flops: 2 * batch.reduce((x, y) => x * y, 1) * m * k * n,
    }),
  {
    'without batch': { batch: [], m: 5, k: 3, n: 7 },
    'one by one': { batch: [3], m: 1, k: 1, n: 1 },
    'two axes of a batch': { batch: [2, 3], m: 9, k: 4, n: 5 },
    'whole tiles': { batch: [2], m: 32, k: 16, n: 64 },
    'several tiles': { batch: [2], m: 65, k: 33, n: 67 },
    'transposed a': { batch: [3], m: 17, k: 33, n: 7, transposeA: true },
    'transposed b': { batch: [2, 2], m: 33, k: 17, n: 40, transposeB: true },
    'both transposed': { batch: [3], m: 5, k: 9, n: 35, transposeA: true, transposeB: true },
    'long sum': { batch: [2], m: 3, k: 515, n: 5 },
    'panels, transposed a': { batch: [2], m: 37, k: 116, n: 72, transposeA: true },
    'panels, transposed b': { batch: [3], m: 130, k: 20, n: 20, transposeB: true },
    'many products': { batch: [65], m: 2, k: 3, n: 2 },
  },
  () => ({ '64 products of 256x256x64': { batch: [64], m: 256, k: 64, n: 256 } }),
)

export const matmulFamilies: Family[] = [matmulFamily, batchedMatmulFamily]
