// Evaluation of students and teachers by UniMatch V2, and the sizes that it goes by.
import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { fittingSize } from '#dist/models/segmentation.js'
import { loadWeights } from '#dist/train/checkpoint/read.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { windowStarts, windowStep } from '#dist/train/evaluation/inference.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import { modelOf, type RecordedModel } from './model-choice.js'
import { type CaseResult, largestDifference } from './report.js'

/** The student or the teacher of a trajectory, on one image. */
export interface NetworkCase {
  /** The trajectory's folder without `-like`. */
  readonly key: string
  readonly network: 'student' | 'teacher'
  readonly mode: 'original' | 'sliding_window'
  /** Side of the windows. */
  readonly grid: number
  readonly intersection: readonly number[]
  readonly union: readonly number[]
  readonly miou: number
  readonly 'pixels_with_margin_below_1e-4': number
  /** Of the scores. */
  readonly atol: number
}

/** Sizes to which images are resized, and starts of windows. */
export interface SizeTables {
  readonly resize_table?: readonly { readonly size: number; readonly resized: number }[]
  readonly window_table?: readonly {
    readonly size: number
    readonly grid: number
    readonly starts: readonly number[]
  }[]
}

export const isNetworkCase = (row: object): row is NetworkCase => 'network' in row

const iouTolerance = 1e-6
const patch = 14

export async function checkNetwork(
  device: Device,
  folder: string,
  row: NetworkCase,
  file: TensorFile,
): Promise<CaseResult[]> {
  const { key, network, mode, grid } = row
  const trajectory = join(folder, `${key}-like`)
  const { model: widths, ...rest } = readJson<RecordedModel>(join(trajectory, 'config.json'))
  const recorded = { ...rest, model: { architecture: 'dpt', ...widths } }
  const store = new Store(device, 'model')
  const model = createModel(store, modelOf(recorded, trajectory))
  const path = join(trajectory, 'final.safetensors')
  const prefix = network === 'teacher' ? 'teacher/' : ''
  const own = [...new TensorFile(path).tensors].flatMap(([name, tensor]) => {
    const rest = name.slice(prefix.length)
    return name.startsWith(prefix) && !rest.includes('/') ? [[rest, tensor] as const] : []
  })
  loadWeights(model, own, path)
  const { shape } = file.get(`${key}/image`)
  const [height = 0, width = 0] = shape
  const image = { data: file.bytes(`${key}/image`), width, height }
  const label = { data: file.bytes(`${key}/target`), width, height }
  const evaluator = new Evaluator(device, model, { mode, window: grid, scores: true })
  const { label: predicted, scores = new Float32Array() } = await evaluator.predict(image)
  const counted = await evaluator.evaluate([{ image, label }])
  evaluator.destroy()
  store.destroy()
  const wanted = file.bytes(`${key}/${network}/argmax`)
  const differing = wanted.filter((value, i) => value !== predicted[i]).length
  // A pixel of two almost equal scores may be counted for either class.
  const unsure = row['pixels_with_margin_below_1e-4']
  const name = `${key}/${network}`
  const exact = unsure === 0
  const results = [
    { name: `${name}/argmax, pixels that differ`, error: differing, tolerance: unsure },
    {
      name: `${name}/intersection`,
      error: largestDifference(counted.intersection, row.intersection),
      tolerance: unsure,
    },
    { name: `${name}/union`, error: largestDifference(counted.union, row.union), tolerance: unsure },
    ...(exact
      ? [{ name: `${name}/miou`, error: largestDifference([counted.miou], [row.miou]), tolerance: iouTolerance }]
      : []),
  ]
  if (!file.has(`${name}/scores`)) return results
  const expected = file.get(`${name}/scores`)
  const error = largestDifference(scores, channelsLast(file.floats(`${name}/scores`), [1, ...expected.shape]))
  return [...results, { name: `${name}/scores`, error, tolerance: row.atol }]
}

export const checkSizeTables = ({ resize_table = [], window_table = [] }: SizeTables): CaseResult[] => [
  ...resize_table.map(({ size, resized }) => {
    const found = fittingSize({ multiple: patch }, [size, size])
    return { name: `${size} pixels resized`, error: largestDifference(found, [resized, resized]), tolerance: 0 }
  }),
  ...window_table.map(({ size, grid, starts }) => {
    const found = windowStarts(size, grid, windowStep(grid), true)
    return { name: `windows of ${grid} in ${size}`, error: largestDifference(found, starts), tolerance: 0 }
  }),
]
