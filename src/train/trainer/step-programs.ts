import { assign, read } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { type Spec, spec } from '../../engine/shape.js'
import type { Store } from '../../engine/store.js'
import { grad } from '../../kernels/autograd.js'
import { nonFiniteCounts } from '../../kernels/finite.js'
import { div, fill, scale } from '../../kernels/pointwise.js'
import { accumulate } from '../../kernels/update.js'
import { get, type MethodRun, type Tensors } from '../methods/method.js'
import type { LossScale } from './loss-scale.js'
import {
  allParameters,
  applyGradients,
  globalNorm,
  type LearningRates,
  type Optimized,
  type Scaled,
  updateParameters,
} from './optimizer.js'

/** What a program of a step is traced from. */
export interface StepProgram {
  readonly label: string
  readonly specs: Record<string, Spec>
  readonly body: (inputs: Tensors) => Tensors
}

/** What a step computes with. */
export interface StepContext {
  /** Name of the method. */
  readonly name: string
  readonly run: MethodRun
  readonly optimized: readonly Optimized[]
  /** In half precision. */
  readonly lossScale: LossScale | undefined
  /** Whether the norm of the gradients is computed, too. */
  readonly gradNorm: boolean
}

/** Input of a program of a part: 0 for the first part of a batch, else 1. */
export const continues = 'continues'

const rateSpecs = { lr_backbone: spec([]), lr_head: spec([]) }

const ratesOf = (inputs: Tensors): LearningRates => ({
  backbone: get(inputs, 'lr_backbone'),
  head: get(inputs, 'lr_head'),
})

/** What an update delivers beside the metrics. */
function delivered({ run, gradNorm }: StepContext, gradients: readonly Tensor[], scaled: Scaled | undefined): Tensors {
  const variables = run.trained.flatMap(({ store }) => store.all())
  const scaling = scaled ? { loss_scale: scaled.scale, skipped_steps: scaled.skippedSteps } : {}
  const all = { ...scaling, non_finite: nonFiniteCounts(variables.map(read)) }
  if (!gradNorm) return all
  const norm = globalNorm(gradients)
  return { ...all, grad_norm: scaled ? div(norm, scaled.scale) : norm }
}

/** Losses, gradients and update of a batch in one program. */
export function wholeStep(context: StepContext): StepProgram {
  const { name, run, optimized, lossScale } = context
  return {
    label: `${name} step`,
    specs: { ...rateSpecs, ...run.inputs },
    body: (inputs) => {
      const { total, metrics } = run.losses(inputs)
      const { gradients, scaled } = updateParameters(total, optimized, ratesOf(inputs), lossScale)
      run.afterUpdate?.(inputs, scaled?.nonFinite)
      return { total_loss: total, ...metrics, ...delivered(context, gradients, scaled) }
    },
  }
}

/**
 * The programs of a step that takes its batch in equal parts. The first runs for each part, and adds the gradients of its
 * loss and its metrics, all divided by the number of parts, to sums; the second updates the parameters by these sums.
 *
 * @param sums empty; takes a variable for each sum
 */
export function stepInParts(context: StepContext, parts: number, sums: Store): [StepProgram, StepProgram] {
  const { name, run, optimized, lossScale } = context
  const parameters = allParameters(optimized)
  const names = ['total_loss', ...run.metrics.map(({ name }) => name)]
  const metricSums = names.map((name) => sums.declare(name, spec([])))
  const gradientSums = parameters.map(({ store, name, spec }) => sums.declare(`${store.label}/${name}`, spec))
  const part: StepProgram = {
    label: `${name} step, losses of ${parts} parts`,
    specs: { [continues]: spec([]), ...run.inputs },
    body: (inputs) => {
      const { total, metrics } = run.losses(inputs)
      const share = lossScale ? scale(lossScale.scale(), 1 / parts) : fill([], 1 / parts)
      const gradients = grad(total, parameters.map(read), share)
      const keep = get(inputs, continues)
      for (const [i, variable] of gradientSums.entries()) {
        const gradient = gradients[i]
        if (gradient) assign(variable, accumulate(read(variable), gradient, keep))
      }
      const all: Tensors = { total_loss: total, ...metrics }
      for (const variable of metricSums) {
        assign(variable, accumulate(read(variable), scale(get(all, variable.name), 1 / parts), keep))
      }
      return {}
    },
  }
  const update: StepProgram = {
    label: `${name} step, update`,
    specs: { ...rateSpecs, ...(run.afterUpdate ? run.inputs : {}) },
    body: (inputs) => {
      const gradients = gradientSums.map(read)
      const scaled = applyGradients(gradients, optimized, ratesOf(inputs), lossScale)
      run.afterUpdate?.(inputs, scaled?.nonFinite)
      const metrics = Object.fromEntries(metricSums.map((variable) => [variable.name, read(variable)]))
      return { ...metrics, ...delivered(context, gradients, scaled) }
    },
  }
  return [part, update]
}
