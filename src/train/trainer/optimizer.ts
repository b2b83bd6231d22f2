import { input, sqrt } from '../../engine/expr.js'
import { assign, read, scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { Store, type Variable } from '../../engine/store.js'
import { grad } from '../../kernels/autograd.js'
import { add, mul, pointwise, sum } from '../../kernels/pointwise.js'
import { sgd } from '../../kernels/update.js'
import type { ParameterGroup } from '../../models/segmentation.js'
import type { LossScale } from './loss-scale.js'

export const momentum = 0.9
export const weightDecay = 1e-4

/** The parameters of a model with their momentum buffers. */
export interface Optimized {
  readonly groups: readonly ParameterGroup[]
  readonly momentum: Store
  /** Default: `weightDecay`. */
  readonly decay?: number | undefined
}

/** Momentum buffers of parameters, under the parameters' names; 0 at first. */
export function createMomentum(groups: readonly ParameterGroup[], label = 'momentum'): Store {
  const parameters = groups.flatMap((group) => group.parameters)
  const [first] = parameters
  if (!first) throw new Error('there are no parameters to optimise')
  const store = new Store(first.store.device, label)
  for (const { name, spec } of parameters) store.declare(name, spec)
  return store
}

/** Learning rates (scalar tensors) of the backbone and of everything else. */
export interface LearningRates {
  readonly backbone: Tensor
  readonly head: Tensor
}

/** What a scaled loss was multiplied by, and what became of the step. */
export interface Scaled {
  readonly scale: Tensor
  /** Not 0 where the step is skipped. */
  readonly nonFinite: Tensor
  readonly skippedSteps: Tensor
}

/** All parameters, in the order of their gradients. */
export const allParameters = (optimized: readonly Optimized[]): Variable[] =>
  optimized.flatMap(({ groups }) => groups.flatMap(({ parameters }) => parameters))

/**
 * One step of SGD with momentum and weight decay on all parameters.
 * @param gradients of `allParameters`, multiplied by the scale where there is one
 * @param lossScale decides whether the step is taken
 */
export function applyGradients(
  gradients: readonly Tensor[],
  optimized: readonly Optimized[],
  rates: LearningRates,
  lossScale?: LossScale,
): Scaled | undefined {
  const parameters = optimized.flatMap(({ groups, momentum, decay = weightDecay }) =>
    groups.flatMap(({ name: group, parameters }) =>
      parameters.map((parameter) => ({ group, parameter, decay, buffer: momentum.get(parameter.name) })),
    ),
  )
  const scaled = lossScale && { scale: lossScale.scale(), ...lossScale.update(gradients) }
  const scaling = scaled && { scale: scaled.scale, skip: scaled.nonFinite }
  scoped('sgd', () => {
    for (const [i, { group, parameter, decay, buffer }] of parameters.entries()) {
      const gradient = gradients[i]
      if (!gradient) continue
      const state = {
        parameter: read(parameter),
        momentumBuffer: read(buffer),
        gradient,
        learningRate: rates[group],
        scaling,
      }
      const updated = sgd(state, { momentum, weightDecay: decay })
      assign(parameter, updated.parameter)
      assign(buffer, updated.momentumBuffer)
    }
  })
  return scaled
}

/**
 * One step of SGD by the gradients of a loss.
 * @param lossScale scales the loss, and decides whether the step is taken
 * @returns the gradients, before weight decay and multiplied by `scale`, where the loss is scaled
 */
export function updateParameters(
  loss: Tensor,
  optimized: readonly Optimized[],
  rates: LearningRates,
  lossScale?: LossScale,
): { gradients: Tensor[]; scaled: Scaled | undefined } {
  const scale = lossScale?.scale()
  const gradients = grad(loss, allParameters(optimized).map(read), scale)
  return { gradients, scaled: applyGradients(gradients, optimized, rates, lossScale) }
}

/** Euclidean norm of all elements of all tensors. */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  const squares = tensors.map((tensor) => sum(mul(tensor, tensor)))
  return pointwise('sqrt', [sqrt(input(0))], [squares.reduce(add)])
}
