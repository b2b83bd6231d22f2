import type { Config } from '../config/schema.js'
import { describeCheckpoint, type LoadedModel } from './loaded-model.js'
import { readCheckpoint } from './read.js'

export { epochOf, openModel, showGeometry } from './loaded-model.js'

/**
 * Reads a checkpoint of either format and what it says of its model and classes; see `describeCheckpoint`.
 * @throws UserError where the file cannot be read, or was trained with other classes or dilations than configured
 */
export const readModel = (path: string, config?: Config): LoadedModel =>
  describeCheckpoint(readCheckpoint(path), path, config)
