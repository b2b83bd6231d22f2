import { existsSync, readdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import type { Exchange } from '#dist/kernels/exchange.js'
import { createModel } from '#dist/models/index.js'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { fromTorchLayout, stateDict, torchShape, toTorchLayout } from '#dist/models/weights.js'
import { type Batch, type BatchLayout, channelsOf } from '#dist/train/data/batch.js'
import { UserError } from '#dist/train/error.js'
import { type FileTensor, toFloat32, writeSafetensors } from '#dist/train/io/safetensors.js'
import { firstModelOf } from '#dist/train/methods/index.js'
import type { Draws } from '#dist/train/methods/method.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import type { TrainerSettings } from '#dist/train/trainer/options.js'
import type { StepResult } from '#dist/train/trainer/step-result.js'
import type { Trainer } from '#dist/train/trainer/trainer.js'
import { channelsLast, readJson, TensorFile } from './files.js'
import { type RecordedModel, recordedModel } from './model-choice.js'
import { recordingOf } from './recordings/index.js'
import {
  checkpointPrefix,
  type Quantities,
  type RecordedConfig,
  type RecordedRun,
  type Recording,
} from './recordings/recording.js'
import { type CaseResult, largestDifference } from './report.js'

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
  /** What each of several ranks computes by itself. */
  readonly ranks?: readonly ExpectedIteration[]
  readonly tol?: Readonly<Record<string, number>>
  readonly [quantity: string]: unknown
}

interface Expected {
  readonly snapshot_at_epoch_start?: readonly boolean[]
  readonly iterations: readonly ExpectedIteration[]
  /** `atol_query_value`: of the input projection of attention without its keys, whose bias has no gradient. */
  readonly final?: Readonly<Record<string, { readonly atol: number; readonly atol_query_value?: number }>>
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

const onlyRun: RecordedRun = { label: '', suffix: '' }

/** The trainings that a folder holds. */
export function runsOf(folder: string): readonly RecordedRun[] {
  const path = join(folder, 'config.json')
  const config = readJson<RecordedConfig>(path)
  return recordingOf(config, path).runs?.(config, folder) ?? [onlyRun]
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
  readonly run: RecordedRun
  readonly recording: Recording
  readonly config: RecordedConfig
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

const list = (value: unknown): readonly number[] => (Array.isArray(value) ? value : [value as number])

function compare(
  quantities: Quantities,
  rates: readonly number[],
  pushed: boolean,
  expected: ExpectedIteration,
  amp: boolean,
): CaseResult[] {
  const results: CaseResult[] = []
  for (const [name, recorded] of Object.entries(expected.tol ?? {})) {
    if (amp && !name.includes('loss')) continue
    const wanted = list(expected[name])
    const error = largestDifference(list(quantities[name] ?? Number.NaN), wanted)
    results.push({ name, error, tolerance: amp ? halfTolerance(name, wanted[0] ?? 0) : recorded })
  }
  if (expected.lr_used) {
    results.push({ name: 'lr_used', error: largestDifference(rates, expected.lr_used), tolerance: exact })
  }
  if (expected.snapshot_pushed !== undefined) {
    results.push({ name: 'snapshot_pushed', error: Number(pushed !== expected.snapshot_pushed), tolerance: 0 })
  }
  return results
}

/** What is expected of a rank's step: its own quantities, and those of all ranks. */
function ofRank(step: ExpectedIteration | undefined, rank: number | undefined): ExpectedIteration | undefined {
  const own = rank === undefined ? undefined : step?.ranks?.[rank]
  return own ? { ...step, ...own, tol: { ...step?.tol, ...own.tol } } : step
}

/**
 * Names of the recorded steps in their order, of a rank where there are several. Throws a UserError where there is none, or
 * one in between is missing.
 */
function stepFiles(folder: string, rank: number | undefined): string[] {
  const pattern =
    rank === undefined ? /^iter_(\d+)\.safetensors$/ : new RegExp(`^iter_(\\d+)_rank${rank}\\.safetensors$`)
  const numberOf = (name: string) => Number(name.match(pattern)?.[1])
  const steps = readdirSync(folder).filter((name) => numberOf(name) >= 0)
  steps.sort((a, b) => numberOf(a) - numberOf(b))
  const missing = steps.length === 0 ? 0 : steps.findIndex((name, i) => numberOf(name) !== i)
  if (missing >= 0) throw new UserError(`${folder} has no iter_*.safetensors of step ${missing}`)
  return steps
}

export interface RunOptions {
  /** One of `runsOf` the folder. Default: the first. */
  readonly run?: RecordedRun | undefined
  /** Replaces settings of `config.json`. */
  readonly settings?: Partial<TrajectoryConfig> | undefined
  /** Compute in half precision; then the losses are compared more loosely, and mask ratios and gradients not at all. */
  readonly amp?: boolean
  /** Which of several ranks this is, and how they reach one another. */
  readonly ranks?: { readonly rank: number; readonly exchange: Exchange } | undefined
  readonly onStep?: ((iteration: number, steps: number, results: CaseResult[]) => void) | undefined
}

/**
 * Runs the recorded steps of a trajectory's folder, comparing each with what is expected. In half precision a step whose
 * gradients overflow changes nothing, which no recorded step did: then all begin again with a smaller loss scale.
 */
export async function runTrajectory(
  device: Device,
  folder: string,
  { run: recorded = runsOf(folder)[0] ?? onlyRun, settings, amp = false, ranks, onStep }: RunOptions = {},
): Promise<Trajectory> {
  let scale: number | undefined
  for (;;) {
    const run = await runSteps(device, folder, recorded, {
      settings,
      amp,
      scale,
      ranks,
      onStep: amp ? undefined : onStep,
    })
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

/** Gives the models of a trainer, and what its optimizer keeps, the values of `init.safetensors`. */
function loadInit(trainer: Trainer, path: string, nameOf: (name: string) => string): void {
  const { tensors } = new TensorFile(path)
  const unused = new Set(tensors.keys())
  const named = new Map([...tensors].map(([name, tensor]) => [nameOf(name), { name, tensor }] as const))
  for (const model of trainer.models) {
    const own = checkpointPrefix(trainer, model)
    // A teacher that the file lacks is a copy of the first model.
    const prefix = [...named.keys()].some((name) => name.startsWith(own)) ? own : ''
    for (const { name, spec } of model.store.all()) {
      const found = named.get(prefix + name)
      if (!found) throw new UserError(`${path} has no tensor '${prefix}${name}'`)
      model.store.write(name, fromTorchLayout(spec.shape, toFloat32(found.tensor)))
      unused.delete(found.name)
    }
    for (const counter of model.batchesTracked.keys()) {
      const found = named.get(prefix + counter)
      model.batchesTracked.set(counter, found ? Number(found.tensor.data[0] ?? 0) : 0)
      if (found) unused.delete(found.name)
    }
  }
  for (const { prefix, store } of trainer.savedStores) {
    for (const { name, spec } of store.all()) {
      const found = named.get(prefix + name)
      if (!found || !unused.delete(found.name)) continue
      store.write(name, fromTorchLayout(spec.shape, toFloat32(found.tensor)))
    }
  }
  if (unused.size > 0) throw new UserError(`${path} has '${[...unused][0]}', which no model of the method has`)
}

/** @param options `scale`: the loss scale of the first step; the steps end with the first one that is skipped */
async function runSteps(
  device: Device,
  folder: string,
  run: RecordedRun,
  { settings = {}, amp = false, scale, ranks, onStep }: RunOptions & { readonly scale: number | undefined },
): Promise<Trajectory> {
  const configPath = join(folder, 'config.json')
  const inFile = readJson<RecordedConfig>(configPath)
  const recording = recordingOf(inFile, configPath)
  const { method } = recording
  const merged = { method, ...inFile, ...recording.settings?.(inFile, run), ...settings } as unknown as TrajectoryConfig
  const expectedPath = join(folder, `expected${run.suffix}.json`)
  const expected = existsSync(expectedPath) ? readJson<Expected>(expectedPath) : undefined
  const steps = stepFiles(folder, ranks?.rank).slice(0, run.steps)
  if (expected && steps.length !== expected.iterations.length) {
    throw new UserError(`${folder} has ${steps.length} steps, but ${expected.iterations.length} are expected`)
  }

  const first = new TensorFile(join(folder, steps[0] ?? ''))
  const [labeled = 0, , height = 0, width = 0] = first.get('img_x').shape
  const unlabeledField = ['img_u_w', 'img_u'].find((name) => first.has(name))
  const unlabeled = unlabeledField === undefined ? 0 : (first.get(unlabeledField).shape[0] ?? 0)
  const { criterion = { name: 'CELoss', kwargs: {} } } = merged
  const ignore_index = criterion.kwargs.ignore_index ?? 255
  const config = {
    ...merged,
    ...recordedModel(merged, configPath),
    criterion,
    seed: 0,
    batch_size: labeled,
    ignore_index,
  }
  const trained = { ...config, method: config.method ?? method }
  const model = createModel(new Store(device, 'model'), firstModelOf(trained))
  const sizes = { labeled, unlabeled, height, width }
  const rest = { iterationsPerEpoch: config.iters_per_epoch, gradNorm: true, amp, exchange: ranks?.exchange }
  const trainer = await createTrainer(device, model, trained, { ...sizes, ...rest })
  const nameOf = (name: string) => recording.nameInCheckpoint?.(name, inFile) ?? name
  loadInit(trainer, join(folder, 'init.safetensors'), nameOf)
  if (scale !== undefined) trainer.lossScale?.restore({ scale, goodSteps: 0, skippedSteps: 0 })
  trainer.iteration = recording.firstIteration?.(inFile) ?? 0
  trainer.updates = trainer.iteration
  const bests = newBests(config, expected)
  const rows: StepResult[] = []
  const checks: Trajectory['checks'] = []
  const times: number[] = []
  for (const [iteration, name] of steps.entries()) {
    const file = new TensorFile(join(folder, name))
    const starts = iteration % config.iters_per_epoch === 0
    const pushed = starts && trainer.beginEpoch(bests[trainer.epoch] ?? false).length > 0
    const recorded = { file, iteration, config: inFile, run, trainer }
    const batch = recording.batch?.(recorded, trainer.layout) ?? batchOf(file, trainer.layout)
    const draws = recording.draws?.(recorded) ?? drawsOf(file)
    const started = performance.now()
    const row = await trainer.step(batch, draws)
    times.push(performance.now() - started)
    rows.push(row)
    if ((row.skipped_steps ?? 0) > 0) break
    const wanted = ofRank(expected?.iterations[iteration], ranks?.rank)
    const quantities = { ...row.metrics, ...(await recording.quantities?.(recorded, row)) }
    const rates = recording.learningRates?.(row, inFile, run) ?? row.lr_used
    const results = wanted ? compare(quantities, rates, pushed, wanted, amp) : []
    checks.push({ iteration, results })
    onStep?.(iteration, steps.length, results)
  }
  return { run, recording, config: inFile, model, trainer, rows, checks, times }
}

/**
 * Weights, running statistics and what the optimizer keeps after the last step, in PyTorch's layout and under the names
 * that a checkpoint has.
 */
export async function finalTensors({ trainer }: Pick<Trajectory, 'trainer'>): Promise<Map<string, FileTensor>> {
  const tensors = new Map<string, FileTensor>()
  for (const { prefix, store } of trainer.savedStores) {
    for (const [name, data] of await store.readAll()) {
      const { shape } = store.get(name).spec
      if (!(data instanceof Float32Array)) continue
      tensors.set(prefix + name, { dtype: 'F32', shape: torchShape(shape), data: toTorchLayout(shape, data) })
    }
  }
  for (const model of trainer.models) {
    const prefix = checkpointPrefix(trainer, model)
    for (const [name, tensor] of await stateDict(model)) tensors.set(prefix + name, tensor)
  }
  return tensors
}

/** Compares the last values with `final.safetensors`, by the tolerances of `expected.json`; what has none must be equal. */
export function checkFinal(
  folder: string,
  { run, recording, config }: Pick<Trajectory, 'run' | 'recording' | 'config'>,
  actual: ReadonlyMap<string, FileTensor>,
): CaseResult[] {
  const path = join(folder, `final${run.suffix}.safetensors`)
  const expectedPath = join(folder, `expected${run.suffix}.json`)
  if (!existsSync(path) || !existsSync(expectedPath)) return []
  const { final = {} } = readJson<Expected>(expectedPath)
  const file = new TensorFile(path)
  const compared = [...file.tensors].filter(([name]) => !recording.isLeftOut?.(name))
  return compared.flatMap(([name, tensor]) => {
    const found = actual.get(recording.nameInCheckpoint?.(name, config) ?? name)
    const [values, wanted] = [found ? toFloat32(found) : new Float32Array(), toFloat32(tensor)]
    const { atol = 0, atol_query_value: sharp } = final[name] ?? {}
    const whole = { name, error: largestDifference(values, wanted), tolerance: atol }
    if (sharp === undefined) return [whole]
    const third = wanted.length / 3
    const parts = [0, 2 * third].map((start) => [values, wanted].map((all) => all.subarray(start, start + third)))
    const error = Math.max(...parts.map(([a = [], b = []]) => largestDifference(a, b)))
    return [whole, { name: `${name} of queries and values`, error, tolerance: sharp }]
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
