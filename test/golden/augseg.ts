import type { Spec } from '#dist/engine/shape.js'
import { augsegLearningRate, teacherDecay } from '#dist/train/methods/augseg.js'
import { labelsWithConfidence, thresholdedLoss } from '#dist/train/methods/augseg-losses.js'
import { boxRange, labelInjection, mixingInputs, mixingValues } from '#dist/train/methods/label-injection.js'
import type { Draws } from '#dist/train/methods/method.js'
import { type GoldenCase, Params, type Rules } from './case.js'
import type { TensorFile } from './files.js'
import type { CaseResult } from './report.js'

/** The random choices of a batch, by the names of the files, as AugSeg takes them. */
export function recordedMixing(values: (name: string) => ArrayLike<number>): Draws {
  return {
    mix: values('mix_rand'),
    permutation: values('perm'),
    needed_confidence: values('inject_rand'),
    label_lambda: values('lam_l'),
    label_centers: values('center_l'),
    patch_lambda: values('lam_u'),
    patch_centers: values('center_u'),
  }
}

/** What the host hands to the program of a case. */
export function mixingInputsOf(
  row: GoldenCase,
  file: TensorFile,
): Record<string, { spec: Spec; data: Float32Array | Uint32Array }> {
  const { shape } = file.get(`${row.id}/in/label_u`)
  const [images = 0, height = 0, width = 0] = shape
  const p = new Params(row)
  const value = (name: string): ArrayLike<number> => {
    if (name === 'mix_rand') return [0]
    return name.startsWith('lam') ? [p.number(name)] : file.floats(`${row.id}/in/${name}`)
  }
  const values = mixingValues(recordedMixing(value), [height, width], 1)
  const specs = Object.entries(mixingInputs(images, [height, width]))
  return Object.fromEntries(
    specs.map(([name, each]) => [name, { spec: each, data: values[name] ?? new Float32Array() }]),
  )
}

export const augsegRules: Rules = {
  confidence: (t) => {
    const { confidence, label, ofImages } = labelsWithConfidence(t('logits'))
    return { confidence: ofImages, label, max_prob: confidence }
  },
  inject_cutmix: (t) => {
    const names = Object.keys(mixingInputs(1, [1, 1]))
    const { mix } = labelInjection(Object.fromEntries(names.map((name) => [name, t(name)])), t('confidence'))
    return {
      img: mix(t('img_u'), t('img_l')),
      label: mix(t('label_u'), t('label_l')),
      conf: mix(t('conf_u'), 1),
    }
  },
  unsup_loss: (t, p) => {
    const labels = { label: t('target'), confidence: t('conf') }
    return { ...thresholdedLoss(t('logits'), labels, { threshold: p.number('thresh'), ignoreIndex: 255 }) }
  },
}

/** Tables of AugSeg beside the cases of `ops.json`. */
export interface AugSegTables {
  readonly box_table: readonly {
    readonly size: number
    readonly lam: number
    readonly centers: readonly (readonly [number, number])[]
    readonly boxes: readonly (readonly [number, number, number, number])[]
  }[]
  readonly lr_table: readonly {
    readonly name: string
    readonly base_lr: number
    readonly iters_per_epoch: number
    readonly epochs: number
    readonly lr_at: Readonly<Record<string, number>>
  }[]
  readonly ema_table: readonly {
    readonly iters_per_epoch: number
    readonly sup_only_epoch: number
    readonly ema_decay: number
    readonly decay_at: Readonly<Record<string, number>>
  }[]
}

/** Rounding of float64, relative to values up to 1. */
const rounding = 1e-15

/** Largest errors of the tables. */
export function checkAugSegTables({ box_table, lr_table, ema_table }: AugSegTables): CaseResult[] {
  const largest = (name: string, differences: readonly number[], tolerance: number): CaseResult => ({
    name,
    error: Math.max(...differences.map(Math.abs)),
    tolerance,
  })
  return [
    largest(
      'box_table',
      box_table.flatMap(({ size, lam, centers, boxes }) =>
        centers.flatMap(([row, column], i) => {
          const [[top, bottom], [left, right]] = [boxRange(size, lam, row), boxRange(size, lam, column)]
          const box = boxes[i] ?? []
          return [top, left, bottom, right].map((at, k) => at - (box[k] ?? Number.NaN))
        }),
      ),
      0,
    ),
    ...lr_table.map(({ name, base_lr: base, iters_per_epoch: each, epochs, lr_at: rates }) =>
      largest(
        `lr_table: ${name}`,
        Object.entries(rates).map(([at, rate]) => augsegLearningRate(base, Number(at), epochs * each) - rate),
        rounding,
      ),
    ),
    ...ema_table.map(({ iters_per_epoch: each, decay_at: decays, ...settings }) =>
      largest(
        `ema_table: ${each} steps, ${settings.sup_only_epoch} of warm-up, ${settings.ema_decay}`,
        Object.entries(decays).map(([at, decay]) => teacherDecay(Number(at), each, settings) - decay),
        rounding,
      ),
    ),
  ]
}
