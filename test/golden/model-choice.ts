import { chooseModel, type ModelChoice, type ModelSpec } from '#dist/models/index.js'
import { UserError } from '#dist/train/error.js'

/** How the recorded files describe a model: its backbone may stand among its widths. */
export type RecordedModel = Omit<ModelChoice, 'nclass' | 'activation_checkpointing'> & { readonly nclass?: number }

/**
 * What a recorded configuration says of its model, under the keys of a configuration file.
 * @param origin names the file in the error
 * @throws UserError where it gives no number of classes
 */
export function recordedModel({ model = {}, ...config }: RecordedModel, origin: string): ModelChoice {
  const { backbone, ...widths } = model
  const nclass = config.nclass ?? model.nclass
  if (nclass === undefined) throw new UserError(`${origin} gives no nclass`)
  const named = typeof backbone === 'string' ? { backbone } : {}
  return { ...config, ...named, nclass, model: widths }
}

/** The model of a recorded configuration, see `recordedModel`. */
export const modelOf = (config: RecordedModel, origin: string): ModelSpec => chooseModel(recordedModel(config, origin))
