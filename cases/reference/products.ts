// Products of matrices and convolutions.
import { count, extents4, get, type Values, values } from './values.js'

export function transpose(x: Values): Values {
  const [rows = 0, columns = 0] = x.shape
  const result = values([columns, rows])
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result.data[j * rows + i] = get(x, i * columns + j)
  }
  return result
}

/** [M, K] · [K, N] → [M, N] */
export function matmul(a: Values, b: Values): Values {
  const [m = 0, k = 0] = a.shape
  const n = b.shape[1] ?? 0
  const result = values([m, n])
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let total = 0
      for (let p = 0; p < k; p++) total += get(a, i * k + p) * get(b, p * n + j)
      result.data[i * n + j] = total
    }
  }
  return result
}

/** [..., M, K] · [..., K, N] → [..., M, N], either factor with its last two axes exchanged. */
export function batchedMatmul(a: Values, b: Values, transposeA: boolean, transposeB: boolean): Values {
  const batch = a.shape.slice(0, -2)
  const each = count(batch)
  const matrix = (x: Values, i: number, transposed: boolean) => {
    const size = x.data.length / each
    const one = values(x.shape.slice(-2), x.data.subarray(i * size, (i + 1) * size))
    return transposed ? transpose(one) : one
  }
  const products = Array.from({ length: each }, (_, i) => matmul(matrix(a, i, transposeA), matrix(b, i, transposeB)))
  return values(
    [...batch, ...(products[0]?.shape ?? [])],
    products.flatMap(({ data }) => [...data]),
  )
}

/** Softmax(q · kᵀ · scale) · v of each head: q [N, L, C], k and v [N, M, C]. */
export function attention(q: Values, k: Values, v: Values, heads: number, scale: number): Values {
  const [samples = 0, queries = 0, channels = 0] = q.shape
  const [, keys = 0] = k.shape
  const size = channels / heads
  const y = values(q.shape)
  for (let n = 0; n < samples; n++) {
    for (let h = 0; h < heads; h++) {
      const at = (row: number, rows: number, d: number) => (n * rows + row) * channels + h * size + d
      for (let i = 0; i < queries; i++) {
        const scores = Array.from({ length: keys }, (_, j) => {
          let sum = 0
          for (let d = 0; d < size; d++) sum += get(q, at(i, queries, d)) * get(k, at(j, keys, d))
          return sum * scale
        })
        const largest = Math.max(...scores)
        const weights = scores.map((score) => Math.exp(score - largest))
        const total = weights.reduce((sum, weight) => sum + weight, 0)
        for (const [j, weight] of weights.entries()) {
          for (let d = 0; d < size; d++) {
            const place = at(i, queries, d)
            y.data[place] = get(y, place) + (weight / total) * get(v, at(j, keys, d))
          }
        }
      }
    }
  }
  return y
}

export interface Convolution {
  readonly stride?: number
  readonly padding?: number
  readonly dilation?: number
  readonly groups?: number
}

/** Calls `visit` with the flat indices of every product that a convolution sums: of input, weight and output. */
function forEachProduct(
  [n, h, w, c]: readonly [number, number, number, number],
  [kh, kw, cg, o]: readonly [number, number, number, number],
  [oh, ow]: readonly [number, number],
  { stride = 1, padding = 0, dilation = 1, groups = 1 }: Convolution,
  visit: (x: number, w: number, y: number) => void,
): void {
  const perGroup = o / groups
  for (let b = 0; b < n; b++) {
    for (let y = 0; y < oh; y++) {
      for (let x = 0; x < ow; x++) {
        for (let ky = 0; ky < kh; ky++) {
          const iy = y * stride - padding + ky * dilation
          if (iy < 0 || iy >= h) continue
          for (let kx = 0; kx < kw; kx++) {
            const ix = x * stride - padding + kx * dilation
            if (ix < 0 || ix >= w) continue
            for (let k = 0; k < o; k++) {
              const group = Math.floor(k / perGroup)
              for (let i = 0; i < cg; i++) {
                const xIndex = ((b * h + iy) * w + ix) * c + group * cg + i
                const wIndex = ((ky * kw + kx) * cg + i) * o + k
                visit(xIndex, wIndex, ((b * oh + y) * ow + x) * o + k)
              }
            }
          }
        }
      }
    }
  }
}

/** Extent of a convolution's or pooling's output. */
export const outputExtent = (
  size: number,
  kernel: number,
  { stride = 1, padding = 0, dilation = 1 }: Convolution,
): number => Math.floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1

/** x [N, H, W, C], w [KH, KW, C/groups, O] → [N, H', W', O] */
export function conv2d(x: Values, w: Values, options: Convolution = {}): Values {
  const xs = extents4(x)
  const ws = extents4(w)
  const oh = outputExtent(xs[1], ws[0], options)
  const ow = outputExtent(xs[2], ws[1], options)
  const result = values([xs[0], oh, ow, ws[3]])
  forEachProduct(xs, ws, [oh, ow], options, (i, j, k) => {
    result.data[k] = get(result, k) + get(x, i) * get(w, j)
  })
  return result
}

/** Gradient of sum(dy · conv2d(x, w)) with respect to x, of shape `size`. */
export function conv2dInputGrad(dy: Values, w: Values, options: Convolution & { size: readonly number[] }): Values {
  const result = values(options.size)
  const [, oh, ow] = extents4(dy)
  forEachProduct(extents4(result), extents4(w), [oh, ow], options, (i, j, k) => {
    result.data[i] = get(result, i) + get(dy, k) * get(w, j)
  })
  return result
}

/** Gradient of sum(dy · conv2d(x, w)) with respect to w, of shape `size`. */
export function conv2dWeightGrad(x: Values, dy: Values, options: Convolution & { size: readonly number[] }): Values {
  const result = values(options.size)
  const [, oh, ow] = extents4(dy)
  forEachProduct(extents4(x), extents4(result), [oh, ow], options, (i, j, k) => {
    result.data[j] = get(result, j) + get(x, i) * get(dy, k)
  })
  return result
}

/** Transposed convolution: x [N, H, W, C] and w [KH, KW, O, C]; each pixel of x spreads over a window of the result. */
export function convTranspose2d(x: Values, w: Values, stride: number, padding: number): Values {
  const [n, h, wide, c] = extents4(x)
  const [kh, kw, o] = extents4(w)
  const [height, width] = [(h - 1) * stride - 2 * padding + kh, (wide - 1) * stride - 2 * padding + kw]
  const result = values([n, height, width, o])
  for (let b = 0; b < n; b++) {
    for (let y = 0; y < h; y++) {
      for (let z = 0; z < wide; z++) {
        for (let i = 0; i < kh; i++) {
          for (let j = 0; j < kw; j++) {
            const [row, column] = [y * stride - padding + i, z * stride - padding + j]
            if (row < 0 || row >= height || column < 0 || column >= width) continue
            for (let k = 0; k < o; k++) {
              const at = ((b * height + row) * width + column) * o + k
              let sum = get(result, at)
              for (let m = 0; m < c; m++) {
                sum += get(x, ((b * h + y) * wide + z) * c + m) * get(w, ((i * kw + j) * o + k) * c + m)
              }
              result.data[at] = sum
            }
          }
        }
      }
    }
  }
  return result
}
