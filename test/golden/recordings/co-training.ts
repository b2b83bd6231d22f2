import { dropPathRates } from '#dist/models/layers.js'
import type { Batch } from '#dist/train/data/batch.js'
import { dctCoefficients, gridSize } from '#dist/train/data/dct.js'
import type { Draws } from '#dist/train/methods/method.js'
import { channelsLast, type TensorFile } from '../files.js'
import { blockNames, type RecordedSegFormer, segFormerConfig } from '../recorded-segformer.js'
import type { Quantities, RecordedConfig, RecordedStep, Recording } from './recording.js'

/** A member of `config.json`: a DeepLabV3+ under the keys of a configuration, or a SegFormer under its own. */
type RecordedMember =
  | ({ readonly kind: 'segformer' } & RecordedSegFormer)
  | ({ readonly kind: 'cnn' | 'dct'; readonly nclass: number; readonly multi_grid: unknown } & Readonly<
      Record<string, unknown>
    >)

const membersOf = ({ members }: RecordedConfig) => members as readonly RecordedMember[]

/** As a configuration file has it. */
function memberOf(recorded: RecordedMember): object {
  if (recorded.kind === 'segformer') {
    const { nclass: _, ...model } = segFormerConfig(recorded)
    return { kind: recorded.kind, model }
  }
  const { kind, nclass: _, multi_grid, ...model } = recorded
  return { kind, model: { ...model, ...(multi_grid === null ? {} : { multi_grid }) } }
}

/** Coefficients of images u8 [N, 3, S, S]. */
function coefficientsOf(file: TensorFile, name: string): Float32Array {
  const { shape } = file.get(name)
  const [count = 0, , height = 0, width = 0] = shape
  const pixels = channelsLast(file.bytes(name), shape)
  const bytes = pixels.length / count
  const all = Array.from({ length: count }, (_, i) =>
    dctCoefficients({ data: pixels.subarray(i * bytes, (i + 1) * bytes), width, height }),
  )
  return Float32Array.from(all.flatMap((one) => [...one]))
}

/** Boxes of cells on the pixels of images of a side: each takes the nearest cell below. */
function spread(cells: Uint8Array, count: number, size: number): Uint8Array {
  const grid = gridSize(size)
  const cellOf = (pixel: number) => Math.floor(Math.fround(pixel * Math.fround(grid / size)))
  return Uint8Array.from({ length: count * size * size }, (_, i) => {
    const [image, pixel] = [Math.floor(i / (size * size)), i % (size * size)]
    return cells[(image * grid + cellOf(Math.floor(pixel / size))) * grid + cellOf(pixel % size)] ?? 0
  })
}

function batchOf({ file }: RecordedStep): Batch {
  const image = (name: string) => channelsLast(file.bytes(name), file.get(name).shape)
  const cells = file.bytes('cutmix_box_dct')
  const [count = 0, , size = 0] = file.get('ignore_mask').shape
  return {
    img_x: image('img_x'),
    dct_x: coefficientsOf(file, 'img_x'),
    mask_x: file.bytes('mask_x'),
    img_u_w: image('img_u_w'),
    img_u_s: image('img_u_s'),
    dct_u_w: coefficientsOf(file, 'img_u_w'),
    dct_u_s: coefficientsOf(file, 'img_u_s_dct'),
    cutmix_box_dct: cells,
    ignore_mask: file.bytes('ignore_mask'),
    cutmix_box: spread(cells, count, size),
  }
}

/** What a SegFormer drops, from flags of 0 and 1: of each branch [samples], of the head [samples, channels]. */
function noiseOf({ file, trainer }: RecordedStep, member: RecordedMember, index: number): [string, number[]][] {
  if (member.kind !== 'segformer') return []
  const config = segFormerConfig(member)
  const rates = dropPathRates(config.depths, config.drop_path_rate)
  const label = trainer.models[index]?.store.label
  return ['xw', 's'].flatMap((pass, call) => {
    const [path, channels] = [`m${index + 1}_path_${pass}`, `m${index + 1}_chan_${pass}`]
    const flags = file.bytes(path)
    const samples = file.get(path).shape[2] ?? 0
    const multipliers = (bytes: Uint8Array, rate: number) => Array.from(bytes, (flag) => flag / (1 - rate))
    const key = (place: string) => `noise/${label}/${call}/${place}`
    const branches = blockNames(config.depths).flatMap((block, i) =>
      ['attn', 'ffn'].map((branch, k): [string, number[]] => {
        const start = (2 * i + k) * samples
        return [key(`${block}.${branch}`), multipliers(flags.subarray(start, start + samples), rates[i] ?? 0)]
      }),
    )
    return [...branches, [key('head'), multipliers(file.bytes(channels), config.head_dropout)]]
  })
}

function drawsOf(step: RecordedStep): Draws {
  const noise = membersOf(step.config).flatMap((member, i) => noiseOf(step, member, i))
  return { index: step.file.floats('index'), ...Object.fromEntries(noise) }
}

/** Diverse Co-training: members are numbered from 1 on. */
export const coTrainingRecording: Recording = {
  method: 'co-training',
  matches: ({ members }) => members !== undefined,
  settings: (config) => ({
    nclass: membersOf(config)[0]?.nclass,
    members: membersOf(config).map(memberOf),
    unlabeled_weight: config.uw,
  }),
  batch: batchOf,
  draws: drawsOf,
  nameInCheckpoint(name, config) {
    const [, momentum = '', number = '', rest = ''] = /^(momentum\/)?m(\d)\.(.*)$/.exec(name) ?? []
    const index = Number(number) - 1
    const model = index === 0 ? '' : `models/${membersOf(config)[index]?.kind}/`
    return `${model}${momentum}${rest}`
  },
  async quantities({ config, trainer }, { metrics }) {
    const kinds = membersOf(config).map(({ kind }) => kind)
    const own = kinds.flatMap((kind, i): [string, number | undefined][] => [
      [`loss_x${i + 1}`, metrics[`loss_x_${kind}`]],
      [`loss_s${i + 1}`, metrics[`loss_u_${kind}`]],
      ...kinds.map((teacher, j): [string, number | undefined] => [
        `loss_s${i + 1}${j + 1}`,
        metrics[`loss_u_${kind}_from_${teacher}`],
      ]),
      [`mask_ratio${i + 1}`, metrics[`mask_ratio_${kind}`]],
      [`grad_norm${i + 1}`, metrics[`grad_norm/${trainer.models[i]?.store.label}`]],
    ])
    const named = [...own, ['agree_pairs', metrics.agreement_pairs], ['agree_all', metrics.agreement_all]] as const
    return Object.fromEntries(named.filter(([, value]) => value !== undefined)) as Quantities
  },
}
