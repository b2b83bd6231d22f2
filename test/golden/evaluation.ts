import { dirname, join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { assign, read } from '#dist/engine/graph.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { confusionMatrix } from '#dist/kernels/metrics.js'
import { createModel } from '#dist/models/index.js'
import { loadWeights } from '#dist/train/checkpoint/read.js'
import { UserError } from '#dist/train/error.js'
import { Evaluator, type Scores, scoresOf } from '#dist/train/evaluation/evaluator.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import { checkMember, isMemberCase, type MemberCase } from './members.js'
import { modelOf, type RecordedModel } from './model-choice.js'
import { checkNetwork, checkSizeTables, isNetworkCase, type NetworkCase, type SizeTables } from './networks.js'
import { type CaseResult, largestDifference } from './report.js'

interface Counts {
  readonly intersection: readonly number[]
  readonly union: readonly number[]
  readonly iou?: readonly number[]
  readonly miou: number
}

interface ModelCase {
  readonly key: string
  readonly crop_size: number
  readonly nclass: number
  readonly height: number
  readonly width: number
  readonly sliding: Counts
  readonly whole: Counts
}

interface GoldenEvaluation extends SizeTables {
  /** Path of the weights, beside the configuration of their training. */
  readonly weights: string
  readonly models: readonly (ModelCase | MemberCase | NetworkCase)[]
  readonly pairs?: readonly (Counts & { readonly key: string; readonly nclass: number })[]
  readonly accumulated_over_pairs_by_nclass?: Readonly<Record<string, Counts>>
}

const toleranceOf = { sliding: 1e-5, whole: 5e-5 }
const iouTolerance = 1e-6

function compareCounts(name: string, actual: Scores, expected: Counts): CaseResult[] {
  const results = [
    {
      name: `${name}/intersection`,
      error: largestDifference(actual.intersection, expected.intersection),
      tolerance: 0,
    },
    { name: `${name}/union`, error: largestDifference(actual.union, expected.union), tolerance: 0 },
    { name: `${name}/miou`, error: largestDifference([actual.miou], [expected.miou]), tolerance: iouTolerance },
  ]
  if (expected.iou) {
    results.push({ name: `${name}/iou`, error: largestDifference(actual.iou, expected.iou), tolerance: iouTolerance })
  }
  return results
}

/** Checks `eval.json` and `eval.safetensors` of a folder. */
export async function checkEvaluation(device: Device, folder: string): Promise<CaseResult[]> {
  const golden = readJson<GoldenEvaluation>(join(folder, 'eval.json'))
  const file = new TensorFile(join(folder, 'eval.safetensors'))
  const members = golden.models.filter(isMemberCase)
  const results: CaseResult[] = []
  for (const member of members) {
    try {
      results.push(...(await checkMember(device, folder, member, file)))
    } catch (error) {
      // The other members are still worth checking.
      if (!(error instanceof UserError)) throw error
      const name = `${member.key}/m${member.member}: ${error.message}`
      results.push({ name, error: Number.POSITIVE_INFINITY, tolerance: 0 })
    }
  }
  const networks = golden.models.filter(isNetworkCase)
  for (const network of networks) results.push(...(await checkNetwork(device, folder, network, file)))
  if (members.length + networks.length < golden.models.length) {
    results.push(...(await checkModels(device, folder, golden, file)))
  }
  return [...results, ...checkSizeTables(golden), ...(await checkPairs(device, golden, file))]
}

async function checkModels(
  device: Device,
  folder: string,
  golden: GoldenEvaluation,
  file: TensorFile,
): Promise<CaseResult[]> {
  const weightsPath = join(folder, golden.weights)
  const configPath = join(dirname(weightsPath), 'config.json')
  const store = new Store(device, 'model')
  const model = createModel(store, modelOf(readJson<RecordedModel>(configPath), configPath))
  const weights = [...new TensorFile(weightsPath).tensors].filter(([name]) => !name.startsWith('momentum/'))
  loadWeights(model, weights, weightsPath)

  const results: CaseResult[] = []
  for (const row of golden.models) {
    if (isMemberCase(row) || isNetworkCase(row)) continue
    const { key, crop_size, height, width, ...expected } = row
    const image = { data: file.bytes(`${key}/image`), width, height }
    const label = { data: file.bytes(`${key}/target`), width, height }
    for (const kind of ['sliding', 'whole'] as const) {
      const mode = kind === 'sliding' ? ('sliding_window' as const) : ('original' as const)
      const evaluator = new Evaluator(device, model, { mode, window: crop_size, scores: true })
      const { label: predicted, scores = new Float32Array() } = await evaluator.predict(image)
      const scoresName = `${key}/${kind === 'sliding' ? 'sliding_scores' : 'whole_logits'}`
      const { shape } = file.get(scoresName)
      const expectedScores = channelsLast(file.floats(scoresName), [1, ...shape])
      results.push(
        { name: scoresName, error: largestDifference(scores, expectedScores), tolerance: toleranceOf[kind] },
        {
          name: `${key}/${kind}_argmax`,
          error: largestDifference(predicted, file.bytes(`${key}/${kind}_argmax`)),
          tolerance: 0,
        },
        ...compareCounts(`${key}/${kind}`, await evaluator.evaluate([{ image, label }]), expected[kind]),
      )
      evaluator.destroy()
    }
  }
  store.destroy()
  return results
}

/** Counts of recorded pairs of prediction and target, one by one and accumulated. */
async function checkPairs(device: Device, golden: GoldenEvaluation, file: TensorFile): Promise<CaseResult[]> {
  const results: CaseResult[] = []
  const totals = new Map<number, Uint32Array>()
  for (const { key, nclass, ...expected } of golden.pairs ?? []) {
    const { shape } = file.get(`${key}/target`)
    const store = new Store(device, 'counts')
    const counts = store.declare('counts', spec([nclass, nclass], 'u32'))
    const program = await compile(device, { pred: spec(shape, 'u32'), target: spec(shape, 'u8') }, (t) => {
      assign(counts, confusionMatrix(read(counts), t.pred, t.target))
      return {}
    })
    program.run({ pred: Uint32Array.from(file.bytes(`${key}/pred`)), target: file.bytes(`${key}/target`) })
    const values = await store.read('counts')
    results.push(...compareCounts(key, scoresOf(values, nclass), expected))
    const total = totals.get(nclass) ?? new Uint32Array(nclass * nclass)
    for (const [i, value] of values.entries()) total[i] = (total[i] ?? 0) + value
    totals.set(nclass, total)
    program.destroy()
    store.destroy()
  }
  for (const [nclass, counts] of Object.entries(golden.accumulated_over_pairs_by_nclass ?? {})) {
    const actual = scoresOf(totals.get(Number(nclass)) ?? [], Number(nclass))
    results.push(...compareCounts(`accumulated/${nclass}`, actual, counts))
  }
  return results
}
