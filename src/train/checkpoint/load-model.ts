import type { SegmentationModel } from '../../models/segmentation.js'
import type { Config } from '../config/schema.js'
import { UserError } from '../error.js'
import { modelsOf } from '../methods/index.js'
import { describeCheckpoint, type LoadedModel } from './loaded-model.js'
import { loadWeights } from './parse.js'
import { readCheckpoint } from './read.js'

export { epochOf, openModel, showGeometry } from './loaded-model.js'

/**
 * Reads a checkpoint of either format and what it says of its model and classes; see `describeCheckpoint`.
 * @throws UserError where the file cannot be read, or was trained with other classes or dilations than configured
 */
export const readModel = (path: string, config?: Config): LoadedModel =>
  describeCheckpoint(readCheckpoint(path), path, config)

/**
 * Reads a checkpoint of a whole model for a training to start from.
 * @throws UserError where it is not of the network and the classes of the configuration, or where that has several networks
 */
export function readInit(path: string, config: Config): LoadedModel {
  if (modelsOf(config).length > 1) {
    throw new UserError(`--init: ${config.method} trains several networks: give each its weights by 'pretrained'`)
  }
  return readModel(path, config)
}

/**
 * Gives a model all of the weights that `readInit` read.
 * @returns a line that says what was loaded
 * @throws UserError where they do not fit
 */
export function loadInit(model: SegmentationModel, { path, checkpoint }: LoadedModel): string {
  loadWeights(model, checkpoint.tensors, path, checkpoint.names.nameInFile)
  return `weights: of the whole network, from ${checkpoint.note ?? path}`
}
