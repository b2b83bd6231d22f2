import type { Store } from '#dist/engine/store.js'
import { parametersOf, type SegmentationModel } from '#dist/models/segmentation.js'
import type { Draws } from '#dist/train/methods/method.js'
import { batchOf } from '../trajectory.js'
import type { RecordedConfig, RecordedRun, RecordedStep, Recording } from './recording.js'

interface RecordedOptimizer {
  readonly type: 'SGD' | 'AdamW'
  readonly suffix: string
  readonly drop_path: boolean
  readonly lr: number
  readonly lr_multi: number
  readonly weight_decay: number
  readonly poly_power: number
  readonly betas: readonly [number, number]
  readonly eps: number
  readonly warmup_iters: number
  readonly warmup_ratio: number
  readonly max_iters: number
}

interface DualTeacherConfig extends RecordedConfig {
  readonly runs: Readonly<Record<string, RecordedOptimizer>>
  readonly model: { readonly blocks: readonly number[]; readonly nclass: number }
  readonly drop_path_rate: number
  readonly ic_weight: number
  readonly ema_decay: number
}

const optimizerOf = (config: RecordedConfig, { label }: RecordedRun): RecordedOptimizer => {
  const found = (config as DualTeacherConfig).runs[label]
  if (!found) throw new Error(`there is no run '${label}'`)
  return found
}

/** Bottlenecks of a residual network in their order. */
const blocksOf = ({ model }: DualTeacherConfig): string[] =>
  model.blocks.flatMap((count, layer) => Array.from({ length: count }, (_, i) => `layer${layer + 1}.${i}`))

/** Multipliers of the student's residual branches, by pass and block. */
function noiseOf({ file, config, run }: RecordedStep): Draws {
  if (!optimizerOf(config, run).drop_path) return {}
  const blocks = blocksOf(config as DualTeacherConfig)
  const draws = [1, 2].flatMap((pass) => {
    const values = file.floats(`drop_path_${pass}`)
    const samples = values.length / blocks.length
    return blocks.map((name, k) => {
      return [`noise/model/${pass - 1}/${name}`, values.subarray(k * samples, (k + 1) * samples)] as const
    })
  })
  return Object.fromEntries(draws)
}

/** Priorities of the classes by which those that were drawn are chosen: they are half of those that are present. */
function prioritiesOf({ file, config, run }: RecordedStep): number[] {
  const { nclass } = (config as DualTeacherConfig).model
  const { suffix } = optimizerOf(config, run)
  const drawn = Array.from(file.floats(`classmix_classes${suffix}`))
  const images = file.floats('classmix_shuffle').length
  const each = drawn.length / images
  return Array.from({ length: images }, (_, image) => {
    const chosen = drawn.slice(image * each, (image + 1) * each)
    return Array.from({ length: nclass }, (_, k) => k + (chosen.includes(k) ? nclass : 0))
  }).flat()
}

/** Euclidean norm of the differences of parameters. */
async function distance(a: SegmentationModel, b: SegmentationModel): Promise<number> {
  const names = parametersOf(a).map(({ name }) => name)
  const [left, right] = [await a.store.readAll(names), await b.store.readAll(names)]
  let sum = 0
  for (const [name, values] of left) {
    const others = right.get(name)
    for (let i = 0; i < values.length; i++) sum += ((values[i] ?? 0) - (others?.[i] ?? Number.NaN)) ** 2
  }
  return Math.sqrt(sum)
}

/** Euclidean norm of all running statistics. */
async function statisticsNorm(store: Store): Promise<number> {
  const names = store.all().flatMap(({ name }) => (/running_(mean|var)$/.test(name) ? [name] : []))
  let sum = 0
  for (const values of (await store.readAll(names)).values()) for (const value of values) sum += value ** 2
  return Math.sqrt(sum)
}

/** Dual Teacher: runs with different optimizers in one folder. */
export const dualTeacherRecording: Recording = {
  method: 'dual-teacher',
  matches: ({ method }) => method === 'dual-teacher',
  runs: (config) =>
    Object.entries((config as DualTeacherConfig).runs).map(([label, { suffix }]) => ({ label, suffix })),
  settings(config, run) {
    const { model, drop_path_rate, ic_weight, ema_decay } = config as DualTeacherConfig
    const { lr, lr_multi, weight_decay, drop_path, ...own } = optimizerOf(config, run)
    const common = {
      lr,
      lr_multi,
      weight_decay,
      dual_teacher: { ema_decay, consistency_weight: ic_weight },
      criterion: { name: 'CELoss', kwargs: {} },
      model: { ...model, drop_path_rate: drop_path ? drop_path_rate : 0 },
    }
    if (own.type === 'SGD') return common
    const { betas, eps, poly_power: power, warmup_iters, warmup_ratio, max_iters: iterations } = own
    return {
      ...common,
      optimizer: { name: 'adamw', betas, eps, norm_decay: 0 },
      lr_schedule: { power, warmup_iterations: warmup_iters, warmup_ratio, iterations, set: 'before' },
    }
  },
  batch({ file }, layout) {
    if (file.has('img_u_aug')) return batchOf(file, layout)
    // Steps with ClassMix do not read it.
    const recorded = layout.map(({ fields: { img_u_aug: _, ...fields }, ...stream }) => ({ ...stream, fields }))
    return { ...batchOf(file, recorded), img_u_aug: new Uint8Array(file.bytes('img_u').length) }
  },
  draws(step) {
    const { file } = step
    const floats = (name: string) => file.floats(name)
    const strong = Object.fromEntries(
      ['strong_order', 'strong_factors', 'strong_gray_u'].map((name) => [name, floats(name)] as const),
    )
    const mixing = file.has('cut_perm')
      ? {
          cut_perm: floats('cut_perm'),
          cut_boxes: floats('cut_boxes'),
          cut_flip: Array.from(floats('aug_flip_u'), (u) => Number(u > 0.5)),
        }
      : { classmix_shuffle: floats('classmix_shuffle'), class_priority: prioritiesOf(step) }
    return { ...strong, ...mixing, ...noiseOf(step) }
  },
  nameInCheckpoint: (name) => (/^teacher[12]\//.test(name) ? `stores/${name}` : name),
  async quantities({ trainer }) {
    const [student, first, second] = trainer.models
    if (!student || !first || !second) throw new Error('Dual Teacher has three models')
    return {
      dist_t1: await distance(first, student),
      dist_t2: await distance(second, student),
      bn_s: await statisticsNorm(student.store),
      bn_t1: await statisticsNorm(first.store),
      bn_t2: await statisticsNorm(second.store),
    }
  },
  learningRates({ lr_used: [backbone, head] }, config, run) {
    return optimizerOf(config, run).type === 'AdamW' ? [backbone, backbone, head] : [backbone, head]
  },
}
