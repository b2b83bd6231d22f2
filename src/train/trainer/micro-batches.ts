import { elements, type Spec } from '../../engine/shape.js'
import type { FieldData } from '../data/batch.js'
import { methodOf } from '../methods/index.js'
import type { TrainerOptions, TrainerSettings } from './options.js'

/**
 * Throws `fail(what)` where the method cannot train with the batches, or with the parts in which they are taken.
 * @param ranks that train together, over whose batches batch norm takes its statistics
 */
export function checkBatches(settings: TrainerSettings, fail: (what: string) => Error, ranks = 1): void {
  const method = methodOf(settings.method)
  // The configuration was checked by a schema with the keys of all methods.
  const together = settings.sync_batchnorm === false ? 1 : ranks
  const check = (key: string, images: number) =>
    method.check?.({ ...settings, batch_size: together * images } as never, (what) => fail(`${key} ${images}: ${what}`))
  const { batch_size: batch, micro_batch: images } = settings
  check('batch_size', batch)
  if (images === undefined) return
  if (method.wholeBatch !== undefined && images < batch) {
    throw fail(`micro_batch ${images}: ${method.wholeBatch}: leave it out`)
  }
  check('micro_batch', images)
}

/** The values that `micro_batch` may have, the largest first, which is the whole batch. */
export function microBatches(settings: TrainerSettings): number[] {
  const { batch_size: batch } = settings
  const divisors = Array.from({ length: batch }, (_, i) => batch - i).filter((images) => batch % images === 0)
  return divisors.filter((images) => canTrain({ ...settings, micro_batch: images }))
}

function canTrain(settings: TrainerSettings): boolean {
  try {
    checkBatches(settings, (what) => new Error(what))
    return true
  } catch {
    return false
  }
}

/** Parts in which a step takes its batch. Throws where they would not be equal. */
export function partsOf({ micro_batch: images }: TrainerSettings, { labeled, unlabeled }: TrainerOptions): number {
  if (images === undefined) return 1
  const parts = labeled / images
  if (Number.isInteger(parts) && Number.isInteger(unlabeled / parts)) return parts
  throw new Error(
    `micro_batch ${images} does not divide a batch of ${labeled} labeled and ${unlabeled} unlabeled images`,
  )
}

/** The elements of a part of a field; `shape` is that of the part. */
export function partOf(field: FieldData | undefined, { shape }: Spec, part: number): FieldData {
  const length = elements(shape)
  return field?.subarray(part * length, (part + 1) * length) ?? new Uint8Array()
}
