import type { CountedValue, FirstNonFinite } from '../../engine/passes/trace-nan.js'
import { showShape } from '../../engine/shape.js'
import { smallestScale } from '../trainer/loss-scale.js'
import type { StepResult } from '../trainer/step-result.js'
import type { Trainer } from '../trainer/trainer.js'
import type { Broken, NonFinite } from './agreement.js'
import { OtherRankError, RunError } from './exit-codes.js'

/**
 * What of a step is NaN or infinite, in words; undefined where all is finite, and in half precision where the gradients
 * are not, but a smaller loss scale may help.
 */
export function nonFiniteIn(result: StepResult): NonFinite | undefined {
  const losses = Object.entries(result.metrics)
  const broken = losses.filter(([, value]) => !Number.isFinite(value))
  if (broken.length > 0) return { what: broken.map(([name, value]) => `${name} is ${value}`).join(', '), loss: true }
  const [first, ...others] = result.nonFinite
  if (first === undefined) {
    const what = scaledAway(result)
    return what === undefined ? undefined : { what, loss: false }
  }
  const more = others.length > 0 ? ` and ${others.length} more` : ''
  return { what: `the losses are finite, but the update gave NaN or an infinity to ${first}${more}`, loss: false }
}

function scaledAway({ loss_scale: scale, skipped_steps: skipped }: StepResult): string | undefined {
  if (scale === undefined || scale >= smallestScale) return undefined
  return `no loss scale down to ${scale} makes the gradients finite, ${skipped} steps were skipped: lower lr, or set amp to false`
}

/**
 * The error of a step that gave NaN or an infinity.
 * @param iteration that of the step, from 1
 * @param broken what `nonFiniteIn` says
 * @param trace also find the operator; the trainer must keep what a step starts from, and is of no further use
 */
export async function explainNonFinite(
  trainer: Trainer,
  iteration: number,
  { what, isOwn }: Broken,
  trace = false,
): Promise<RunError> {
  const where = `iteration ${iteration}: ${what}`
  // All ranks repeat the step together, and one of them says what it found.
  const found = trace ? await trainer.firstNonFinite() : undefined
  const traced = trace ? `; ${found ? describeFirst(found) : notFound}` : ''
  const message = `${where}${traced}; nothing of this step is saved`
  return isOwn ? new RunError('nonFinite', message) : new OtherRankError('nonFinite', message)
}

const notFound =
  'repeated operator by operator, the step gives finite numbers only: the fused kernels round differently'

function describeFirst(found: FirstNonFinite): string {
  const { inputs, backward } = found
  const where = inputs.length === 0 ? '' : backward ? ', computed for the gradient,' : ', in the forward pass,'
  const broken = inputs.filter(({ nonFinite }) => nonFinite > 0)
  const from = inputs.map(({ label, shape }) => `${label} ${showShape(shape)}`).join(', ')
  const origin = inputs.length === 0 ? '' : broken.length === 0 ? `; its inputs are finite: ${from}` : `; from ${from}`
  return `the first value that is not finite is ${show(found)}${where} in ${share(found)}${origin}`
}

const show = ({ label, shape }: CountedValue): string => `${label} ${showShape(shape)}`
const share = ({ nonFinite, elements }: CountedValue): string => `${nonFinite} of ${elements} elements`
