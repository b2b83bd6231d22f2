import type { Config } from '../config/load.js'
import { takes } from '../data/batch.js'
import { readList, type Sample } from '../data/dataset.js'
import { UserError } from '../error.js'
import { methodOf } from '../methods/index.js'
import { checkBatches } from '../trainer/micro-batches.js'

/** The images of a run. */
export interface Lists {
  readonly labeled: Sample[]
  readonly unlabeled: Sample[]
  readonly validation: Sample[]
}

/**
 * Reads the lists of a run and checks that they can feed it.
 *
 * @param ranks that train together
 * @param mustExist false where a run is resumed: a file that became unreadable since it began does not end it
 */
export function readLists(config: Config, mustExist: boolean, ranks = 1): Lists {
  const { labeled_id_path: labeled, unlabeled_id_path: unlabeled, val_id_path: validation, data_root: root } = config
  if (!labeled) throw new UserError('no list of labeled images: give --labeled-id-path')
  const method = methodOf(config.method)
  checkBatches(config, (what) => new UserError(what), ranks)
  if (!validation) throw new UserError('no list of validation images: give --val-id-path')
  if (!unlabeled && takes(method.layout(config), 'unlabeled')) {
    throw new UserError(
      `method ${method.name} needs unlabeled images: give --unlabeled-id-path, or --method supervised`,
    )
  }
  return {
    // A run without unlabeled images repeats nothing, so its own list must fill a batch.
    labeled: readList(labeled, root, 'required', unlabeled ? 1 : config.batch_size, mustExist),
    unlabeled: unlabeled ? readList(unlabeled, root, 'unused', config.batch_size, mustExist) : [],
    validation: readList(validation, root, 'required', 1, mustExist),
  }
}
