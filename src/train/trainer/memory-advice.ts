import { BindingLimitError, OutOfMemoryError } from '../../engine/device.js'
import { canBind, largestFitting } from '../../engine/dry-device.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { UserError } from '../error.js'

/** What decides the size of a training step. */
export interface StepSize {
  /** Labeled images. */
  readonly batch: number
  /** Side of the crops. */
  readonly crop: number
}

/** The step that does not fit, and how to plan the same step at another size. */
export interface PlannedStep extends StepSize {
  /** Whether activations are computed again already. */
  readonly checkpointed: boolean
  /** Throws a BindingLimitError where the adapter cannot bind what the step needs. */
  readonly plan: (size: StepSize) => Promise<unknown>
}

/** The smallest crop that is worth an advice. */
const smallestCrop = 33

/**
 * The error of a step that does not fit the adapter, with what to change; any other error as it is. What it advises was
 * planned.
 */
export async function explainFit(error: unknown, model: SegmentationModel, step: PlannedStep): Promise<unknown> {
  if (error instanceof BindingLimitError) {
    return new UserError(`${error.message}: ${await smallerStep(step, error.limit / error.bytes)}`)
  }
  if (error instanceof OutOfMemoryError) {
    const again = step.checkpointed
      ? ''
      : `, or activation_checkpointing: [${Object.keys(model.stages).join(', ')}] which trades time for memory`
    return new OutOfMemoryError(`${error.message}: use a smaller batch_size or crop_size${again}`)
  }
  return error
}

/**
 * The largest batch and the largest crop that the adapter can bind, the other one being kept.
 * @param share of what the largest tensor needs that the adapter binds: tensors mostly grow with batch and area
 */
async function smallerStep({ batch, crop, plan }: PlannedStep, share: number): Promise<string> {
  const fitsBatch = (size: number) => canBind(plan({ batch: size, crop }))
  // A batch of 1 gives the batch norm of a pooled map one value per channel.
  const batchThatFits = await largestFitting(2, batch - 1, fitsBatch, Math.floor(batch * share))
  // Crops of 4 k + 1 pixels are mapped corner to corner at a quarter of their size, as the usual ones are.
  const cropOf = (k: number) => 4 * k + 1
  const [low, high] = [(smallestCrop - 1) / 4, Math.ceil((crop - 1) / 4) - 1]
  const fitsCrop = (k: number) => canBind(plan({ batch, crop: cropOf(k) }))
  const k = await largestFitting(low, high, fitsCrop, Math.floor(((crop + 3) / 4) * Math.sqrt(share)) - 1)
  const possible = [
    ...(batchThatFits === undefined ? [] : [`batch_size ${batchThatFits}`]),
    ...(k === undefined ? [] : [`crop_size ${cropOf(k)}`]),
  ]
  if (possible.length === 0) return 'use a smaller model, since no smaller batch_size or crop_size fits'
  return `use at most ${possible.join(', or at most ')}`
}
