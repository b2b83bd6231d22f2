import * as e from '../engine/expr.js'
import type { Tensor } from '../engine/ir.js'
import { pointwise, pointwiseAll } from './pointwise.js'

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

/**
 * A running sum with one more value; it takes over the buffer of the old one.
 * @param keep a scalar: 0 where the sum begins with `value`, whatever `total` holds
 */
export const accumulate = (total: Tensor, value: Tensor, keep: Tensor): Tensor =>
  pointwise('accumulate', [nextTotal], [total, value, keep], { space: total.shape, inplace: [[0, 0]] })

const nextTotal = e.formula((total, value, keep) => e.add(e.where(keep, total, e.constant(0)), value))
