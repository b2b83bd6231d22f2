import type { EvaluationOptions } from './evaluator.js'
import { windowStep } from './inference.js'

/** In words, how a score comes about: what has to be the same for two scores to be compared. */
export function protocolOf({
  mode,
  window = 0,
  flip,
  scales = [1],
  ignoreIndex = 255,
  amp,
}: EvaluationOptions): string {
  const whole = 'whole images at their own size'
  const crop = `the ${window}x${window} pixels in the middle of each image, or less where it is smaller`
  const windows = `windows of ${window} in steps of ${windowStep(window)}, cut at the border, probabilities added`
  const seen = { original: whole, center_crop: crop, sliding_window: windows }[mode]
  const plain = scales.length === 1 && scales[0] === 1 && !flip
  const passes = plain
    ? ''
    : `; mean of the probabilities at scale ${scales.join(', ')}${flip ? ', each also mirrored' : ''}`
  return `${seen}${passes}; label ${ignoreIndex} ignored${amp ? '; in half precision' : ''}`
}
