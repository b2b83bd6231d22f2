import { augment, type SampleDraws } from '#dist/train/data/augment.js'
import { bytesOf, type FieldSpec, type Geometry } from '#dist/train/data/batch.js'
import type { Image } from '#dist/train/data/pixels.js'

/** The fields of one image as the loader fills them, [S, S, 3] or [S, S] each. */
export function augmented(
  image: Image,
  label: Image | null,
  size: number,
  fields: Readonly<Record<string, FieldSpec>>,
  draws: SampleDraws,
  ignore?: number,
  geometry?: Geometry,
): Record<string, Uint8Array> {
  const out = Object.fromEntries(
    Object.entries(fields).map(([name, field]) => [name, new Uint8Array(bytesOf(field, size)).fill(9)]),
  )
  augment(image, label, size, fields, draws, out, ignore, geometry)
  return out
}

/** Fields of a labeled image, and of an unlabeled one with two strong views. */
export const labeledFields = { img: { view: 'weak' }, mask: { view: 'label' } } as const
export const unlabeledFields = {
  img_w: { view: 'weak' },
  img_s1: { view: 'strong', draw: 0 },
  img_s2: { view: 'strong', draw: 1 },
  ignore_mask: { view: 'padding' },
  box1: { view: 'cutmixBox', draw: 0 },
  box2: { view: 'cutmixBox', draw: 1 },
} as const
