import { existsSync, rmdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { stringify } from 'yaml'
import type { Device } from '../../engine/device.js'
import { elements } from '../../engine/shape.js'
import { Store } from '../../engine/store.js'
import { createModel } from '../../models/index.js'
import { parametersOf } from '../../models/segmentation.js'
import { loadInit, readInit } from '../checkpoint/load-model.js'
import { loadBackbone } from '../checkpoint/read.js'
import { type Config, withAbsolutePaths } from '../config/load.js'
import type { Sample } from '../data/dataset.js'
import { createLoader, shortenedEpoch } from '../data/loader.js'
import { UserError } from '../error.js'
import { Evaluator } from '../evaluation/evaluator.js'
import { makeFolder, writeAtomically } from '../io/files.js'
import { WriteFailures } from '../io/write-failures.js'
import { Means } from '../logging/log.js'
import { RunLogger } from '../logging/run-logger.js'
import { epochImages, firstModelOf, methodOf, pretrainedOf } from '../methods/index.js'
import { PURPOSE, Random } from '../random.js'
import { usesHalf } from '../trainer/amp.js'
import { createTrainer } from '../trainer/create.js'
import type { Trainer } from '../trainer/trainer.js'
import { RunTuning } from '../tuning/run-tuning.js'
import { versions } from '../versions.js'
import { checkSamples, nothingToScore } from './check-samples.js'
import { evaluationOf } from './evaluation-of.js'
import { withCheckpoint } from './exit-codes.js'
import { type Fingerprint, fingerprintOf } from './fingerprint.js'
import { largestImage } from './largest-image.js'
import { type Lists, readLists } from './lists.js'
import { runEpochs } from './loop.js'
import { quotedArgument } from './resume-command.js'
import type { DeployedEvaluator, TrainingOptions, TrainingResult } from './run.js'
import { RunLock } from './run-lock.js'
import { clearRun, clearUnfinished, initialState, RunFiles, restoreRun } from './run-state.js'
import { keptChoice, settleMemory } from './settle-memory.js'
import { StepProfiler, warmUpSteps } from './step-profiler.js'
import { Watchdog } from './watchdog.js'

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
  const { config: given, resume, display } = options
  const print = (line: string) => display.line(line)
  if (!resume && existsSync(join(folder, 'log.jsonl')) && !options.overwrite) {
    throw new UserError(
      `${folder} holds a run already: choose another --save-path, replace it with --overwrite, ` +
        `or continue it with --resume ${quotedArgument(join(folder, 'latest.safetensors'))}`,
    )
  }
  const profiler = options.profile && createProfiler(device, options.profile)
  const watchdog = new Watchdog(print)
  if (!resume) {
    const reading = new Set<string>()
    const checked = checkSamples([...lists.labeled, ...lists.validation, ...lists.unlabeled], given, reading)
    const labels = await watchdog.during(() => `images to be read: ${[...reading].join(', ')}`, checked)
    const note = nothingToScore(lists.validation, labels, given)
    if (note !== undefined) print(note)
  }
  const kept = resume ? keptChoice(folder, given) : undefined
  const config = kept ?? (await chosenFor(device, lists, options))
  const isChosenAnew = config !== given && !kept
  const amp = usesHalf(config.amp, device, print)
  const init = options.init === undefined ? undefined : readInit(options.init, config)

  const { seed } = config
  const { labeled, unlabeled, validation } = lists
  /** Reports what goes wrong with the images; once there is a log, it goes there, too. */
  let report: RunLogger['event'] = (_name, _fields, line) => {
    if (line !== undefined) print(line)
  }
  const loader = createLoader({
    config,
    labeled,
    unlabeled,
    seed,
    layout: methodOf(config.method).layout(config),
    epochOf: epochImages(config),
    maxUnreadable: config.max_unreadable,
    onUnreadable: ({ image, reason, replacement }) =>
      report('unreadable', { image, reason, replacement }, `${reason}; meanwhile ${replacement} takes its place`),
    onCrash: (line) => report('crash', { reason: line }, line),
  })
  const store = new Store(device, 'model')
  let trainer: Trainer | undefined
  let evaluators: DeployedEvaluator[] = []
  try {
    const model = createModel(store, firstModelOf(config), new Random(seed, 0, PURPOSE.initialization))
    const pretrained = pretrainedOf(config, 0)
    if (resume) print(`weights: from ${resume}`)
    else if (init) print(loadInit(model, init))
    else if (pretrained !== undefined) print(loadBackbone(model, pretrained))
    else print('backbone: from scratch, with random weights (set `pretrained` to start from a checkpoint)')
    const kernels = RunTuning.begin(device, { tune: options.tune, resumed: resume && folder, print })
    trainer = await createTrainer(device, model, config, {
      iterationsPerEpoch: loader.iterationsPerEpoch,
      labeled: config.batch_size,
      unlabeled: config.batch_size,
      height: config.crop_size,
      width: config.crop_size,
      keepBefore: options.traceNan === true,
      amp,
      pretrain: (further, index) => {
        const path = pretrainedOf(config, index)
        if (!resume && init) print(`${further.store.label}: ${loadInit(further, init)}`)
        else if (!resume && path !== undefined) print(`${further.store.label}: ${loadBackbone(further, path)}`)
      },
      onProgress: (done, total) => {
        if (done === total || done % 20 === 0) print(`compiling kernels ${done}/${total}`)
      },
    })
    kernels.freeze()
    const evaluation = evaluationOf(config, amp)
    evaluators = trainer.run.deployed.map(({ name, model }) => {
      return { name, model, evaluator: new Evaluator(device, model, evaluation) }
    })
    const fingerprint = fingerprintOf(config, { labeled, unlabeled, validation })
    const { saved, changes = [] } = resume ? restoreRun(resume, trainer, fingerprint, print) : {}
    checkSkipped(trainer, options.skipIterations ?? 0, print)
    const { miou, bestMiou, newBest, validationDue = false, bestOf } = saved ?? initialState()
    const { iteration } = trainer
    const state = { iteration, miou, bestMiou, newBest, validationDue, ...(bestOf ? { bestOf } : {}) }
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
      writeConfig(folder, config, device, lists, fingerprint, changes.length > 0 || isChosenAnew)
      if (!existsSync(join(folder, 'kernels.json'))) kernels.save(folder)
    }
    writeSettings()
    kernels.save(folder)
    const failures = new WriteFailures(folder, print)
    const resumed = saved && { iteration, logBytes: saved.logBytes }
    const logger = new RunLogger({ folder, config, metrics: trainer.metrics, display, failures, resumed })
    report = (...all) => logger.event(...all)
    if (saved) print(`resuming ${folder} after iteration ${iteration}; best mIoU so far ${bestMiou.toFixed(2)}`)
    if (changes.length > 0) logger.event('settings', { iteration, changes }, `from here on ${changes.join('; ')}`)
    if (!saved) logger.event('start', { config, adapter: device.adapter }, `saving to ${folder}`)
    const means = new Means(saved?.means)
    const files = new RunFiles(folder, saved)
    const parts = {
      trainer,
      evaluators,
      loader,
      validation,
      logger,
      lock,
      files,
      failures,
      writeSettings,
      watchdog,
      profiler,
      means,
    }
    const run = { options: { ...options, config, savePath: folder }, ...parts }
    try {
      return await runEpochs({ ...run, state, fingerprint, lastIteration })
    } catch (error) {
      throw withCheckpoint(error, files.checkpoint, files.lastGood)
    } finally {
      logger.close()
    }
  } finally {
    await loader.close()
    profiler?.destroy()
    trainer?.destroy()
    for (const { evaluator } of evaluators) evaluator.destroy()
    store.destroy()
  }
}

/** The configuration of a run with what fits into its `memory`. */
async function chosenFor(device: Device, lists: Lists, options: TrainingOptions): Promise<Config> {
  const { config, tune, traceNan = false, display } = options
  if (config.memory === undefined) return config
  const image = await largestImage(lists, config)
  return settleMemory(device, { config, image, keepBefore: traceNan }, tune, (line) => display.line(line))
}

/** Says which steps are skipped. Throws a UserError where the epoch has fewer. */
function checkSkipped(trainer: Trainer, count: number, print: (line: string) => void): void {
  const { iterationsPerEpoch } = trainer.options
  const left = iterationsPerEpoch - (trainer.iteration % iterationsPerEpoch)
  if (count > left) {
    throw new UserError(
      `--skip-iterations ${count}: the epoch has ${left} more, so that at most ${left} can be skipped`,
    )
  }
  if (count > 0) print(`skipping the iterations ${trainer.iteration + 1} to ${trainer.iteration + count}`)
}

function describe(
  lists: Lists,
  config: Config,
  trainer: Trainer,
  lastIteration: number,
  print: (line: string) => void,
) {
  const { labeled, unlabeled, validation } = lists
  const parameters = trainer.run.trained.flatMap(parametersOf).reduce((sum, { spec }) => sum + elements(spec.shape), 0)
  print(
    `${config.method}: ${labeled.length} labeled, ${unlabeled.length} unlabeled, ${validation.length} validation images, ` +
      `${config.nclass} classes; ${(parameters / 1e6).toFixed(2)} M parameters; ${lastIteration} iterations of ` +
      `${config.epochs} epochs x ${trainer.options.iterationsPerEpoch}; ` +
      `${Math.round(trainer.memory.planned / 2 ** 20)} MiB for a step${trainer.options.amp ? ' in half precision' : ''}`,
  )
  const epochOf = epochImages(config)
  const short = shortenedEpoch(labeled.length, unlabeled.length, config.batch_size, epochOf)
  if (short !== undefined) print(short)
}

/**
 * Writes config.yaml, everything that the run depends on, where it is missing, or `anew`; `--config` takes it from any
 * folder.
 */
function writeConfig(
  folder: string,
  config: Config,
  device: Device,
  lists: Lists,
  fingerprint: Fingerprint,
  anew: boolean,
): void {
  const path = join(folder, 'config.yaml')
  if (existsSync(path) && !anew) return
  const counts = Object.fromEntries(
    Object.entries(lists).map(([name, list]: [string, Sample[]]) => {
      return [name, { images: list.length, sha256: fingerprint[`list of ${name} images`] }]
    }),
  )
  const settings = {
    ...withAbsolutePaths(config),
    run: { versions: versions(), adapter: { ...device.adapter }, lists: counts },
  }
  writeAtomically(path, [Buffer.from(stringify(settings))])
}

/** @throws UserError where the file has no folder, or the adapter no time stamps */
function createProfiler(device: Device, { file, steps }: { file: string; steps: number }): StepProfiler {
  const parent = dirname(resolve(file))
  if (!existsSync(parent)) throw new UserError(`--profile ${file}: there is no folder ${parent}`)
  return new StepProfiler(device, steps)
}
