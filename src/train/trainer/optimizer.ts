import { input, sqrt } from '../../engine/expr.js'
import { assign, read, scoped, type Tensor } from '../../engine/graph.js'
import { Store, type Variable } from '../../engine/store.js'
import { grad } from '../../kernels/autograd.js'
import { add, mul, pointwise } from '../../kernels/pointwise.js'
import { sum } from '../../kernels/reduce.js'
import { sgd } from '../../kernels/update.js'
import type { ParameterGroup } from '../../models/segmentation.js'
import type { LossScale } from './loss-scale.js'

export const momentum = 0.9
export const weightDecay = 1e-4

/** Velocities of parameters, under the parameters' names; 0 at first. */
export function createVelocities(parameters: readonly Variable[]): Store {
  const [first] = parameters
  if (!first) throw new Error('there are no parameters to optimise')
  const store = new Store(first.store.device, 'momentum')
  for (const { name, spec } of parameters) store.declare(name, spec)
  return store
}

/** Learning rates (scalar tensors) of the backbone and of everything else. */
export interface LearningRates {
  readonly backbone: Tensor
  readonly rest: Tensor
}

/** What a scaled loss was multiplied by, and what became of the step. */
export interface Scaled {
  readonly scale: Tensor
  readonly nonFinite: Tensor
  readonly skippedSteps: Tensor
}

/**
 * One step of SGD with momentum and weight decay on all parameters.
 * @param lossScale scales the loss, and decides whether the step is taken
 * @returns the gradients, before weight decay and multiplied by `scale`, where the loss is scaled
 */
export function updateParameters(
  loss: Tensor,
  groups: readonly ParameterGroup[],
  velocities: Store,
  rates: LearningRates,
  lossScale?: LossScale,
): { gradients: Tensor[]; scaled: Scaled | undefined } {
  const parameters = groups.flatMap((group) => group.parameters)
  const inBackbone = new Set(groups.flatMap((group) => (group.name === 'backbone' ? group.parameters : [])))
  const scale = lossScale?.scale()
  const gradients = grad(loss, parameters.map(read), scale)
  const scaled = lossScale && scale && { scale, ...lossScale.update(gradients) }
  const scaling = scaled && { scale: scaled.scale, skip: scaled.nonFinite }
  scoped('sgd', () => {
    for (const [i, parameter] of parameters.entries()) {
      const gradient = gradients[i]
      if (!gradient) continue
      const velocity = velocities.get(parameter.name)
      const learningRate = inBackbone.has(parameter) ? rates.backbone : rates.rest
      const state = { parameter: read(parameter), velocity: read(velocity), gradient, learningRate, scaling }
      const updated = sgd(state, { momentum, weightDecay })
      assign(parameter, updated.parameter)
      assign(velocity, updated.velocity)
    }
  })
  return { gradients, scaled }
}

/** Euclidean norm of all elements of all tensors. */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  const squares = tensors.map((tensor) => sum(mul(tensor, tensor)))
  return pointwise('sqrt', [sqrt(input(0))], [squares.reduce(add)])
}
