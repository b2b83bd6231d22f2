import type { Store } from '#dist/engine/store.js'
import { augseg } from '#dist/train/methods/augseg.js'
import { recordedMixing } from '../augseg.js'
import type { RecordedStep, Recording } from './recording.js'

const teacherPrefix = 'teacher/'

const isStatistic = (name: string): boolean => name.endsWith('running_mean') || name.endsWith('running_var')

/** Distance of two models over the variables that are running statistics, or over all others. */
async function distance(a: Store, b: Store, ofStatistics: boolean): Promise<number> {
  const [left, right] = [await a.readAll(), await b.readAll()]
  let sum = 0
  for (const [name, values] of left) {
    if (isStatistic(name) !== ofStatistics) continue
    const others = right.get(name)
    for (let i = 0; i < values.length; i++) sum += ((values[i] ?? 0) - (others?.[i] ?? Number.NaN)) ** 2
  }
  return Math.sqrt(sum)
}

/** Of each unlabeled image, behind a semi-supervised step. */
async function confidenceOf({ trainer }: RecordedStep): Promise<readonly number[]> {
  const { confidence } = await trainer.details(['confidence'], 'semi-supervised')
  return Array.from(confidence ?? [])
}

/** AugSeg: a student and its mean teacher. A warm-up is recorded with the losses that it lacks as 0. */
export const augsegRecording: Recording = {
  method: 'augseg',
  matches: ({ method }) => method === 'augseg',
  settings: ({ sup_only_epoch, ema_decay, unsupervised }) => ({
    augseg: augseg.keys.augseg.parse({ ...(unsupervised as object), sup_only_epoch, ema_decay }),
  }),
  draws: ({ file }) => recordedMixing((name) => file.floats(name)),
  nameInCheckpoint: (name) =>
    name.startsWith(teacherPrefix) ? `stores/teacher/${name.slice(teacherPrefix.length)}` : name,
  isLeftOut: (name) => name.startsWith(teacherPrefix) && name.endsWith('num_batches_tracked'),
  async quantities(step, { metrics }) {
    const { run } = step.trainer
    const [teacher, student] = run.deployed.map(({ model }) => model.store) as [Store, Store]
    const distances = {
      ema_dist: await distance(teacher, student, false),
      ema_dist_stats: await distance(teacher, student, true),
    }
    const { loss_u, mask_ratio } = metrics
    if (loss_u === undefined) return { ...distances, loss_u: 0, pseudo_ratio: 0 }
    return { ...distances, pseudo_ratio: mask_ratio ?? Number.NaN, confidence: await confidenceOf(step) }
  },
}
