import * as augment from '#dist/train/data/augment.js'
import { hueShift } from '#dist/train/data/color.js'
import {
  changeIntensity,
  type IntensityDraw,
  type IntensityName,
  intensityOperations,
} from '#dist/train/data/intensity.js'
import type { Image } from '#dist/train/data/pixels.js'
import { augmented } from '../support/augmented.js'
import type { CaseResult } from './report.js'

type RecordedOperation = readonly [name: IntensityName, parameter: number | null]

/** Parameters of a case of AugSeg's augmentations. */
export interface IntensityParams {
  readonly value: number
  readonly ops: readonly RecordedOperation[]
  readonly rule: 'long_side' | 'scale'
  readonly long_side: number
  readonly base_h: number
  readonly base_w: number
  readonly scale: number
  readonly flip: boolean
  readonly crop_x: number
  readonly crop_y: number
  readonly crop: number
}

/** What is recorded beside the cases of AugSeg. */
export interface IntensityTables {
  readonly pad_rgb: readonly [number, number, number]
  readonly pad_label: number
  readonly enhance_factor_table: readonly { readonly r: number; readonly factor: number }[]
  readonly posterize_table: readonly { readonly r: number; readonly bits: number }[]
  readonly solarize_table: readonly { readonly r: number; readonly threshold: number }[]
  readonly hue_table: readonly {
    readonly r: number
    readonly sign_draw: number
    readonly factor: number
    readonly uint8_added_to_h: number
  }[]
  readonly long_side_table: readonly {
    readonly w: number
    readonly h: number
    readonly long_side: number
    readonly out: readonly [number, number]
  }[]
  readonly scale_table: readonly {
    readonly base_h: number
    readonly base_w: number
    readonly scale: number
    readonly out: readonly [number, number]
  }[]
}

const drawsOf = (operations: readonly RecordedOperation[]): IntensityDraw[] =>
  operations.map(([name, parameter]) => ({ name, parameter: parameter ?? 0 }))

function changed({ data, width }: Image, draws: readonly IntensityDraw[]): Uint8Array {
  const copy = new Uint8Array(data)
  changeIntensity(copy, width, draws)
  return copy
}

/** Fields of a labeled image and of an unlabeled one. */
const fields = {
  train_l: { img: { view: 'weak' }, mask: { view: 'label' } },
  train_u: { img_w: { view: 'weak' }, img_s: { view: 'intensity', draw: 0, most: 3 } },
} as const

/** Outputs of a case: an operation, several of them (`strong`), or all of an image (`train_l`, `train_u`). */
export function runIntensityCase(
  op: string,
  p: IntensityParams,
  input: (name: string) => Image,
  { pad_rgb: padding, pad_label: ignore }: IntensityTables,
): Record<string, Uint8Array> {
  const image = input('img')
  if (op === 'strong') return { img: changed(image, drawsOf(p.ops)) }
  if (op in intensityOperations) {
    return { img: changed(image, [{ name: op as IntensityName, parameter: p.value }]) }
  }
  if (op !== 'train_l' && op !== 'train_u') throw new Error(`augment.json has an unknown operation '${op}'`)
  const resize = p.rule === 'scale' ? augment.scaledSize([p.base_h, p.base_w], p.scale) : { longSide: p.long_side }
  const intensity = op === 'train_u' ? [drawsOf(p.ops)] : []
  const draws = { ...resize, cropX: p.crop_x, cropY: p.crop_y, flip: p.flip, strong: [], intensity }
  const label = op === 'train_l' ? input('mask') : null
  return augmented(image, label, p.crop, fields[op], draws, ignore, { flipsFirst: true, padding })
}

/** Gives the recorded values for the draws from [0, 1), in their order. */
const recorded = (...values: number[]) => ({
  uniform: (low = 0, high = 1) => low + (high - low) * (values.shift() ?? Number.NaN),
  integer: () => Number.NaN,
})

/** Largest errors of the tables: what draws become, and sizes. */
export function checkIntensityTables(tables: IntensityTables): CaseResult[] {
  const { posterize, solarize, hue, contrast, brightness, color, sharpness } = intensityOperations
  const largest = (name: string, errors: readonly number[], tolerance = 0): CaseResult => ({
    name,
    error: Math.max(...errors.map(Math.abs)),
    tolerance,
  })
  // In float64 there and here.
  const rounding = 1e-15
  const difference = ({ width, height }: { width: number; height: number }, [w, h]: readonly [number, number]) =>
    Math.max(Math.abs(width - w), Math.abs(height - h))
  return [
    ...Object.entries({ contrast, brightness, color, sharpness }).map(([name, { draw }]) =>
      largest(
        `enhance_factor_table/${name}`,
        tables.enhance_factor_table.map(({ r, factor }) => draw(recorded(r)) - factor),
        rounding,
      ),
    ),
    largest(
      'posterize_table',
      tables.posterize_table.map(({ r, bits }) => posterize.draw(recorded(r)) - bits),
    ),
    largest(
      'solarize_table',
      tables.solarize_table.map(({ r, threshold }) => solarize.draw(recorded(r)) - threshold),
    ),
    largest(
      'hue_table/factor',
      tables.hue_table.map(({ r, sign_draw: sign, factor }) => hue.draw(recorded(r, sign)) - factor),
      rounding,
    ),
    largest(
      'hue_table/byte',
      tables.hue_table.map((row) => hueShift(row.factor) - row.uint8_added_to_h),
    ),
    largest(
      'long_side_table',
      tables.long_side_table.map((row) => difference(augment.targetSize(row.w, row.h, row.long_side), row.out)),
    ),
    largest(
      'scale_table',
      tables.scale_table.map((row) => difference(augment.scaledSize([row.base_h, row.base_w], row.scale), row.out)),
    ),
  ]
}
