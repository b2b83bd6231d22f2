import { assign, read } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { type Spec, spec } from '../../engine/shape.js'
import type { Store, Variable } from '../../engine/store.js'
import { grad } from '../../kernels/autograd.js'
import type { Exchange } from '../../kernels/exchange.js'
import { nonFiniteCounts } from '../../kernels/finite.js'
import { div, fill, scale } from '../../kernels/pointwise.js'
import { accumulate } from '../../kernels/update.js'
import { get, type MethodRun, type Tensors } from '../methods/method.js'
import { averageGradients } from './average-gradients.js'
import type { LossScale } from './loss-scale.js'
import {
  allParameters,
  applyGradients,
  globalNorm,
  type Optimized,
  type Optimizer,
  type Scaled,
  type UpdateBy,
  updateParameters,
} from './optimizer.js'
import type { TrainingPasses } from './training-passes.js'

/** What a program of a step is traced from. */
export interface StepProgram {
  readonly label: string
  readonly specs: Record<string, Spec>
  readonly body: (inputs: Tensors) => Tensors
}

/** What the steps of a phase compute with. */
export interface StepContext {
  /** Name of the method. */
  readonly name: string
  /** One of the method's phases; empty where it has one kind of steps. */
  readonly phase: string
  readonly run: MethodRun
  readonly passes: TrainingPasses
  readonly optimizer: Optimizer
  readonly optimized: readonly Optimized[]
  /** In half precision. */
  readonly lossScale: LossScale | undefined
  /** Whether the norm of the gradients is computed, too. */
  readonly gradNorm: boolean
  /** With several ranks: all of them follow the means of their gradients. */
  readonly exchange: Exchange | undefined
}

/** Input of a program of a part: 0 for the first part of a batch, else 1. */
export const continues = 'continues'

/** What the names of outputs begin with that hold what a method calls details. */
export const detailPrefix = 'details/'

const rateSpecs = { lr_backbone: spec([]), lr_head: spec([]) }

/** What the update of a step goes by. */
const updateBy = ({ optimizer, lossScale, exchange }: StepContext, inputs: Tensors): UpdateBy => {
  const rates = { backbone: get(inputs, 'lr_backbone'), head: get(inputs, 'lr_head') }
  return { optimizer, rates, inputs, lossScale, exchange }
}

const labelOf = ({ name, phase }: StepContext): string => (phase === '' ? `${name} step` : `${name} step, ${phase}`)

/** The losses of a phase, and what is beside them. */
function traceLosses({ run, phase, passes }: StepContext, inputs: Tensors): { total: Tensor; all: Tensors } {
  passes.begin(phase)
  const { total, metrics, details = {} } = run.losses(inputs, phase)
  const named = Object.entries(details).map(([name, tensor]) => [detailPrefix + name, tensor] as const)
  return { total, all: { total_loss: total, ...metrics, ...Object.fromEntries(named) } }
}

/** What an update delivers beside the metrics. */
function delivered(context: StepContext, gradients: readonly Tensor[], scaled: Scaled | undefined): Tensors {
  const variables = context.run.trained.flatMap(({ store }) => store.all())
  const scaling = scaled ? { loss_scale: scaled.scale, skipped_steps: scaled.skippedSteps } : {}
  const norms = context.gradNorm ? normsOf(context, gradients, scaled) : {}
  const maxBuffers = variables[0]?.store.device.traits.maxStorageBuffers
  return { ...scaling, non_finite: nonFiniteCounts(variables.map(read), maxBuffers), ...norms }
}

/** Norm of all gradients, and of those of each model where there are several. */
function normsOf(
  { run, optimized }: StepContext,
  gradients: readonly Tensor[],
  scaled: Scaled | undefined,
): Record<string, Tensor> {
  const unscaled = (norm: Tensor): Tensor => (scaled ? div(norm, scaled.scale) : norm)
  const norms: Record<string, Tensor> = { grad_norm: unscaled(globalNorm(gradients)) }
  if (optimized.length < 2) return norms
  let first = 0
  for (const [i, each] of optimized.entries()) {
    const { length } = allParameters([each])
    norms[`grad_norm/${run.trained[i]?.store.label}`] = unscaled(globalNorm(gradients.slice(first, first + length)))
    first += length
  }
  return norms
}

/** Losses, gradients and update of a batch in one program. */
export function wholeStep(context: StepContext): StepProgram {
  const { run, phase, optimizer, optimized } = context
  return {
    label: labelOf(context),
    specs: { ...rateSpecs, ...optimizer.inputs, ...run.inputs },
    body: (inputs) => {
      const { total, all } = traceLosses(context, inputs)
      const { gradients, scaled } = updateParameters(total, optimized, updateBy(context, inputs))
      run.afterUpdate?.(inputs, scaled?.nonFinite, phase)
      return { ...all, ...delivered(context, gradients, scaled) }
    },
  }
}

/** Sums over the parts of a batch. */
export interface PartSums {
  readonly store: Store
  /** Of the metrics, and of the gradients of `allParameters`. */
  readonly metrics: readonly Variable[]
  readonly gradients: readonly Variable[]
}

/** @param store empty; takes a variable for each sum */
export function declareSums({ run, optimized }: Pick<StepContext, 'run' | 'optimized'>, store: Store): PartSums {
  const names = ['total_loss', ...run.metrics.map(({ name }) => name)]
  return {
    store,
    metrics: names.map((name) => store.declare(name, spec([]))),
    gradients: allParameters(optimized).map((parameter) =>
      store.declare(`${parameter.store.label}/${parameter.name}`, parameter.spec),
    ),
  }
}

/**
 * The programs of a step that takes its batch in equal parts. The first runs for each part, and adds the gradients of its
 * loss and its metrics, all divided by the number of parts, to sums; the second updates the parameters by these sums.
 */
export function stepInParts(context: StepContext, parts: number, sums: PartSums): [StepProgram, StepProgram] {
  const { run, phase, optimizer, optimized, lossScale } = context
  const parameters = allParameters(optimized)
  /** The sums of this phase, when the first program is traced. */
  let metricSums: readonly Variable[] = []
  const part: StepProgram = {
    label: `${labelOf(context)}, losses of ${parts} parts`,
    specs: { [continues]: spec([]), ...run.inputs },
    body: (inputs) => {
      const { total, all } = traceLosses(context, inputs)
      const share = lossScale ? scale(lossScale.scale(), 1 / parts) : fill([], 1 / parts)
      const gradients = grad(total, parameters.map(read), share)
      const keep = get(inputs, continues)
      for (const [i, variable] of sums.gradients.entries()) {
        const gradient = gradients[i]
        if (gradient) assign(variable, accumulate(read(variable), gradient, keep))
      }
      metricSums = sums.metrics.filter(({ name }) => all[name])
      for (const variable of metricSums) {
        assign(variable, accumulate(read(variable), scale(get(all, variable.name), 1 / parts), keep))
      }
      return {}
    },
  }
  const update: StepProgram = {
    label: `${labelOf(context)}, update`,
    specs: { ...rateSpecs, ...optimizer.inputs, ...(run.afterUpdate ? run.inputs : {}) },
    body: (inputs) => {
      const gradients = averageGradients(sums.gradients.map(read), context.exchange)
      const scaled = applyGradients(gradients, optimized, updateBy(context, inputs))
      run.afterUpdate?.(inputs, scaled?.nonFinite, phase)
      const metrics = Object.fromEntries(metricSums.map((variable) => [variable.name, read(variable)]))
      return { ...metrics, ...delivered(context, gradients, scaled) }
    },
  }
  return [part, update]
}
