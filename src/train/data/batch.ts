/**
 * Channels of each field of a batch. All are bytes: pictures [N, S, S, 3] in RGB, not normalised, label maps, masks and
 * boxes [N, S, S].
 */
const CHANNELS = {
  img_x: 3,
  mask_x: 1,
  img_u_w: 3,
  img_u_s1: 3,
  img_u_s2: 3,
  ignore_mask: 1,
  cutmix_box1: 1,
  cutmix_box2: 1,
  img_u_w_mix: 3,
  img_u_s1_mix: 3,
  img_u_s2_mix: 3,
  ignore_mask_mix: 1,
} as const

export type BatchField = keyof typeof CHANNELS

/**
 * One step's data. Labels hold `ignore_index` in the padding; ignore masks are 255 in the padding and 0 elsewhere; boxes
 * are 1 inside and 0 outside. Without unlabeled data only `img_x` and `mask_x` have elements.
 */
export type Batch = { readonly [Field in BatchField]: Uint8Array }

const fieldNames = Object.keys(CHANNELS) as BatchField[]
const isLabeled = (field: BatchField) => field === 'img_x' || field === 'mask_x'

/** Bytes of one picture's part of a field. */
export function pictureBytes(field: BatchField, size: number): number {
  return size * size * CHANNELS[field]
}

/** Bytes of a batch. */
export function batchBytes(batchSize: number, size: number, unlabeled: boolean): number {
  const fields = fieldNames.filter((field) => unlabeled || isLabeled(field))
  return fields.reduce((sum, field) => sum + batchSize * pictureBytes(field, size), 0)
}

/** The fields of a batch that lie one after another in `buffer`. */
export function batchViews(buffer: SharedArrayBuffer, batchSize: number, size: number, unlabeled: boolean): Batch {
  let offset = 0
  const views = fieldNames.map((field) => {
    const length = unlabeled || isLabeled(field) ? batchSize * pictureBytes(field, size) : 0
    const view = new Uint8Array(buffer, offset, length)
    offset += length
    return [field, view] as const
  })
  return Object.fromEntries(views) as Batch
}
