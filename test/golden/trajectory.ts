import { existsSync, readdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { stateDict, torchShape, toTorchLayout } from '#dist/models/weights.js'
import { loadWeights } from '#dist/train/checkpoint/read.js'
import { type Batch, type BatchLayout, channelsOf } from '#dist/train/data/batch.js'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, toFloat32, writeSafetensors } from '#dist/train/io/safetensors.js'
import type { Draws } from '#dist/train/methods/method.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import type { TrainerSettings } from '#dist/train/trainer/options.js'
import type { StepResult, Trainer } from '#dist/train/trainer/trainer.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import { modelOf, type RecordedModel } from './model-choice.js'
import { type CaseResult, differenceOf, largestDifference } from './report.js'

/** `config.json`: the training's settings, and what replaces its validation. */
export interface TrajectoryConfig extends Omit<TrainerSettings, 'method' | 'ignore_index'>, RecordedModel {
  readonly method?: string
  readonly iters_per_epoch: number
  readonly miou_after_epoch?: readonly number[]
}

interface ExpectedIteration {
  readonly lambda?: number
  readonly lr_used?: readonly number[]
  readonly snapshot_pushed?: boolean
  readonly tol?: Readonly<Record<string, number>>
  readonly [quantity: string]: unknown
}

interface Expected {
  readonly snapshot_at_epoch_start?: readonly boolean[]
  readonly iterations: readonly ExpectedIteration[]
  readonly final?: Readonly<Record<string, { readonly atol: number }>>
}

/** The batch of an `iter_NNN` file, whose tensors have the names of the method's fields. */
export function batchOf(file: TensorFile, layout: BatchLayout): Batch {
  const fields = layout.flatMap((stream) => Object.entries(stream.fields))
  const data = fields.map(([name, field]) => {
    const bytes = file.bytes(name)
    return [name, channelsOf(field) === 3 ? channelsLast(bytes, file.get(name).shape) : bytes] as const
  })
  return Object.fromEntries(data)
}

/** The recorded random choices of a step: all tensors of floats and indices. */
const drawsOf = (file: TensorFile): Draws =>
  Object.fromEntries(
    [...file.tensors].flatMap(([name, { dtype }]) => (dtype === 'U8' ? [] : [[name, file.floats(name)] as const])),
  )

/** Whether the model is kept at the start of each epoch: after a new best, from `base_only_epoch` on. */
function newBests(config: TrajectoryConfig, expected: Expected | undefined): boolean[] {
  const results = config.miou_after_epoch
  if (!results) return [...(expected?.snapshot_at_epoch_start ?? [])]
  let best = 0
  const after = results.map((miou) => {
    const better = miou > best
    best = Math.max(best, miou)
    return better
  })
  return [false, ...after]
}

export interface Trajectory {
  readonly model: SegmentationModel
  readonly trainer: Trainer
  readonly rows: StepResult[]
  readonly checks: { readonly iteration: number; readonly results: CaseResult[] }[]
  /** Milliseconds of each step. */
  readonly times: number[]
}

const exact = 1e-9

/**
 * In half precision a loss may differ by 1 % of its recorded value. Those of unlabeled images may by 1 % of 0.5 where they
 * are smaller, the floor of the recorded tolerances: rounding moves single pixels across the confidence threshold, and
 * each is a larger share of a small loss than 1 %.
 */
const halfTolerance = (name: string, recorded: number): number =>
  0.01 * Math.max(Math.abs(recorded), name === 'total_loss' || name === 'loss_x' ? 0 : 0.5)

function compare(row: StepResult, pushed: boolean, expected: ExpectedIteration, amp: boolean): CaseResult[] {
  const results: CaseResult[] = []
  for (const [name, recorded] of Object.entries(expected.tol ?? {})) {
    if (amp && !name.includes('loss')) continue
    const wanted = expected[name] as number
    const error = differenceOf(row.metrics[name] ?? Number.NaN, wanted)
    results.push({ name, error, tolerance: amp ? halfTolerance(name, wanted) : recorded })
  }
  if (expected.lr_used) {
    results.push({ name: 'lr_used', error: largestDifference(row.lr_used, expected.lr_used), tolerance: exact })
  }
  if (expected.snapshot_pushed !== undefined) {
    results.push({ name: 'snapshot_pushed', error: Number(pushed !== expected.snapshot_pushed), tolerance: 0 })
  }
  return results
}

/** Names of the recorded steps in their order. Throws a UserError where there is none, or one in between is missing. */
function stepFiles(folder: string): string[] {
  const numberOf = (name: string) => Number(name.match(/^iter_(\d+)\.safetensors$/)?.[1])
  const steps = readdirSync(folder).filter((name) => numberOf(name) >= 0)
  steps.sort((a, b) => numberOf(a) - numberOf(b))
  const missing = steps.length === 0 ? 0 : steps.findIndex((name, i) => numberOf(name) !== i)
  if (missing >= 0) throw new UserError(`${folder} has no iter_*.safetensors of step ${missing}`)
  return steps
}

export interface RunOptions {
  /** Replaces settings of `config.json`. */
  readonly settings?: Partial<TrajectoryConfig> | undefined
  /** Compute in half precision; then the losses are compared more loosely, and mask ratios and gradients not at all. */
  readonly amp?: boolean
  readonly onStep?: ((iteration: number, steps: number, results: CaseResult[]) => void) | undefined
}

/**
 * Runs the recorded steps of a trajectory's folder, comparing each with what is expected. In half precision a step whose
 * gradients overflow changes nothing, which no recorded step did: then all begin again with a smaller loss scale.
 */
export async function runTrajectory(
  device: Device,
  folder: string,
  { settings, amp = false, onStep }: RunOptions = {},
): Promise<Trajectory> {
  let scale: number | undefined
  for (;;) {
    const run = await runSteps(device, folder, { settings, amp, scale, onStep: amp ? undefined : onStep })
    const { skipped_steps = 0, loss_scale = 0 } = run.rows.at(-1) ?? {}
    if (skipped_steps === 0) {
      if (amp) for (const { iteration, results } of run.checks) onStep?.(iteration, run.checks.length, results)
      return run
    }
    run.trainer.destroy()
    run.model.store.destroy()
    if (loss_scale < 1) throw new UserError(`${folder}: gradients are not finite in half precision at any loss scale`)
    scale = loss_scale / 16
  }
}

/** @param options `scale`: the loss scale of the first step; the steps end with the first one that is skipped */
async function runSteps(
  device: Device,
  folder: string,
  { settings = {}, amp = false, scale, onStep }: RunOptions & { readonly scale: number | undefined },
): Promise<Trajectory> {
  const config = { ...readJson<TrajectoryConfig>(join(folder, 'config.json')), ...settings }
  const expectedPath = join(folder, 'expected.json')
  const expected = existsSync(expectedPath) ? readJson<Expected>(expectedPath) : undefined
  const steps = stepFiles(folder)
  if (expected && steps.length !== expected.iterations.length) {
    throw new UserError(`${folder} has ${steps.length} steps, but ${expected.iterations.length} are expected`)
  }

  const model = createModel(new Store(device, 'model'), modelOf(config, join(folder, 'config.json')))
  loadWeights(model, new TensorFile(join(folder, 'init.safetensors')).tensors, join(folder, 'init.safetensors'))

  const first = new TensorFile(join(folder, steps[0] ?? ''))
  const [labeled = 0, , height = 0, width = 0] = first.get('img_x').shape
  const method = config.method ?? 'prevmatch'
  const unlabeled = first.has('img_u_w') ? (first.get('img_u_w').shape[0] ?? 0) : 0
  const trainer = await createTrainer(
    device,
    model,
    { ...config, seed: 0, batch_size: labeled, method, ignore_index: config.criterion.kwargs.ignore_index ?? 255 },
    { iterationsPerEpoch: config.iters_per_epoch, labeled, unlabeled, height, width, gradNorm: true, amp },
  )
  if (scale !== undefined) trainer.lossScale?.restore({ scale, goodSteps: 0, skippedSteps: 0 })
  const bests = newBests(config, expected)
  const rows: StepResult[] = []
  const checks: Trajectory['checks'] = []
  const times: number[] = []
  for (const [iteration, name] of steps.entries()) {
    const file = new TensorFile(join(folder, name))
    const starts = iteration % config.iters_per_epoch === 0
    const pushed = starts && trainer.beginEpoch(bests[trainer.epoch] ?? false).length > 0
    const batch = batchOf(file, trainer.layout)
    const draws = drawsOf(file)
    const started = performance.now()
    const row = await trainer.step(batch, draws)
    times.push(performance.now() - started)
    rows.push(row)
    if ((row.skipped_steps ?? 0) > 0) break
    const wanted = expected?.iterations[iteration]
    const results = wanted ? compare(row, pushed, wanted, amp) : []
    checks.push({ iteration, results })
    onStep?.(iteration, steps.length, results)
  }
  return { model, trainer, rows, checks, times }
}

/** Weights, running statistics and momentum after the last step, under PyTorch's names and in its layout. */
export async function finalTensors({ model, trainer }: Trajectory): Promise<Map<string, FileTensor>> {
  const tensors = new Map<string, FileTensor>(await stateDict(model))
  for (const [name, data] of await trainer.momentum.readAll()) {
    const { shape } = trainer.momentum.get(name).spec
    if (!(data instanceof Float32Array)) continue
    tensors.set(`momentum/${name}`, { dtype: 'F32', shape: torchShape(shape), data: toTorchLayout(shape, data) })
  }
  return tensors
}

/** Compares the last values with `final.safetensors`, by the tolerances of `expected.json`. */
export function checkFinal(folder: string, actual: ReadonlyMap<string, FileTensor>): CaseResult[] {
  const path = join(folder, 'final.safetensors')
  if (!existsSync(path) || !existsSync(join(folder, 'expected.json'))) return []
  const { final = {} } = readJson<Expected>(join(folder, 'expected.json'))
  const file = new TensorFile(path)
  return [...file.tensors].map(([name, tensor]) => {
    const found = actual.get(name)
    const error = found ? largestDifference(toFloat32(found), toFloat32(tensor)) : Number.POSITIVE_INFINITY
    return { name, error, tolerance: final[name]?.atol ?? 0 }
  })
}

const quantities = [
  'total_loss',
  'loss_x',
  'loss_s1',
  'loss_s2',
  'loss_fp',
  'loss_s1_prev',
  'loss_s2_prev',
  'loss_fp_prev',
  'mask_ratio',
  'mask_ratio_prev',
  'grad_norm',
]

/** Writes `<name>.json` and `<name>.safetensors` into a folder. */
export async function writeResults(
  folder: string,
  name: string,
  rows: readonly StepResult[],
  tensors: ReadonlyMap<string, FileTensor>,
): Promise<void> {
  const iterations = rows.map(({ metrics, lr_used }) => {
    return { ...Object.fromEntries(quantities.map((quantity) => [quantity, metrics[quantity]])), lr_used }
  })
  await writeFile(join(folder, `${name}.json`), `${JSON.stringify({ iterations }, undefined, 1)}\n`)
  writeSafetensors(join(folder, `${name}.safetensors`), tensors)
}
