import { existsSync, rmdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { stringify } from 'yaml'
import type { Device } from '../engine/device.js'
import { chromeTrace, profileTable } from '../engine/profile.js'
import { Store } from '../engine/store.js'
import { createModel, modelConfig } from '../models/deeplabv3plus.js'
import { usesHalf } from './amp.js'
import { type PreparedFile, prepareCheckpoint } from './checkpoint.js'
import { paletteOf } from './classes.js'
import type { Config } from './config.js'
import { type EvaluationSample, evaluationSamples, readList, type Sample } from './dataset.js'
import { UserError } from './error.js'
import { Evaluator, type Scores } from './evaluate.js'
import { withCheckpoint } from './exit-codes.js'
import { makeFolder, writeAtomically } from './files.js'
import { type Display, trainingLine } from './live-line.js'
import { createLoader, type Loader } from './loader.js'
import { duration, lossParts, Means, numbersOf, showLosses } from './log.js'
import { explainNonFinite, nonFiniteIn } from './non-finite.js'
import { checkPairs } from './precheck.js'
import { drawPrevious } from './previous.js'
import { PURPOSE, Random } from './random.js'
import type { ReportSample } from './report.js'
import { RunLock } from './run-lock.js'
import {
  beforeOf,
  clearRun,
  clearUnfinished,
  type Fingerprint,
  fingerprintOf,
  initialState,
  RunFiles,
  type RunState,
  restoreRun,
} from './run-state.js'
import { loadBackbone } from './state.js'
import { createTrainer, type Draws, drawDropout, type StepResult, type Trainer } from './step.js'
import { StepProfiler, warmUpSteps } from './step-profiler.js'
import { RunTuning } from './tuning.js'
import { Unsaved } from './unsaved.js'
import { versions } from './versions.js'
import { Watch } from './watch.js'
import { Watchdog } from './watchdog.js'

export interface TrainingOptions {
  /** With labeled_id_path and val_id_path, and unlabeled_id_path unless the method is supervised. */
  readonly config: Config
  /** Folder for checkpoints and logs. */
  readonly savePath: string
  /** A `latest.safetensors` to go on from; `savePath` is then its folder. */
  readonly resume?: string | undefined
  /** Stops after so many steps. */
  readonly maxIterations?: number | undefined
  /** Replaces the run that the folder holds. */
  readonly overwrite?: boolean
  /** Where a step gives NaN or an infinity, find the first operator and layer; see `TrainerOptions.keepBefore`. */
  readonly traceNan?: boolean
  /** Profiles so many steps after the first few, prints the tables and writes the trace; the training goes on. */
  readonly profile?: { readonly file: string; readonly steps: number } | undefined
  /**
   * Whether kernels that were not measured on this adapter are; by default on GPUs only. false: earlier measurements are
   * not looked at either. A run that goes on keeps its kernels.
   */
  readonly tune?: boolean | undefined
  /** Aborted: the step at hand is finished, a checkpoint written, and the training ends. */
  readonly signal?: AbortSignal
  readonly display: Display
}

export interface TrainingResult {
  readonly iterations: number
  /** The last validation; undefined where the training was interrupted before the first. */
  readonly scores: Scores | undefined
  readonly bestMiou: number
  readonly seconds: number
  readonly interrupted: boolean
  /** What could not be written in the end, and what there is to go back to, in words. */
  readonly unsaved: string | undefined
}

/** The images of a run. */
export interface Lists {
  readonly labeled: Sample[]
  readonly unlabeled: Sample[]
  readonly validation: Sample[]
}

/**
 * Reads the lists of a run and checks that they can feed it.
 *
 * @param mustExist false where a run goes on: a file that became unreadable since it began does not end it
 */
export function readLists(config: Config, mustExist: boolean): Lists {
  const { labeled_id_path: labeled, unlabeled_id_path: unlabeled, val_id_path: validation, data_root: root } = config
  if (!labeled) throw new UserError('no list of labeled images: give --labeled-id-path')
  if (config.method === 'supervised' && config.batch_size < 2) {
    throw new UserError('batch_size 1 gives the batch norm of the pooled map one value per channel: use at least 2')
  }
  if (!validation) throw new UserError('no list of validation images: give --val-id-path')
  if (!unlabeled && config.method !== 'supervised') {
    throw new UserError(
      `method ${config.method} needs unlabeled images: give --unlabeled-id-path, or --method supervised`,
    )
  }
  return {
    // A supervised run without unlabeled images repeats nothing, so its own list must fill a batch.
    labeled: readList(labeled, root, 'required', unlabeled ? 1 : config.batch_size, mustExist),
    unlabeled: unlabeled ? readList(unlabeled, root, 'unused', config.batch_size, mustExist) : [],
    validation: readList(validation, root, 'required', 1, mustExist),
  }
}

/** What a run works with. */
interface Run {
  readonly options: TrainingOptions
  readonly trainer: Trainer
  readonly evaluator: Evaluator
  readonly loader: Loader
  readonly validation: readonly Sample[]
  readonly watch: Watch
  readonly lock: RunLock
  readonly files: RunFiles
  readonly unsaved: Unsaved
  /** Writes config.yaml and kernels.json where they are missing. */
  readonly writeSettings: () => void
  readonly watchdog: Watchdog
  readonly profiler: StepProfiler | undefined
  readonly means: Means
  readonly state: RunState
  readonly fingerprint: Fingerprint
  /** Where this process began, and where it ends. */
  readonly firstIteration: number
  readonly lastIteration: number
}

/**
 * Trains a model as its configuration says, with an evaluation and checkpoints after every epoch. What cannot be written
 * then does not end the training: it is tried again after the next epoch.
 *
 * @throws UserError before anything is written where configuration, lists or labeled images cannot be used, and where
 * another process writes into the folder
 * @throws RunError where the run cannot go on, with its last checkpoint
 */
export async function train(device: Device, options: TrainingOptions): Promise<TrainingResult> {
  const { config, savePath, resume, display } = options
  const lists = readLists(config, !resume)
  const folder = resume ? dirname(resume) : savePath
  if (resume && !existsSync(folder)) throw new UserError(`there is no run ${folder}: check --resume`)
  const isNew = !existsSync(folder)
  makeFolder(folder)
  const lock = RunLock.acquire(folder, (line) => display.line(line))
  try {
    return await trainLocked(device, options, lists, folder, lock)
  } finally {
    lock.release()
    if (isNew) removeIfEmpty(folder)
  }
}

/** Removes the folder of a run that ended before it wrote anything. */
function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder)
  } catch {
    // It holds a run.
  }
}

async function trainLocked(
  device: Device,
  options: TrainingOptions,
  lists: Lists,
  folder: string,
  lock: RunLock,
): Promise<TrainingResult> {
  const { config, resume, display } = options
  const print = (line: string) => display.line(line)
  if (!resume && existsSync(join(folder, 'log.jsonl')) && !options.overwrite) {
    throw new UserError(
      `${folder} holds a run already: choose another --save-path, replace it with --overwrite, ` +
        `or continue it with --resume ${join(folder, 'latest.safetensors')}`,
    )
  }
  const profiler = options.profile && createProfiler(device, options.profile)
  const watchdog = new Watchdog(print)
  if (!resume) {
    const reading = new Set<string>()
    const checked = checkPairs([...lists.labeled, ...lists.validation, ...lists.unlabeled], config, reading)
    await watchdog.during(() => `images to be read: ${[...reading].join(', ')}`, checked)
  }
  const amp = usesHalf(config.amp, device, print)

  const { seed, method } = config
  const { labeled, unlabeled, validation } = lists
  const store = new Store(device, 'model')
  const model = createModel(store, modelConfig(config), new Random(seed, 0, PURPOSE.initialization))
  if (resume) print(`weights: from ${resume}`)
  else if (config.pretrained) print(loadBackbone(model, config.pretrained))
  else print('backbone: from scratch, with random weights (set `pretrained` to start from a checkpoint)')
  const workers = config.workers === undefined ? {} : { workers: config.workers }
  /** Tells of what goes wrong with the images; once there is a log, it goes there, too. */
  let tell: Watch['event'] = (_name, _fields, line) => {
    if (line !== undefined) print(line)
  }
  const loader = createLoader({
    config,
    labeled,
    unlabeled,
    seed,
    method,
    ...workers,
    maxUnreadable: config.max_unreadable,
    onUnreadable: ({ image, reason, replacement }) =>
      tell('unreadable', { image, reason, replacement }, `${reason}; meanwhile ${replacement} takes its place`),
    onCrash: (line) => tell('crash', { reason: line }, line),
  })
  const kernels = RunTuning.begin(device, { tune: options.tune, resumed: resume && folder, print })
  const trainer = await createTrainer(device, model, config, {
    iterationsPerEpoch: loader.iterationsPerEpoch,
    labeled: config.batch_size,
    unlabeled: config.batch_size,
    height: config.crop_size,
    width: config.crop_size,
    keepBefore: options.traceNan === true,
    amp,
    onProgress: (done, total) => {
      if (done === total || done % 20 === 0) print(`compiling kernels ${done}/${total}`)
    },
  })
  kernels.fix()
  const evaluator = new Evaluator(device, model, {
    mode: config.eval_mode,
    window: config.crop_size,
    amp,
    ignoreIndex: config.ignore_index,
  })
  try {
    const fingerprint = fingerprintOf(config, { labeled, unlabeled, validation })
    const saved = resume ? restoreRun(resume, trainer, fingerprint, print) : undefined
    const { iteration, miou, bestMiou, newBest } = saved ?? initialState()
    const state = { iteration, miou, bestMiou, newBest }
    const lastIteration = Math.min(trainer.iterations, options.maxIterations ?? trainer.iterations)
    if (profiler && profiler.length > lastIteration - iteration) {
      throw new UserError(
        `--profile with --profile-steps ${options.profile?.steps} takes ${profiler.length} iterations ` +
          `(${warmUpSteps} to warm up, then twice as many as it profiles), and the run has ${lastIteration - iteration}`,
      )
    }
    describe(lists, config, trainer, lastIteration, print)
    if (device.adapter.software) {
      print('first step: a CPU driver translates each kernel when it first runs, which takes a while on a new machine')
    }
    if (!resume && options.overwrite) clearRun(folder)
    clearUnfinished(folder)
    const writeSettings = () => {
      writeConfig(folder, config, device, lists, fingerprint)
      if (!existsSync(join(folder, 'kernels.json'))) kernels.save(folder)
    }
    writeSettings()
    kernels.save(folder)
    const unsaved = new Unsaved(folder, print)
    const resumed = saved && { iteration, logBytes: saved.logBytes }
    const watch = new Watch({ folder, config, display, unsaved, resumed })
    tell = (...all) => watch.event(...all)
    if (saved) print(`resuming ${folder} after iteration ${iteration}; best mIoU so far ${bestMiou.toFixed(2)}`)
    else watch.event('start', { config, adapter: device.adapter }, `saving to ${folder}`)
    const means = new Means(saved?.means)
    const files = new RunFiles(folder, saved)
    const parts = {
      trainer,
      evaluator,
      loader,
      validation,
      watch,
      lock,
      files,
      unsaved,
      writeSettings,
      watchdog,
      profiler,
      means,
    }
    const run = { options: { ...options, savePath: folder }, ...parts }
    try {
      return await runEpochs({ ...run, state, fingerprint, firstIteration: iteration, lastIteration })
    } catch (error) {
      throw withCheckpoint(error, files.checkpoint, files.lastGood)
    } finally {
      watch.close()
    }
  } finally {
    await loader.close()
    profiler?.destroy()
    trainer.destroy()
    evaluator.destroy()
    store.destroy()
  }
}

function describe(
  lists: Lists,
  config: Config,
  trainer: Trainer,
  lastIteration: number,
  print: (line: string) => void,
) {
  const { labeled, unlabeled, validation } = lists
  const parameters = trainer.model.parameters.reduce((sum, { spec }) => sum + spec.shape.reduce((a, b) => a * b, 1), 0)
  print(
    `${config.method}: ${labeled.length} labeled, ${unlabeled.length} unlabeled, ${validation.length} validation images, ` +
      `${config.nclass} classes; ${(parameters / 1e6).toFixed(2)} M parameters; ${lastIteration} iterations of ` +
      `${config.epochs} epochs x ${trainer.options.iterationsPerEpoch}; ` +
      `${Math.round(trainer.memory.planned / 2 ** 20)} MiB for a step${trainer.options.amp ? ' in half precision' : ''}`,
  )
}

/** Writes config.yaml, everything that the run depends on, where it is missing. */
function writeConfig(folder: string, config: Config, device: Device, lists: Lists, fingerprint: Fingerprint): void {
  const path = join(folder, 'config.yaml')
  if (existsSync(path)) return
  const counts = Object.fromEntries(
    Object.entries(lists).map(([name, list]: [string, Sample[]]) => {
      return [name, { images: list.length, sha256: fingerprint[`list of ${name} images`] }]
    }),
  )
  const settings = { ...config, run: { versions: versions(), adapter: { ...device.adapter }, lists: counts } }
  writeAtomically(path, [Buffer.from(stringify(settings))])
}

async function runEpochs(run: Run): Promise<TrainingResult> {
  const { trainer, watch, state, lastIteration, loader } = run
  const { config, signal } = run.options
  const begin = performance.now()
  const seconds = () => (performance.now() - begin) / 1000
  let scores: Scores | undefined
  /** The best model, until it is written. */
  let best: PreparedFile | undefined
  while (trainer.iteration < lastIteration && !signal?.aborted) {
    const { epoch } = trainer
    const first = trainer.iteration - epoch * loader.iterationsPerEpoch
    if (first === 0 && trainer.beginEpoch(epoch, state.newBest)) {
      const kept = trainer.previous.length
      watch.event('previous', { epoch, models: kept }, `epoch ${epoch + 1}: kept the model; previous models: ${kept}`)
    }
    await runEpoch(run, epoch, first, begin)
    if (signal?.aborted && trainer.epoch === epoch && trainer.iteration < lastIteration) break
    const missing = new Set<string>()
    scores = await run.evaluator.evaluate(readable(run, run.validation, missing))
    const { miou, iou, accuracy, share, miouPresent, pixelAccuracy } = scores
    state.newBest = miou > state.bestMiou
    state.bestMiou = Math.max(state.bestMiou, miou)
    state.miou = miou
    state.iteration = trainer.iteration
    const star = state.newBest ? ' (best so far)' : `; best ${state.bestMiou.toFixed(2)}`
    const without = missing.size === 0 ? '' : `; ${missing.size} of ${run.validation.length} images left out`
    const line = `epoch ${epoch + 1}/${config.epochs}: mIoU ${miou.toFixed(2)}${star}${without}  [${showClasses(iou, config)}]`
    const unreadable = missing.size === 0 ? {} : { unreadable: [...missing] }
    const details = { iou, accuracy, share, miouPresent, pixelAccuracy, best: state.bestMiou, ...unreadable }
    watch.event('evaluation', { epoch, iteration: trainer.iteration, miou, ...details, seconds: seconds() }, line)
    if (state.newBest) best = await prepareCheckpoint(trainer.model, { ...state, ...namesOf(config) })
    const samples = await samplesOf(run)
    best = await run.watchdog.during(() => 'the weights for a checkpoint from the device', save(run, best, samples))
  }
  const interrupted = signal?.aborted === true && trainer.iteration < lastIteration
  if (interrupted) best = await save(run, best)
  else if (!scores) throw new UserError(`all ${lastIteration} iterations are done: there is nothing to resume`)
  const missing = run.unsaved.paths.length > 0 ? `${run.unsaved.summary}; ${run.files.lastGood}` : undefined
  const { bestMiou } = state
  return { iterations: trainer.iteration, scores, bestMiou, seconds: seconds(), interrupted, unsaved: missing }
}

/**
 * The validation images of a list that can be read, as many as `max_unreadable` left out.
 *
 * @param missing takes the names of those that are left out
 */
function readable(
  { options, watch, watchdog }: Run,
  list: readonly Sample[],
  missing: Set<string>,
): AsyncIterable<EvaluationSample> {
  const { max_unreadable: most } = options.config
  const images = evaluationSamples(list, options.config, 2, ({ name, image }, { message }) => {
    missing.add(name)
    if (missing.size > most || missing.size === list.length) {
      throw new UserError(`${missing.size} of ${list.length} validation images cannot be read: ${message}`)
    }
    watch.event('unreadable', { image, reason: message }, `${message}; meanwhile the evaluation leaves it out`)
  })
  return watchdog.each(
    (count) => `the validation image ${list[count + missing.size]?.image}`,
    ({ name }) => `the device to evaluate ${name}`,
    images,
  )
}

/** Validation images that the report shows, evenly spread over the list. */
const reportSamples = 4

async function samplesOf({ options, validation, evaluator }: Run): Promise<ReportSample[]> {
  const count = Math.min(reportSamples, validation.length)
  const chosen = Array.from({ length: count }, (_, i) => validation[Math.floor((i * validation.length) / count)])
  const list = chosen.filter((sample) => sample !== undefined)
  const samples: ReportSample[] = []
  for await (const { image, label, name } of evaluationSamples(list, options.config, 2, () => {})) {
    const { width, height, data } = image
    const prediction = Uint8Array.from((await evaluator.predict(image)).label)
    samples.push({ name, width, height, image: data, truth: label.data, prediction })
  }
  return samples
}

/** What a checkpoint says of its classes, for those who predict with it. */
const namesOf = (config: Config) => ({
  ...(config.class_names ? { class_names: config.class_names } : {}),
  palette: paletteOf(config),
})

/**
 * Brings the folder up to date: all that a run goes on from, and what shows it.
 *
 * @param best the best model, if it is not written yet
 * @param samples for the report, after an evaluation
 * @returns the best model, if it still is not written
 */
async function save(
  run: Run,
  best: PreparedFile | undefined,
  samples?: readonly ReportSample[],
): Promise<PreparedFile | undefined> {
  const { options, trainer, state, means, watch, fingerprint, lock, files, unsaved } = run
  const { savePath: folder, config } = options
  const hasFolder = unsaved.attempt(folder, () => {
    makeFolder(folder)
    lock.renew()
    run.writeSettings()
  })
  state.iteration = trainer.iteration
  let unwritten = best
  if (hasFolder) {
    const logBytes = watch.syncLog()
    if (samples) await watch.report(samples)
    const path = join(folder, 'best.safetensors')
    if (best && unsaved.attempt(path, () => best.write(path, { before: beforeOf(path) }))) unwritten = undefined
    await files.save(trainer, state, { means: means.state, logBytes, fingerprint, ...namesOf(config) }, unsaved)
  }
  unsaved.tellAgain(files.lastGood)
  return unwritten
}

const showClasses = (iou: readonly number[], { class_names: names }: Config): string =>
  iou.map((value, k) => `${names?.[k] ?? k} ${value.toFixed(1)}`).join(', ')

/** The loss scale of a step in half precision, and the steps that it skipped so far. */
const scalingOf = ({ loss_scale, skipped_steps }: StepResult) =>
  loss_scale === undefined ? {} : { loss_scale, skipped_steps }

const showScale = ({ loss_scale: scale, skipped_steps: skipped = 0 }: StepResult): string =>
  scale === undefined ? '' : `loss scale ${scale}${skipped > 0 ? `, ${skipped} skipped` : ''}  `

/** The steps of an epoch from the iteration `first` on. */
async function runEpoch(run: Run, epoch: number, first: number, begin: number): Promise<void> {
  const { trainer, loader, watch, watchdog, means, state, firstIteration, lastIteration } = run
  const { config, signal } = run.options
  const { iterationsPerEpoch } = loader
  const interval = config.log_interval ?? Math.max(1, Math.floor(iterationsPerEpoch / 8))
  const { labeled, unlabeled } = trainer.options
  const images = config.method === 'supervised' ? labeled : labeled + 2 * unlabeled
  let waitedSince = performance.now()
  const batches = watchdog.each(
    () => loader.waitingFor(),
    () => `the device to finish iteration ${trainer.iteration + 1}`,
    loader.epoch(epoch, first),
  )
  for await (const batch of batches) {
    const ready = performance.now()
    const [learningRate] = trainer.learningRates
    const result = await profiled(run, waitedSince, () => trainer.step(batch, drawsFor(config, trainer)))
    const broken = nonFiniteIn(result)
    if (broken !== undefined) throw await explainNonFinite(trainer, broken, run.options.traceNan)
    const done = performance.now()
    const times = { data: (ready - waitedSince) / 1000, seconds: (done - waitedSince) / 1000 }
    means.add({ ...numbersOf(result), ...times })
    waitedSince = done
    const inEpoch = trainer.iteration - epoch * iterationsPerEpoch
    const perStep = (done - begin) / 1000 / (trainer.iteration - firstIteration)
    const eta = duration(perStep * (lastIteration - trainer.iteration))
    watch.status((width) => {
      const numbers = numbersOf(result)
      const status = {
        epoch: epoch + 1,
        epochs: config.epochs,
        iteration: inEpoch,
        iterationsPerEpoch,
        totalLoss: result.total_loss,
        losses: lossParts(numbers),
        maskRatio: result.mask_ratio,
        miou: state.iteration > 0 ? state.miou : undefined,
        bestMiou: state.iteration > 0 ? state.bestMiou : undefined,
        imagesPerSecond: images / times.seconds,
        dataShare: times.data / times.seconds,
        skippedSteps: result.skipped_steps,
        eta,
      }
      return trainingLine(status, width)
    })
    if (inEpoch % interval === 0 || inEpoch === iterationsPerEpoch || trainer.iteration === lastIteration) {
      const mean = means.take()
      const share = Math.round((100 * (mean.data ?? 0)) / (mean.seconds ?? 1))
      const line =
        `epoch ${epoch + 1}/${config.epochs} ${inEpoch}/${iterationsPerEpoch}  ${showLosses(mean)}  ` +
        `lr ${learningRate.toExponential(2)}  ${showScale(result)}${(1000 * (mean.seconds ?? 0)).toFixed(0)} ms (data ${share}%)  ETA ${eta}`
      const fields = { epoch, iteration: trainer.iteration, lr: learningRate, ...mean, ...scalingOf(result) }
      watch.event('train', fields, watch.live ? undefined : line)
    }
    if (trainer.iteration >= lastIteration || signal?.aborted) break
  }
}

/**
 * Runs a step, and profiles it if its turn has come.
 * @param began when the step before was done
 */
async function profiled(run: Run, began: number, step: () => Promise<StepResult>): Promise<StepResult> {
  const { profiler, options } = run
  if (!profiler || !options.profile || profiler.profile) return step()
  const result = await profiler.step(began, step)
  if (!profiler.profile) return result
  const { file } = options.profile
  for (const line of profileTable(profiler.profile)) options.display.line(line)
  writeAtomically(file, [Buffer.from(chromeTrace(new Map([[`${options.config.method} step`, profiler.profile]])))])
  options.display.line(`profile: wrote ${file}, which https://ui.perfetto.dev opens`)
  return result
}

/** @throws UserError where the file has no folder, or the adapter no time stamps */
function createProfiler(device: Device, { file, steps }: { file: string; steps: number }): StepProfiler {
  const parent = dirname(resolve(file))
  if (!existsSync(parent)) throw new UserError(`--profile ${file}: there is no folder ${parent}`)
  return new StepProfiler(device, steps)
}

/** The random choices of the next step, which depend on seed and iteration alone. */
function drawsFor(config: Config, trainer: Trainer): Draws {
  const { planes, expansion } = trainer.model.config
  const { labeled, unlabeled } = trainer.options
  const random = new Random(config.seed, trainer.iteration, PURPOSE.dropout)
  const images = labeled + unlabeled
  const draws = {
    drop_c1: drawDropout(random, images, planes[0] * expansion),
    drop_c4: drawDropout(random, images, planes[3] * expansion),
  }
  if (trainer.previous.length === 0) return draws
  const choice = new Random(config.seed, trainer.iteration, PURPOSE.previousModels)
  return { ...draws, previous: drawPrevious(choice, trainer.previous.length, config.prev) }
}
