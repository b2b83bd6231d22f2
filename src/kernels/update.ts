import * as e from '../engine/expr.js'
import type { Tensor } from '../engine/ir.js'
import { fill, pointwise, pointwiseAll, where } from './pointwise.js'

export interface SgdTensors {
  readonly parameter: Tensor
  /** PyTorch's momentum buffer; zeros before the first step. */
  readonly momentumBuffer: Tensor
  readonly gradient: Tensor
  /** A scalar. */
  readonly learningRate: Tensor
  /** Scalars: what the gradient was multiplied by, and whether (not 0) everything stays as it is. */
  readonly scaling?: { readonly scale: Tensor; readonly skip: Tensor } | undefined
}

type Six<T> = [T, T, T, T, T, T]
type Eight<T> = [...Six<T>, T, T]

/**
 * One step of stochastic gradient descent as `torch.optim.SGD` (no dampening, no Nesterov):
 * buffer ← momentum · buffer + gradient + weightDecay · parameter; parameter ← parameter − learningRate · buffer.
 *
 * @returns the new values, for the caller to assign; they take over the buffers of the old ones
 */
export function sgd(
  { parameter, momentumBuffer, gradient, learningRate, scaling }: SgdTensors,
  { momentum = 0.9, weightDecay = 1e-4 }: { momentum?: number; weightDecay?: number } = {},
): { parameter: Tensor; momentumBuffer: Tensor } {
  const [oldParameter, oldBuffer, scaled, rate, scale, skip] = [0, 1, 2, 3, 4, 5].map(e.input) as Six<e.Expr>
  const decayed = e.mul(e.constant(weightDecay), oldParameter)
  const newBuffer = e.add(
    e.mul(e.constant(momentum), oldBuffer),
    e.add(scaling ? e.div(scaled, scale) : scaled, decayed),
  )
  const newParameter = e.sub(oldParameter, e.mul(rate, newBuffer))
  const unlessSkipped = (old: e.Expr, value: e.Expr) => (scaling ? e.where(skip, old, value) : value)
  const formulas = [unlessSkipped(oldParameter, newParameter), unlessSkipped(oldBuffer, newBuffer)]
  const scalars = scaling ? [learningRate, scaling.scale, scaling.skip] : [learningRate]
  const inputs = [parameter, momentumBuffer, gradient, ...scalars]
  const inplace = [
    [0, 0],
    [1, 1],
  ] as const
  const [p, v] = pointwiseAll('sgd', formulas, inputs, { inplace })
  if (!p || !v) throw new Error('unreachable: sgd has two outputs')
  return { parameter: p, momentumBuffer: v }
}

const zero = (): Tensor => fill([], 0)

export interface AdamWTensors {
  readonly parameter: Tensor
  /** PyTorch's `exp_avg`; zeros before the first step. */
  readonly average: Tensor
  /** PyTorch's `exp_avg_sq`; zeros before the first step. */
  readonly squareAverage: Tensor
  readonly gradient: Tensor
  /** A scalar. */
  readonly learningRate: Tensor
  /** Scalars: 1 − beta^step of either average, the first step being 1. */
  readonly corrections: readonly [Tensor, Tensor]
  /** Scalars: what the gradient was multiplied by, and whether (not 0) everything stays as it is. */
  readonly scaling?: { readonly scale: Tensor; readonly skip: Tensor } | undefined
}

export interface AdamWOptions {
  readonly betas?: readonly [number, number]
  readonly eps?: number
  readonly weightDecay?: number
}

/**
 * One step of Adam with decoupled weight decay (Loshchilov and Hutter, 2019) as `torch.optim.AdamW`, eps outside of the
 * root: parameter ← (1 − learningRate · weightDecay) · parameter − learningRate · m̂ / (√v̂ + eps), of the averages divided
 * by their corrections.
 *
 * @returns the new values, for the caller to assign; they take over the buffers of the old ones
 */
export function adamw(
  { parameter, average, squareAverage, gradient, learningRate, corrections, scaling }: AdamWTensors,
  { betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 }: AdamWOptions = {},
): { parameter: Tensor; average: Tensor; squareAverage: Tensor } {
  const [oldParameter, oldAverage, oldSquares, scaled, rate, first, second, divisor] = [0, 1, 2, 3, 4, 5, 6, 7].map(
    e.input,
  ) as Eight<e.Expr>
  const g = scaling ? e.div(scaled, divisor) : scaled
  const blend = (beta: number, old: e.Expr, value: e.Expr) =>
    e.add(e.mul(e.constant(beta), old), e.mul(e.constant(1 - beta), value))
  const newAverage = blend(beta1, oldAverage, g)
  const newSquares = blend(beta2, oldSquares, e.mul(g, g))
  const deviation = e.add(e.sqrt(e.div(newSquares, second)), e.constant(eps))
  // As two differences: 1 − learningRate · weightDecay would round off most digits of a small decay.
  const decayed = e.sub(oldParameter, e.mul(e.mul(rate, e.constant(weightDecay)), oldParameter))
  const newParameter = e.sub(decayed, e.mul(rate, e.div(e.div(newAverage, first), deviation)))
  const unlessSkipped = (old: e.Expr, value: e.Expr) => (scaling ? e.where(divisor, value, old) : value)
  const formulas = [
    unlessSkipped(oldParameter, newParameter),
    unlessSkipped(oldAverage, newAverage),
    unlessSkipped(oldSquares, newSquares),
  ]
  // One scalar for both, 0 where the step is skipped: every adapter binds eight buffers, and this is the eighth.
  const scalars = [learningRate, ...corrections, ...(scaling ? [where(scaling.skip, zero(), scaling.scale)] : [])]
  const inputs = [parameter, average, squareAverage, gradient, ...scalars]
  const inplace = [
    [0, 0],
    [1, 1],
    [2, 2],
  ] as const
  const [p, m, v] = pointwiseAll('adamw', formulas, inputs, { inplace })
  if (!p || !m || !v) throw new Error('unreachable: adamw has three outputs')
  return { parameter: p, average: m, squareAverage: v }
}

/**
 * One step of an exponential moving average, such as that of a mean teacher: decay · average + (1 − decay) · value.
 *
 * @param decay a scalar; where it is 0 the result is the value itself
 * @returns the new average, for the caller to assign; it takes over the buffer of the old one
 */
export function movingAverage(average: Tensor, value: Tensor, decay: Tensor): Tensor {
  const formula = e.formula((average, value, decay) =>
    e.add(e.mul(decay, average), e.mul(e.sub(e.constant(1), decay), value)),
  )
  return pointwise('movingAverage', [formula], [average, value, decay], { inplace: [[0, 0]] })
}

/**
 * A running sum with one more value; it takes over the buffer of the old one.
 * @param keep a scalar: 0 where the sum begins with `value`, whatever `total` holds
 */
export const accumulate = (total: Tensor, value: Tensor, keep: Tensor): Tensor =>
  pointwise('accumulate', [nextTotal], [total, value, keep], { space: total.shape, inplace: [[0, 0]] })

const nextTotal = e.formula((total, value, keep) => e.add(e.where(keep, total, e.constant(0)), value))
