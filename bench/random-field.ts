import { elements } from '#dist/engine/shape.js'
import { type Batch, type BatchLayout, type FieldData, type FieldSpec, fieldSpec } from '#dist/train/data/batch.js'

interface Draws {
  integer(below: number): number
}

/** Random values of a field of a batch, as its view may hold them: classes below `nclass`, no padding. */
export function randomField(field: FieldSpec, count: number, crop: number, nclass: number, random: Draws): FieldData {
  const { shape, dtype } = fieldSpec(field, count, crop, crop)
  if (dtype === 'f32') return new Float32Array(elements(shape)).map(() => random.integer(257) - 128)
  const pixels = { weak: 256, strong: 256, intensity: 256, distorted: 256, cutmix: 256, coefficients: 0 }
  const below = { ...pixels, label: nclass, padding: 1, cutmixBox: 2, gridBox: 2, spreadBox: 2 }[field.view]
  return new Uint8Array(elements(shape)).map(() => random.integer(below))
}

/** Random values of all fields of a batch of `count` images in each stream. */
export const randomBatch = (layout: BatchLayout, count: number, crop: number, nclass: number, random: Draws): Batch => {
  const fields = layout.flatMap((stream) => Object.entries(stream.fields))
  return Object.fromEntries(fields.map(([name, field]) => [name, randomField(field, count, crop, nclass, random)]))
}
