import { dirname, join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { chooseModel, createModel, type ModelSpec } from '#dist/models/index.js'
import { loadWeights } from '#dist/train/checkpoint/read.js'
import { UserError } from '#dist/train/error.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { readJson, TensorFile } from './files.js'
import { type RecordedSegFormer, segFormerConfig } from './recorded-segformer.js'
import type { CaseResult } from './report.js'

/** A network of several that are trained together, as `config.json` lists them. */
export interface Member {
  readonly kind: string
  readonly nclass: number
  readonly [key: string]: unknown
}

/** Backbones by the kind of a member. */
const backbones: Readonly<Record<string, string>> = { cnn: 'resnet50', dct: 'resnet50_dct' }

/**
 * The model of a member.
 * @throws UserError for a kind that there is no model of
 */
export function memberModel({ kind, nclass, ...widths }: Member): ModelSpec {
  if (kind === 'segformer') {
    return { architecture: kind, config: segFormerConfig({ nclass, ...widths } as unknown as RecordedSegFormer) }
  }
  const backbone = backbones[kind]
  if (backbone === undefined) throw new UserError(`there is no model of the kind '${kind}'`)
  const given = Object.entries(widths).filter(([, value]) => value !== null)
  return chooseModel({ backbone, nclass, model: Object.fromEntries(given) })
}

interface Counts {
  readonly intersection: readonly number[]
  readonly union: readonly number[]
  readonly miou: number
  /** Of so many pixels the two best scores are so close that float32 may choose the other one. */
  readonly 'pixels_with_margin_below_1e-4': number
}

/** The evaluation of a member alone. */
export interface MemberCase {
  /** Its run. */
  readonly key: string
  /** Path of the weights of all members, `mK.<name>`. */
  readonly weights: string
  /** From 1. */
  readonly member: number
  readonly crop_size: number
  readonly whole: Counts
  readonly sliding: Counts
}

export const isMemberCase = (row: object): row is MemberCase => 'member' in row

const differing = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  a.length === b.length ? Array.from(a).filter((value, i) => value !== b[i]).length : Number.POSITIVE_INFINITY

const modes = { whole: 'original', sliding: 'sliding_window' } as const

/** Checks a member's predictions of the file's image, whole and by windows. */
export async function checkMember(
  device: Device,
  folder: string,
  { key, weights: path, member, crop_size: window, ...expected }: MemberCase,
  file: TensorFile,
): Promise<CaseResult[]> {
  const weightsPath = join(folder, path)
  const { members } = readJson<{ members: readonly Member[] }>(join(dirname(weightsPath), 'config.json'))
  const own = members[member - 1]
  const title = `${key}/m${member}`
  if (!own) throw new UserError(`${title}: there is no such member`)
  const store = new Store(device, 'model')
  const model = createModel(store, memberModel(own))
  const prefix = `m${member}.`
  const all = [...new TensorFile(weightsPath).tensors].filter(([name]) => name.startsWith(prefix))
  loadWeights(model, new Map(all.map(([name, tensor]) => [name.slice(prefix.length), tensor])), weightsPath)
  const [height = 0, width = 0] = file.get('image').shape
  const image = { data: file.bytes('image'), width, height }
  const label = { data: file.bytes('target'), width, height }
  const results: CaseResult[] = []
  for (const kind of ['whole', 'sliding'] as const) {
    const evaluator = new Evaluator(device, model, { mode: modes[kind], window })
    const prediction = await evaluator.add({ image, label }, true)
    const scores = await evaluator.scores()
    evaluator.destroy()
    const { intersection, union, miou, 'pixels_with_margin_below_1e-4': close } = expected[kind]
    const name = `${title}_${kind}`
    const error = differing(prediction?.label ?? [], file.bytes(`${name}_argmax`))
    results.push({ name: `${name}_argmax`, error, tolerance: close })
    const countsOf = { intersection, union }
    for (const [what, counts] of Object.entries(countsOf)) {
      const own = what === 'union' ? scores.union : scores.intersection
      const errors = counts.map((count, i) => Math.abs(count - (own[i] ?? 0)))
      results.push({ name: `${name}/${what}`, error: Math.max(...errors), tolerance: close })
    }
    if (close === 0) results.push({ name: `${name}/miou`, error: Math.abs(miou - scores.miou), tolerance: 1e-6 })
  }
  store.destroy()
  return results
}
