import { BindingLimitError, OutOfMemoryError } from '../../engine/device.js'
import { canBind, largestFitting } from '../../engine/dry-device.js'
import { UserError } from '../error.js'
import type { TrainerSettings } from './options.js'

/** What decides the size of a training step. */
export interface StepSize {
  /** Labeled images whose losses are computed at a time. */
  readonly images: number
  /** Side of the crops. */
  readonly crop: number
}

/** The step that does not fit, and how to plan the same step at another size. */
export interface PlannedStep extends StepSize {
  readonly settings: TrainerSettings
  /** Of which the sides of crops are multiples, where the model computes no others. */
  readonly multiple: number | undefined
  /** Throws a BindingLimitError where the adapter cannot bind what the step needs. */
  readonly plan: (size: StepSize) => Promise<unknown>
}

/** The smallest crop that is worth an advice. */
const smallestCrop = 33

/**
 * The error of a step that does not fit the adapter, with what to change; any other error as it is. What it advises was
 * planned.
 */
export async function explainFit(error: unknown, step: PlannedStep): Promise<unknown> {
  if (error instanceof BindingLimitError) {
    return new UserError(`${error.message}: ${await smallerStep(step, error.limit / error.bytes)}`)
  }
  if (error instanceof OutOfMemoryError) {
    const { memory } = step.settings
    const limit =
      memory === undefined
        ? 'give what the device has for it as memory, such as --memory 4GiB, and what fits is chosen'
        : `the device has less than memory ${memory}: give less`
    return new OutOfMemoryError(`${error.message}: ${limit}, or use a smaller batch_size or crop_size`)
  }
  return error
}

/**
 * The most images at a time and the largest crop that the adapter can bind, the other one being kept.
 * @param share of what the largest tensor needs that the adapter binds: tensors mostly grow with images and area
 */
async function smallerStep({ images, crop, settings, multiple, plan }: PlannedStep, share: number): Promise<string> {
  const fitsImages = (size: number) => canBind(plan({ images: size, crop }))
  // A batch of 1 gives the batch norm of a pooled map one value per channel.
  const most = await largestFitting(2, images - 1, fitsImages, Math.floor(images * share))
  // Crops of 4 k + 1 pixels are mapped corner to corner at a quarter of their size, as the usual ones are.
  const [step, rest] = multiple === undefined ? [4, 1] : [multiple, 0]
  const cropOf = (k: number) => step * k + rest
  const [low, high] = [Math.ceil((smallestCrop - rest) / step), Math.ceil((crop - rest) / step) - 1]
  const fitsCrop = (k: number) => canBind(plan({ images, crop: cropOf(k) }))
  const guess = Math.floor(((crop + step - rest) / step) * Math.sqrt(share)) - 1
  const k = await largestFitting(low, high, fitsCrop, guess)
  const possible = [
    ...(most === undefined ? [] : [`${settings.micro_batch === undefined ? 'batch_size' : 'micro_batch'} ${most}`]),
    ...(k === undefined ? [] : [`crop_size ${cropOf(k)}`]),
  ]
  if (possible.length === 0) return 'use a smaller model, since no smaller batch_size or crop_size fits'
  return `use at most ${possible.join(', or at most ')}`
}
