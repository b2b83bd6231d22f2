/**
 * Every operator in double precision, as plain loops over NHWC tensors: what the kernels are tested against. Nothing
 * here is fast, and nothing is shared with the kernels.
 *
 * Operators that choose (the larger of two, the pixels to keep) choose by a second set of values, `at`. Where that is
 * the unperturbed input, a finite difference is the derivative of the branch that was taken, even at a tie.
 */

/** A tensor in double precision, row-major. */
export interface Values {
  readonly shape: readonly number[]
  readonly data: Float64Array
}

const count = (shape: readonly number[]): number => shape.reduce((product, extent) => product * extent, 1)

export const values = (shape: readonly number[], data: ArrayLike<number> = new Float64Array(count(shape))): Values => {
  if (data.length !== count(shape)) throw new RangeError(`${data.length} values do not fill [${shape}]`)
  return { shape, data: Float64Array.from(data) }
}

const scalar = (value: number): Values => values([], [value])

/** Element `i` of `x.data`. */
const get = (x: Values, i: number): number => {
  const value = x.data[i]
  if (value === undefined) throw new RangeError(`element ${i} of [${x.shape}]`)
  return value
}

/** Extents of a tensor of rank 4. */
function extents4({ shape }: Values): [number, number, number, number] {
  const [n, h, w, c] = shape
  if (n === undefined || h === undefined || w === undefined || c === undefined || shape.length !== 4) {
    throw new RangeError(`[${shape}] is not of rank 4`)
  }
  return [n, h, w, c]
}

/** Rows (all axes but the last) and channels (the last axis). */
function rowsAndChannels({ shape, data }: Values): [number, number] {
  const channels = shape.at(-1) ?? 1
  return [data.length / channels, channels]
}

// Broadcasting

/** The value of `x` at a place of a larger space, as NumPy broadcasts. */
function broadcastAt(x: Values, space: readonly number[], flat: number): number {
  let rest = flat
  let index = 0
  let stride = 1
  for (let axis = space.length - 1; axis >= 0; axis--) {
    const extent = space[axis] ?? 1
    const place = rest % extent
    rest = (rest - place) / extent
    const own = axis - (space.length - x.shape.length)
    const ownExtent = own >= 0 ? (x.shape[own] ?? 1) : 1
    index += (ownExtent === 1 ? 0 : place) * stride
    stride *= ownExtent
  }
  return get(x, index)
}

function commonSpace(tensors: readonly Values[]): number[] {
  const rank = Math.max(0, ...tensors.map(({ shape }) => shape.length))
  return Array.from({ length: rank }, (_, axis) =>
    Math.max(...tensors.map(({ shape }) => shape[axis - rank + shape.length] ?? 1)),
  )
}

/** A function of the elements at each place. */
export function elementwise(fn: (...elements: number[]) => number, ...tensors: Values[]): Values {
  const space = commonSpace(tensors)
  const result = values(space)
  for (let i = 0; i < result.data.length; i++) result.data[i] = fn(...tensors.map((x) => broadcastAt(x, space, i)))
  return result
}

export const add = (x: Values, y: Values): Values => elementwise((a, b) => a + b, x, y)
export const sub = (x: Values, y: Values): Values => elementwise((a, b) => a - b, x, y)
export const mul = (x: Values, y: Values): Values => elementwise((a, b) => a * b, x, y)
export const div = (x: Values, y: Values): Values => elementwise((a, b) => a / b, x, y)
export const scale = (x: Values, factor: number): Values => elementwise((a) => a * factor, x)
export const relu = (x: Values, at: Values = x): Values => elementwise((a, chosen) => (chosen > 0 ? a : 0), x, at)
export const where = (condition: Values, yes: Values, no: Values): Values =>
  elementwise((c, a, b) => (c !== 0 ? a : b), condition, yes, no)
export const equals = (x: Values, value: number): Values => elementwise((a) => (a === value ? 1 : 0), x)
export const atLeast = (x: Values, value: number): Values => elementwise((a) => (a >= Math.fround(value) ? 1 : 0), x)
export const truncate = (x: Values): Values => elementwise((a) => Math.trunc(a), x)
export const broadcastTo = (x: Values, shape: readonly number[]): Values => add(x, values(shape))
export const fill = (shape: readonly number[], value: number): Values => elementwise(() => value, values(shape))

// Reductions

export const sum = (x: Values): Values => scalar(x.data.reduce((total, value) => total + value, 0))

/** Sums over the axes that broadcasting `shape` to the shape of `x` would stretch. */
export function sumTo(x: Values, shape: readonly number[]): Values {
  const result = values(shape)
  // Which element of the result a place belongs to: broadcast the indices of the result.
  const indices = values(
    shape,
    result.data.map((_, i) => i),
  )
  for (let i = 0; i < x.data.length; i++) {
    const target = broadcastAt(indices, x.shape, i)
    result.data[target] = get(result, target) + get(x, i)
  }
  return result
}

// Movement

export function concat(tensors: readonly Values[], axis: number): Values {
  const [first] = tensors
  if (!first) throw new RangeError('concat of nothing')
  const total = tensors.reduce((sum, { shape }) => sum + (shape[axis] ?? 0), 0)
  const outer = count(first.shape.slice(0, axis))
  const parts: number[] = []
  for (let o = 0; o < outer; o++) {
    for (const x of tensors) {
      const inner = count(x.shape.slice(axis))
      parts.push(...x.data.subarray(o * inner, (o + 1) * inner))
    }
  }
  return values(first.shape.with(axis, total), parts)
}

export function flip(x: Values): Values {
  const [n, h, w, c] = extents4(x)
  const y = values(x.shape)
  for (let row = 0; row < n * h; row++) {
    for (let column = 0; column < w; column++) {
      for (let k = 0; k < c; k++) y.data[(row * w + column) * c + k] = get(x, (row * w + w - 1 - column) * c + k)
    }
  }
  return y
}

export function slice(x: Values, axis: number, start: number, size: number): Values {
  const outer = count(x.shape.slice(0, axis))
  const inner = count(x.shape.slice(axis + 1))
  const extent = x.shape[axis] ?? 0
  const parts: number[] = []
  for (let o = 0; o < outer; o++) {
    for (let i = start; i < start + size; i++) {
      parts.push(...x.data.subarray((o * extent + i) * inner, (o * extent + i + 1) * inner))
    }
  }
  return values(x.shape.with(axis, size), parts)
}

// Products

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

// Normalisation

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

// Pooling and resizing

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

/** Bilinear with align_corners: corners map to corners; an output of extent 1 takes index 0. */
export function resizeBilinear(x: Values, [height, width]: readonly [number, number]): Values {
  const [n, h, w, c] = extents4(x)
  const result = values([n, height, width, c])
  const source = (out: number, outSize: number, inSize: number) => {
    const place = outSize > 1 ? (out * (inSize - 1)) / (outSize - 1) : 0
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

// Classification

/** Over the last axis. */
export function softmax(x: Values): Values {
  const [rows, channels] = rowsAndChannels(x)
  const result = values(x.shape)
  for (let r = 0; r < rows; r++) {
    const row = x.data.subarray(r * channels, (r + 1) * channels)
    const largest = Math.max(...row)
    const exps = row.map((value) => Math.exp(value - largest))
    const total = exps.reduce((sum, value) => sum + value, 0)
    result.data.set(
      exps.map((value) => value / total),
      r * channels,
    )
  }
  return result
}

/** The largest probability of each pixel and its class; the lowest class on ties. */
export function softmaxMax(x: Values): { confidence: Values; label: Values } {
  const [rows, channels] = rowsAndChannels(x)
  const probabilities = softmax(x)
  const confidence = values(x.shape.slice(0, -1))
  const label = values(x.shape.slice(0, -1))
  for (let r = 0; r < rows; r++) {
    let best = 0
    for (let c = 1; c < channels; c++) {
      if (get(x, r * channels + c) > get(x, r * channels + best)) best = c
    }
    confidence.data[r] = get(probabilities, r * channels + best)
    label.data[r] = best
  }
  return { confidence, label }
}

/** Loss of each pixel, 0 where the target is ignored. */
export function crossEntropy(logits: Values, target: Values, ignoreIndex = 255): Values {
  const [rows, channels] = rowsAndChannels(logits)
  const result = values(target.shape)
  for (let r = 0; r < rows; r++) {
    const label = get(target, r)
    if (label === ignoreIndex) continue
    const row = logits.data.subarray(r * channels, (r + 1) * channels)
    const largest = Math.max(...row)
    const total = row.reduce((sum, value) => sum + Math.exp(value - largest), 0)
    result.data[r] = largest + Math.log(total) - get(logits, r * channels + label)
  }
  return result
}

/** Mean over the pixels that are not ignored; NaN where there are none. */
export function crossEntropyMean(logits: Values, target: Values, ignoreIndex = 255): Values {
  const valid = target.data.filter((label) => label !== ignoreIndex).length
  return scalar(get(sum(crossEntropy(logits, target, ignoreIndex)), 0) / valid)
}

export interface Ohem {
  readonly threshold: number
  readonly minKept: number
  readonly ignoreIndex?: number
}

/**
 * Online hard example mining: pixels whose probability of the target is at most the larger of `threshold` and the
 * minKept-th smallest one; ignored pixels count as 1 in that order. All valid pixels where minKept is 0 or exceeds
 * their number.
 */
export function ohemKept(logits: Values, target: Values, { threshold, minKept, ignoreIndex = 255 }: Ohem): Values {
  const [rows, channels] = rowsAndChannels(logits)
  const probabilities = softmax(logits)
  const ofTarget = new Float64Array(rows).fill(1)
  let valid = 0
  for (let r = 0; r < rows; r++) {
    const label = get(target, r)
    if (label === ignoreIndex) continue
    valid++
    // The selection is decided on float32 probabilities, like the real thing.
    ofTarget[r] = Math.fround(get(probabilities, r * channels + label))
  }
  let limit = Number.POSITIVE_INFINITY
  if (minKept > 0 && minKept <= valid) {
    const kth = [...ofTarget].sort((a, b) => a - b)[minKept - 1] ?? 1
    limit = Math.max(kth, Math.fround(threshold))
  }
  const kept = values(target.shape)
  for (let r = 0; r < rows; r++) kept.data[r] = get(target, r) !== ignoreIndex && (ofTarget[r] ?? 1) <= limit ? 1 : 0
  return kept
}

export function ohemCrossEntropy(
  logits: Values,
  target: Values,
  options: Ohem,
  at: Values = logits,
): { loss: Values; kept: Values } {
  const { ignoreIndex = 255 } = options
  const kept = ohemKept(at, target, options)
  const remaining = elementwise((label, keep) => (keep !== 0 ? label : ignoreIndex), target, kept)
  return { loss: crossEntropyMean(logits, remaining, ignoreIndex), kept }
}

export type ConfidenceMode = 'pixelwise' | 'pixelratio' | 'pixelavg'

/** The loss of pseudo-labels weighted by their confidence, over the valid pixels of the batch. */
export function confidenceWeightedLoss(
  loss: Values,
  confidence: Values,
  ignoreMask: Values,
  { threshold, mode }: { threshold: number; mode: ConfidenceMode },
): Values {
  const [samples = 0] = loss.shape
  const pixels = loss.data.length / samples
  let validInBatch = 0
  let batchLoss = 0
  for (let i = 0; i < loss.data.length; i++) {
    if (get(ignoreMask, i) !== 255) validInBatch++
    batchLoss += get(loss, i)
  }
  let total = 0
  for (let s = 0; s < samples; s++) {
    let valid = 0
    let confident = 0
    let confidenceSum = 0
    let sampleLoss = 0
    let confidentLoss = 0
    for (let i = s * pixels; i < (s + 1) * pixels; i++) {
      sampleLoss += get(loss, i)
      if (get(ignoreMask, i) === 255) continue
      valid++
      confidenceSum += get(confidence, i)
      if (get(confidence, i) < Math.fround(threshold)) continue
      confident++
      confidentLoss += get(loss, i)
    }
    if (mode === 'pixelwise') total += confidentLoss
    if (mode === 'pixelratio') total += sampleLoss * (confident / valid)
    if (mode === 'pixelavg') total += batchLoss * (confidenceSum / valid)
  }
  return scalar(total / validInBatch)
}

/** Share of the valid pixels whose confidence reaches the threshold. */
export function confidentRatio(confidence: Values, ignoreMask: Values, threshold: number): Values {
  let valid = 0
  let confident = 0
  for (let i = 0; i < confidence.data.length; i++) {
    if (get(ignoreMask, i) === 255) continue
    valid++
    if (get(confidence, i) >= Math.fround(threshold)) confident++
  }
  return scalar(confident / valid)
}

// Augmentation on the device

/** `other` where the box is set; `box` [N, H, W] holds for all channels. */
export function cutmix(base: Values, other: Values, box: Values): Values {
  const channels = base.data.length / box.data.length
  const result = values(base.shape)
  for (let i = 0; i < base.data.length; i++) {
    result.data[i] = get(get(box, Math.floor(i / channels)) !== 0 ? other : base, i)
  }
  return result
}

/** RGB bytes [N, H, W, 3] to the distribution that ImageNet backbones expect. */
export function normalizeImage(x: Values): Values {
  const mean = values([3], [0.485, 0.456, 0.406])
  const deviation = values([3], [0.229, 0.224, 0.225])
  return div(sub(scale(x, 1 / 255), mean), deviation)
}

// Training and evaluation

export const nonFiniteCounts = (tensors: readonly Values[]): Values =>
  values(
    [tensors.length],
    tensors.map(({ data }) => data.filter((value) => !Number.isFinite(value)).length),
  )

export function sgd(
  {
    parameter,
    velocity,
    gradient,
    learningRate,
  }: Record<'parameter' | 'velocity' | 'gradient' | 'learningRate', Values>,
  { momentum = 0.9, weightDecay = 1e-4 } = {},
): { parameter: Values; velocity: Values } {
  const next = elementwise((p, v, g) => momentum * v + (g + weightDecay * p), parameter, velocity, gradient)
  return { velocity: next, parameter: elementwise((p, v, lr) => p - lr * v, parameter, next, learningRate) }
}

/** `counts` [K, K] (rows are targets) plus one for each pixel whose target is not ignored. */
export function addWindows(sums: Values, maps: Values, places: Values): Values {
  const [height = 0, width = 0, channels = 0] = sums.shape
  const [, mapHeight = 0, mapWidth = 0] = maps.shape
  const result = values(sums.shape, sums.data)
  for (let i = 0; i < maps.data.length; i++) {
    const pixel = Math.floor(i / channels)
    const map = Math.floor(pixel / (mapHeight * mapWidth))
    const row = (get(places, 2 * map) | 0) + (Math.floor(pixel / mapWidth) % mapHeight)
    const column = (get(places, 2 * map + 1) | 0) + (pixel % mapWidth)
    if (row < 0 || row >= height || column < 0 || column >= width) continue
    const cell = (row * width + column) * channels + (i % channels)
    result.data[cell] = get(result, cell) + get(maps, i)
  }
  return result
}

export function confusionMatrix(counts: Values, predicted: Values, target: Values, ignoreIndex = 255): Values {
  const [classes = 0] = counts.shape
  const result = values(counts.shape, counts.data)
  for (let i = 0; i < target.data.length; i++) {
    if (get(target, i) === ignoreIndex) continue
    const cell = get(target, i) * classes + get(predicted, i)
    result.data[cell] = get(result, cell) + 1
  }
  return result
}
