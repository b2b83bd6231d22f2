// Normalisation, pooling and resizing.
import { elementwise, scale, sumTo } from './pointwise.js'
import { outputExtent } from './products.js'
import { extents4, get, rowsAndChannels, type Values, values } from './values.js'

export interface Normalization {
  readonly weight: Values
  readonly bias: Values
  readonly runningMean: Values
  readonly runningVar: Values
}

/** Normalises by the statistics of the batch; running statistics move by `momentum`, the variance unbiased. */
export function batchNormTraining(
  x: Values,
  { weight, bias, runningMean, runningVar }: Normalization,
  { momentum = 0.1, eps = 1e-5 } = {},
): { y: Values; runningMean: Values; runningVar: Values } {
  const [rows, channels] = rowsAndChannels(x)
  const y = values(x.shape)
  const newMean = values([channels])
  const newVar = values([channels])
  for (let c = 0; c < channels; c++) {
    let total = 0
    for (let r = 0; r < rows; r++) total += get(x, r * channels + c)
    const mean = total / rows
    let squares = 0
    for (let r = 0; r < rows; r++) squares += (get(x, r * channels + c) - mean) ** 2
    const deviation = Math.sqrt(squares / rows + eps)
    for (let r = 0; r < rows; r++) {
      y.data[r * channels + c] = ((get(x, r * channels + c) - mean) / deviation) * get(weight, c) + get(bias, c)
    }
    newMean.data[c] = (1 - momentum) * get(runningMean, c) + momentum * mean
    newVar.data[c] = (1 - momentum) * get(runningVar, c) + momentum * (squares / (rows - 1))
  }
  return { y, runningMean: newMean, runningVar: newVar }
}

export function batchNormEvaluation(
  x: Values,
  { weight, bias, runningMean, runningVar }: Normalization,
  { eps = 1e-5 } = {},
): Values {
  return elementwise(
    (a, g, b, mean, variance) => ((a - mean) / Math.sqrt(variance + eps)) * g + b,
    x,
    weight,
    bias,
    runningMean,
    runningVar,
  )
}

/** Normalises each row by its own mean and biased variance. */
export function layerNorm(x: Values, weight: Values, bias: Values, eps = 1e-5): Values {
  const [rows, channels] = rowsAndChannels(x)
  const y = values(x.shape)
  for (let r = 0; r < rows; r++) {
    const row = x.data.subarray(r * channels, (r + 1) * channels)
    const mean = row.reduce((sum, value) => sum + value, 0) / channels
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / channels
    for (const [c, value] of row.entries()) {
      y.data[r * channels + c] = ((value - mean) / Math.sqrt(variance + eps)) * get(weight, c) + get(bias, c)
    }
  }
  return y
}

/** Padding never wins; on ties the first maximum in row-major order of the window, as chosen by `at`. */
export function maxPool2d(x: Values, { kernel = 3, stride = 2, padding = 1 } = {}, at: Values = x): Values {
  const [n, h, w, c] = extents4(x)
  const oh = outputExtent(h, kernel, { stride, padding })
  const ow = outputExtent(w, kernel, { stride, padding })
  const result = values([n, oh, ow, c])
  for (let b = 0; b < n; b++) {
    for (let y = 0; y < oh; y++) {
      for (let z = 0; z < ow; z++) {
        for (let k = 0; k < c; k++) {
          let best = -1
          for (let ky = 0; ky < kernel; ky++) {
            for (let kx = 0; kx < kernel; kx++) {
              const iy = y * stride - padding + ky
              const ix = z * stride - padding + kx
              if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue
              const index = ((b * h + iy) * w + ix) * c + k
              if (best < 0 || get(at, index) > get(at, best)) best = index
            }
          }
          result.data[((b * oh + y) * ow + z) * c + k] = get(x, best)
        }
      }
    }
  }
  return result
}

/** [N, H, W, C] → [N, 1, 1, C] */
export function globalAveragePool(x: Values): Values {
  const [n, h, w, c] = extents4(x)
  return scale(sumTo(x, [n, 1, 1, c]), 1 / (h * w))
}

/**
 * Bilinear. With align_corners corners map to corners, and an output of extent 1 takes index 0; without, borders map to
 * borders, and what lies outside of the outermost centres takes their values.
 */
export function resizeBilinear(x: Values, [height, width]: readonly [number, number], alignCorners = true): Values {
  const [n, h, w, c] = extents4(x)
  const result = values([n, height, width, c])
  const source = (out: number, outSize: number, inSize: number) => {
    const corners = outSize > 1 ? (out * (inSize - 1)) / (outSize - 1) : 0
    const borders = Math.min(inSize - 1, Math.max(0, ((out + 0.5) * inSize) / outSize - 0.5))
    const place = alignCorners ? corners : borders
    const low = Math.min(Math.floor(place), inSize - 1)
    return { low, high: Math.min(low + 1, inSize - 1), fraction: place - low }
  }
  for (let b = 0; b < n; b++) {
    for (let y = 0; y < height; y++) {
      const sy = source(y, height, h)
      for (let z = 0; z < width; z++) {
        const sx = source(z, width, w)
        for (let k = 0; k < c; k++) {
          const pixel = (iy: number, ix: number) => get(x, ((b * h + iy) * w + ix) * c + k)
          const top = pixel(sy.low, sx.low) * (1 - sx.fraction) + pixel(sy.low, sx.high) * sx.fraction
          const bottom = pixel(sy.high, sx.low) * (1 - sx.fraction) + pixel(sy.high, sx.high) * sx.fraction
          result.data[((b * height + y) * width + z) * c + k] = top * (1 - sy.fraction) + bottom * sy.fraction
        }
      }
    }
  }
  return result
}

/** Weight of Keys's kernel at a distance, a = -0.75. */
function keys(distance: number): number {
  const [a, d] = [-0.75, Math.abs(distance)]
  if (d < 1) return (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1
  return d < 2 ? a * (d ** 3 - 5 * d ** 2 + 8 * d - 4) : 0
}

/** Bicubic: pixel i of the result lies at (i + 0.5) · ratio − 0.5; taps outside of the map are those at its border. */
export function resizeCubic(
  x: Values,
  [height, width]: readonly [number, number],
  [down, across]: readonly [number, number],
): Values {
  const [n, h, w, c] = extents4(x)
  const result = values([n, height, width, c])
  const taps = (out: number, ratio: number, size: number) => {
    const place = (out + 0.5) * ratio - 0.5
    return [-1, 0, 1, 2].map((offset) => {
      const at = Math.floor(place) + offset
      return { at: Math.min(size - 1, Math.max(0, at)), weight: keys(place - at) }
    })
  }
  for (let b = 0; b < n; b++) {
    for (let y = 0; y < height; y++) {
      for (let z = 0; z < width; z++) {
        for (let k = 0; k < c; k++) {
          let sum = 0
          for (const row of taps(y, down, h)) {
            for (const column of taps(z, across, w)) {
              sum += row.weight * column.weight * get(x, ((b * h + row.at) * w + column.at) * c + k)
            }
          }
          result.data[((b * height + y) * width + z) * c + k] = sum
        }
      }
    }
  }
  return result
}
