import type { Config } from '../config/load.js'
import type { EvaluationOptions } from '../evaluation/evaluator.js'

/** How a training evaluates its models. */
export const evaluationOf = (config: Config, amp: boolean): EvaluationOptions => ({
  mode: config.eval_mode,
  window: config.crop_size,
  ignoreIndex: config.ignore_index,
  amp,
})
