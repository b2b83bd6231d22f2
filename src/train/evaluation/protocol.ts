import type { SegmentationModel } from '../../models/segmentation.js'
import type { EvaluationOptions } from './evaluator.js'
import { isPlain, movesWindowsBack } from './inference.js'
import { stepOf } from './model-input.js'

/**
 * In words, how a score comes about: what has to be the same for two scores to be compared.
 * @param tiled how many of the images were too large to be computed at once
 * @param model the part of the model that this depends on
 */
export function protocolOf(
  options: EvaluationOptions,
  tiled = 0,
  model: Pick<SegmentationModel, 'input' | 'multiple'> = {},
): string {
  const { mode, window = 0, flip, scales = [1], ignoreIndex = 255, amp } = options
  const { multiple } = model
  const resized = multiple === undefined ? '' : `, resized to multiples of ${multiple}`
  const whole = multiple === undefined ? 'whole images at their own size' : `whole images${resized}`
  const crop = `the ${window}x${window} pixels in the middle of each image, or less where it is smaller${resized}`
  const fitted = movesWindowsBack(model) ? 'moved back' : 'cut'
  const steps = `steps of ${stepOf(model.input, window)}`
  const windows = `windows of ${window} in ${steps}, ${fitted} at the border, probabilities added`
  const seen = { original: whole, center_crop: crop, sliding_window: windows }[mode]
  const passes = isPlain(options)
    ? ''
    : `; mean of the probabilities at scale ${scales.join(', ')}${flip ? ', each also mirrored' : ''}`
  const tiles = tiled === 0 ? '' : `; ${tiled} too large for that, in tiles that overlap by a quarter`
  return `${seen}${tiles}${passes}; label ${ignoreIndex} ignored${amp ? '; in half precision' : ''}`
}
