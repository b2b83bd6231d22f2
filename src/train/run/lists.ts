import type { Config } from '../config/config.js'
import { readList, type Sample } from '../data/dataset.js'
import { UserError } from '../error.js'

/** The images of a run. */
export interface Lists {
  readonly labeled: Sample[]
  readonly unlabeled: Sample[]
  readonly validation: Sample[]
}

/**
 * Reads the lists of a run and checks that they can feed it.
 *
 * @param mustExist false where a run goes on: a file that became unreadable since it began does not end it
 */
export function readLists(config: Config, mustExist: boolean): Lists {
  const { labeled_id_path: labeled, unlabeled_id_path: unlabeled, val_id_path: validation, data_root: root } = config
  if (!labeled) throw new UserError('no list of labeled images: give --labeled-id-path')
  if (config.method === 'supervised' && config.batch_size < 2) {
    throw new UserError('batch_size 1 gives the batch norm of the pooled map one value per channel: use at least 2')
  }
  if (!validation) throw new UserError('no list of validation images: give --val-id-path')
  if (!unlabeled && config.method !== 'supervised') {
    throw new UserError(
      `method ${config.method} needs unlabeled images: give --unlabeled-id-path, or --method supervised`,
    )
  }
  return {
    // A supervised run without unlabeled images repeats nothing, so its own list must fill a batch.
    labeled: readList(labeled, root, 'required', unlabeled ? 1 : config.batch_size, mustExist),
    unlabeled: unlabeled ? readList(unlabeled, root, 'unused', config.batch_size, mustExist) : [],
    validation: readList(validation, root, 'required', 1, mustExist),
  }
}
