import * as e from '../engine/expr.js'
import type { Tensor } from '../engine/graph.js'
import { pointwiseAll } from './pointwise.js'

export interface SgdTensors {
  readonly parameter: Tensor
  /** PyTorch's momentum buffer; zeros before the first step. */
  readonly velocity: Tensor
  readonly gradient: Tensor
  /** A scalar. */
  readonly learningRate: Tensor
}

/**
 * One step of stochastic gradient descent as `torch.optim.SGD` (no dampening, no Nesterov):
 * velocity ← momentum · velocity + gradient + weightDecay · parameter; parameter ← parameter − learningRate · velocity.
 *
 * @returns the new values, for the caller to assign; they take over the buffers of the old ones
 */
export function sgd(
  { parameter, velocity, gradient, learningRate }: SgdTensors,
  { momentum = 0.9, weightDecay = 1e-4 }: { momentum?: number; weightDecay?: number } = {},
): { parameter: Tensor; velocity: Tensor } {
  const newVelocity = e.formula((p, v, g) =>
    e.add(e.mul(e.constant(momentum), v), e.add(g, e.mul(e.constant(weightDecay), p))),
  )
  const newParameter = e.sub(e.input(0), e.mul(e.input(3), newVelocity))
  const inputs = [parameter, velocity, gradient, learningRate]
  const inplace = [
    [0, 0],
    [1, 1],
  ] as const
  const [p, v] = pointwiseAll('sgd', [newParameter, newVelocity], inputs, { inplace })
  if (!p || !v) throw new Error('unreachable: sgd has two outputs')
  return { parameter: p, velocity: v }
}
