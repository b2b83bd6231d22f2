import { input, sqrt } from '../../engine/expr.js'
import { assign, read, scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { type Spec, spec } from '../../engine/shape.js'
import { Store, type Variable } from '../../engine/store.js'
import { grad } from '../../kernels/autograd.js'
import type { Exchange } from '../../kernels/exchange.js'
import { add, mul, pointwise, sum } from '../../kernels/pointwise.js'
import { adamw, sgd } from '../../kernels/update.js'
import type { ParameterGroup } from '../../models/segmentation.js'
import { get, type Tensors } from '../methods/method.js'
import { averageGradients } from './average-gradients.js'
import type { LossScale } from './loss-scale.js'
import type { OptimizerSection } from './optimizer-settings.js'

export const momentum = 0.9
export const weightDecay = 1e-4

/** What a parameter is updated by. */
interface UpdateOf {
  readonly parameter: Tensor
  /** Of the parameter, in the order of `Optimizer.state`. */
  readonly state: readonly Tensor[]
  readonly gradient: Tensor
  /** A scalar. */
  readonly learningRate: Tensor
  readonly weightDecay: number
  /** Scalars: what the gradient was multiplied by, and whether (not 0) everything stays as it is. */
  readonly scaling: { readonly scale: Tensor; readonly skip: Tensor } | undefined
  /** The inputs of the step. */
  readonly inputs: Tensors
}

/** How parameters follow their gradients. */
export interface Optimizer {
  readonly name: 'sgd' | 'adamw'
  /** What it keeps for each parameter, of the parameter's shape and 0 at first: PyTorch's names. */
  readonly state: readonly string[]
  /** Scalar inputs of a step beside the learning rates. */
  readonly inputs: Readonly<Record<string, Spec>>
  /** Their values in the update number `update`, from 1; steps that are skipped have no number. */
  values(update: number): Readonly<Record<string, Float32Array>>
  /** The new parameter and the new state, which take over the buffers of the old ones. */
  next(of: UpdateOf): { readonly parameter: Tensor; readonly state: readonly Tensor[] }
  /** Weight decay of a parameter. */
  weightDecay(group: ParameterGroup, parameter: Variable): number
}

/** What of a configuration concerns the optimizer. */
export interface OptimizerSettings {
  readonly optimizer?: OptimizerSection | undefined
  readonly weight_decay?: number | undefined
}

/** The optimizer of a configuration. */
export function optimizerOf({ optimizer: section, weight_decay: decay = weightDecay }: OptimizerSettings): Optimizer {
  const { norm_decay: normDecay = decay } = section ?? {}
  const decays = {
    weightDecay: ({ name, normalization }: ParameterGroup, parameter: Variable) =>
      name === 'backbone' && normalization?.has(parameter) ? normDecay : decay,
  }
  if (section?.name !== 'adamw') return { ...plainSgd, ...decays }
  return { ...adamWith(section), ...decays }
}

const plainSgd: Omit<Optimizer, 'weightDecay'> = {
  name: 'sgd',
  state: ['momentum'],
  inputs: {},
  values: () => ({}),
  next({ parameter, state: [buffer], gradient, learningRate, scaling, weightDecay }) {
    const tensors = { parameter, momentumBuffer: need(buffer), gradient, learningRate, scaling }
    const updated = sgd(tensors, { momentum, weightDecay })
    return { parameter: updated.parameter, state: [updated.momentumBuffer] }
  },
}

const corrections = ['correction_1', 'correction_2'] as const

const adamWith = ({ betas, eps }: OptimizerSection): Omit<Optimizer, 'weightDecay'> => ({
  name: 'adamw',
  state: ['exp_avg', 'exp_avg_sq'],
  inputs: Object.fromEntries(corrections.map((name) => [name, spec([])])),
  values: (update) =>
    Object.fromEntries(corrections.map((name, i) => [name, Float32Array.of(1 - (betas[i] ?? 0) ** update)])),
  next({ state: [average, squares], inputs, weightDecay, ...tensors }) {
    const averages = { average: need(average), squareAverage: need(squares) }
    const [first, second] = corrections
    const scalars = [get(inputs, first), get(inputs, second)] as const
    const updated = adamw({ ...tensors, ...averages, corrections: scalars }, { betas, eps, weightDecay })
    return { parameter: updated.parameter, state: [updated.average, updated.squareAverage] }
  },
})

function need(tensor: Tensor | undefined): Tensor {
  if (!tensor) throw new Error('unreachable: the optimizer keeps state for each parameter')
  return tensor
}

/** The parameters of a model with what the optimizer keeps for them. */
export interface Optimized {
  readonly groups: readonly ParameterGroup[]
  /** In the order of `Optimizer.state`, under the parameters' names. */
  readonly state: readonly Store[]
}

/**
 * What an optimizer keeps for parameters: stores that are labeled by its names, in which the parameters have theirs.
 * @param prefix of the labels
 */
export function createState({ state }: Optimizer, groups: readonly ParameterGroup[], prefix = ''): Store[] {
  const parameters = groups.flatMap((group) => group.parameters)
  const [first] = parameters
  if (!first) throw new Error('there are no parameters to optimise')
  return state.map((name) => {
    const store = new Store(first.store.device, prefix + name)
    for (const parameter of parameters) store.declare(parameter.name, parameter.spec)
    return store
  })
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

/** What an update goes by beside the gradients. */
export interface UpdateBy {
  readonly optimizer: Optimizer
  readonly rates: LearningRates
  /** The inputs of the step, among them those of the optimizer. */
  readonly inputs: Tensors
  /** Decides whether the step is taken. */
  readonly lossScale?: LossScale | undefined
  /** With several ranks: all of them follow the means of their gradients. */
  readonly exchange?: Exchange | undefined
}

/**
 * One step of the optimizer on all parameters.
 * @param gradients of `allParameters`, multiplied by the scale where there is one
 */
export function applyGradients(
  gradients: readonly Tensor[],
  optimized: readonly Optimized[],
  { optimizer, rates, inputs, lossScale }: UpdateBy,
): Scaled | undefined {
  const parameters = optimized.flatMap(({ groups, state }) =>
    groups.flatMap((group) =>
      group.parameters.map((parameter) => ({
        group,
        parameter,
        state: state.map((store) => store.get(parameter.name)),
      })),
    ),
  )
  const scaled = lossScale && { scale: lossScale.scale(), ...lossScale.update(gradients) }
  const scaling = scaled && { scale: scaled.scale, skip: scaled.nonFinite }
  scoped(optimizer.name, () => {
    for (const [i, { group, parameter, state }] of parameters.entries()) {
      const gradient = gradients[i]
      if (!gradient) continue
      const next = optimizer.next({
        parameter: read(parameter),
        state: state.map(read),
        gradient,
        learningRate: rates[group.name],
        weightDecay: optimizer.weightDecay(group, parameter),
        scaling,
        inputs,
      })
      assign(parameter, next.parameter)
      for (const [k, variable] of state.entries()) assign(variable, need(next.state[k]))
    }
  })
  return scaled
}

/**
 * One step of the optimizer by the gradients of a loss, which `by.lossScale` scales.
 * @returns the gradients, before weight decay and multiplied by `scale`, where the loss is scaled
 */
export function updateParameters(
  loss: Tensor,
  optimized: readonly Optimized[],
  by: UpdateBy,
): { gradients: readonly Tensor[]; scaled: Scaled | undefined } {
  const scale = by.lossScale?.scale()
  const gradients = averageGradients(grad(loss, allParameters(optimized).map(read), scale), by.exchange)
  return { gradients, scaled: applyGradients(gradients, optimized, by) }
}

/** Euclidean norm of all elements of all tensors. */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  const squares = tensors.map((tensor) => sum(mul(tensor, tensor)))
  return pointwise('sqrt', [sqrt(input(0))], [squares.reduce(add)])
}
