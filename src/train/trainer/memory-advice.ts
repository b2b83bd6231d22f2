import { BindingLimitError, OutOfMemoryError } from '../../engine/device.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { UserError } from '../error.js'

/** What decides the size of a training step. */
export interface StepSize {
  readonly batch: number
  readonly crop: number
  /** Whether activations are computed again already. */
  readonly checkpointed: boolean
}

/** The error of a step that does not fit the adapter, with what to change; any other error as it is. */
export function explainFit(error: unknown, model: SegmentationModel, { batch, crop, checkpointed }: StepSize): unknown {
  if (error instanceof BindingLimitError) {
    const share = error.limit / error.bytes
    // Activations grow with the batch and with the area of the map; the largest are at a quarter of the crop, or above.
    const smaller = [
      ['batch_size', Math.floor(batch * share)],
      ['crop_size', 4 * Math.floor(model.logitSize(crop) * Math.sqrt(share)) - 3],
    ] as const
    const possible = smaller.filter(([, value]) => value >= 1).map(([key, value]) => `${key} ${value}`)
    return new UserError(`${error.message}: use at most ${possible.join(', or at most ')}`)
  }
  if (error instanceof OutOfMemoryError) {
    const again = checkpointed
      ? ''
      : `, or activation_checkpointing: [${Object.keys(model.stages).join(', ')}] which trades time for memory`
    return new OutOfMemoryError(`${error.message}: use a smaller batch_size or crop_size${again}`)
  }
  return error
}
