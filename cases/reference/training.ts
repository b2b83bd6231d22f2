// Augmentation on the device, updates and counts.
import { coefficientDeviation, coefficientMean } from '#dist/kernels/coefficients.js'
import { div, elementwise, scale, sub } from './pointwise.js'
import { get, type Values, values } from './values.js'

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

/** DCT coefficients [N, H, W, 64] as networks expect them. */
export const normalizeCoefficients = (x: Values): Values =>
  div(sub(x, values([64], coefficientMean)), values([64], coefficientDeviation))

export const nonFiniteCounts = (tensors: readonly Values[]): Values =>
  values(
    [tensors.length],
    tensors.map(({ data }) => data.filter((value) => !Number.isFinite(value)).length),
  )

export function sgd(
  {
    parameter,
    momentumBuffer,
    gradient,
    learningRate,
  }: Record<'parameter' | 'momentumBuffer' | 'gradient' | 'learningRate', Values>,
  { momentum = 0.9, weightDecay = 1e-4 } = {},
): { parameter: Values; momentumBuffer: Values } {
  const next = elementwise((p, v, g) => momentum * v + (g + weightDecay * p), parameter, momentumBuffer, gradient)
  return { momentumBuffer: next, parameter: elementwise((p, v, lr) => p - lr * v, parameter, next, learningRate) }
}

export function adamw(
  {
    parameter,
    average,
    squareAverage,
    gradient,
    learningRate,
    correction1,
    correction2,
  }: Record<
    'parameter' | 'average' | 'squareAverage' | 'gradient' | 'learningRate' | 'correction1' | 'correction2',
    Values
  >,
  { betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 }: AdamWOptions = {},
): { parameter: Values; average: Values; squareAverage: Values } {
  const m = elementwise((old, g) => beta1 * old + (1 - beta1) * g, average, gradient)
  const v = elementwise((old, g) => beta2 * old + (1 - beta2) * g * g, squareAverage, gradient)
  const next = elementwise(
    (p, m, v, lr, c1, c2) => p * (1 - lr * weightDecay) - (lr * (m / c1)) / (Math.sqrt(v / c2) + eps),
    parameter,
    m,
    v,
    learningRate,
    correction1,
    correction2,
  )
  return { parameter: next, average: m, squareAverage: v }
}

interface AdamWOptions {
  readonly betas?: readonly [number, number]
  readonly eps?: number
  readonly weightDecay?: number
}

export const movingAverage = (average: Values, value: Values, decay: Values): Values =>
  elementwise((old, now, d) => d * old + (1 - d) * now, average, value, decay)

/** `counts` [K, K] (rows are targets) plus one for each pixel whose target is not ignored. */
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

/** A running sum with one more value; it begins with the value where `keep` is 0. */
export const accumulate = (total: Values, value: Values, keep: Values): Values =>
  elementwise((t, v, k) => (k === 0 ? 0 : t) + v, total, value, keep)
