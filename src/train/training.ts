import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { Store } from '../engine/store.js'
import { createModel, type DeepLabV3Plus, modelConfig } from '../models/deeplabv3plus.js'
import { saveCheckpoint } from './checkpoint.js'
import type { Config } from './config.js'
import { evaluationSamples, readList, type Sample } from './dataset.js'
import { UserError } from './error.js'
import { Evaluator, type Scores } from './evaluate.js'
import { createLoader, type Loader } from './loader.js'
import { duration, Means, numbersOf, RunLog, showLosses } from './log.js'
import { checkPairs } from './precheck.js'
import { drawPrevious } from './previous.js'
import { PURPOSE, Random } from './random.js'
import { loadBackbone } from './state.js'
import { createTrainer, type Draws, drawDropout, type Trainer } from './step.js'

export interface TrainingOptions {
  /** With labeled_id_path and val_id_path, and unlabeled_id_path unless the method is supervised. */
  readonly config: Config
  /** Folder for checkpoints and logs; made when the first step is about to run. */
  readonly savePath: string
  /** Stops after so many steps. */
  readonly maxIterations?: number | undefined
  /** Replaces the run that the folder holds. */
  readonly overwrite?: boolean
  /** Shows a line to the user. */
  readonly print: (line: string) => void
}

export interface TrainingResult {
  readonly iterations: number
  /** The last validation, and the best one. */
  readonly scores: Scores
  readonly bestMiou: number
  readonly seconds: number
}

interface Lists {
  readonly labeled: Sample[]
  readonly unlabeled: Sample[]
  readonly validation: Sample[]
}

/** Reads the lists of a run and checks that they can feed it. */
function readLists(config: Config): Lists {
  const { labeled_id_path: labeled, unlabeled_id_path: unlabeled, val_id_path: validation, data_root: root } = config
  if (!labeled) throw new UserError('no list of labeled images: give --labeled-id-path')
  if (!validation) throw new UserError('no list of validation images: give --val-id-path')
  if (!unlabeled && config.method !== 'supervised') {
    throw new UserError(
      `method ${config.method} needs unlabeled images: give --unlabeled-id-path, or --method supervised`,
    )
  }
  return {
    // A supervised run without unlabeled images repeats nothing, so its own list must fill a batch.
    labeled: readList(labeled, root, 'required', unlabeled ? 1 : config.batch_size),
    unlabeled: unlabeled ? readList(unlabeled, root, 'unused', config.batch_size) : [],
    validation: readList(validation, root, 'required'),
  }
}

/** A run's state between its steps. */
interface Run {
  readonly config: Config
  readonly model: DeepLabV3Plus
  readonly trainer: Trainer
  readonly evaluator: Evaluator
  readonly loader: Loader
  readonly validation: readonly Sample[]
  readonly log: RunLog
  readonly savePath: string
  readonly lastIteration: number
}

/**
 * Trains a model as its configuration says, with an evaluation and checkpoints after every epoch.
 *
 * @throws UserError before anything is written where configuration, lists or labeled images cannot be used
 */
export async function train(device: Device, options: TrainingOptions): Promise<TrainingResult> {
  const { config, savePath, print } = options
  const lists = readLists(config)
  if (existsSync(join(savePath, 'log.jsonl')) && !options.overwrite) {
    throw new UserError(`${savePath} holds a run already: choose another --save-path, or replace it with --overwrite`)
  }
  await checkPairs([...lists.labeled, ...lists.validation], config)
  if (config.amp) print('amp: computing in float32, half precision is not available')

  const { nclass, method, seed, crop_size: size, batch_size: batch } = config
  const store = new Store(device, 'model')
  const model = createModel(store, modelConfig(config), new Random(seed, 0, PURPOSE.initialization))
  if (config.pretrained) print(loadBackbone(model, config.pretrained))
  else print('backbone: starts from random weights (set `pretrained` to start from a checkpoint)')
  const { labeled, unlabeled, validation } = lists
  const workers = config.workers === undefined ? {} : { workers: config.workers }
  const loader = createLoader({ config, labeled, unlabeled, seed, method, ...workers })
  const { iterationsPerEpoch } = loader
  const sizes = { iterationsPerEpoch, labeled: batch, unlabeled: batch, height: size, width: size }
  const onProgress = (done: number, total: number) => {
    if (done === total || done % 20 === 0) print(`compiling kernels ${done}/${total}`)
  }
  const trainer = await createTrainer(device, model, config, { ...sizes, onProgress })
  const { mode, ignoreIndex } = { mode: config.eval_mode, ignoreIndex: config.ignore_index }
  const evaluator = new Evaluator(device, model, { mode, window: size, ignoreIndex })
  const lastIteration = Math.min(trainer.iterations, options.maxIterations ?? trainer.iterations)
  const parameters = model.parameters.reduce((sum, { spec }) => sum + spec.shape.reduce((a, b) => a * b, 1), 0)
  print(
    `${method}: ${labeled.length} labeled, ${unlabeled.length} unlabeled, ${validation.length} validation images, ` +
      `${nclass} classes; ${(parameters / 1e6).toFixed(2)} M parameters; ${lastIteration} iterations of ` +
      `${config.epochs} epochs x ${iterationsPerEpoch}; ${Math.round(trainer.memory.planned / 2 ** 20)} MiB for a step`,
  )
  mkdirSync(savePath, { recursive: true })
  const log = new RunLog(join(savePath, 'log.jsonl'), print)
  log.write('start', `saving to ${savePath}`, { config, adapter: device.adapter })
  try {
    return await runEpochs({ config, model, trainer, evaluator, loader, validation, log, savePath, lastIteration })
  } finally {
    await loader.close()
    trainer.destroy()
    evaluator.destroy()
    store.destroy()
  }
}

async function runEpochs(run: Run): Promise<TrainingResult> {
  const { config, trainer, evaluator, validation, log, savePath, lastIteration } = run
  const begin = performance.now()
  let bestMiou = 0
  let newBest = false
  let scores: Scores | undefined
  for (let epoch = 0; epoch < config.epochs && trainer.iteration < lastIteration; epoch++) {
    if (trainer.beginEpoch(epoch, newBest)) {
      log.write('previous', `epoch ${epoch + 1}: kept the model; previous models: ${trainer.previous.length}`, {
        epoch,
      })
    }
    await runEpoch(run, epoch, begin)
    scores = await evaluator.evaluate(evaluationSamples(validation, config))
    newBest = scores.miou > bestMiou
    bestMiou = Math.max(bestMiou, scores.miou)
    const { miou, iou } = scores
    const star = newBest ? ' (best so far)' : `; best ${bestMiou.toFixed(2)}`
    const seconds = (performance.now() - begin) / 1000
    const line = `epoch ${epoch + 1}/${config.epochs}: mIoU ${miou.toFixed(2)}${star}  [${showClasses(iou, config)}]`
    log.write('evaluation', line, { epoch, iteration: trainer.iteration, miou, iou, best: bestMiou, seconds })
    const info = { epoch: epoch + 1, iteration: trainer.iteration, miou, bestMiou }
    await saveCheckpoint(join(savePath, 'latest.safetensors'), run.model, info)
    if (newBest) await saveCheckpoint(join(savePath, 'best.safetensors'), run.model, info)
  }
  if (!scores) throw new UserError('there is nothing to do: epochs and --max-iters must be at least 1')
  return { iterations: trainer.iteration, scores, bestMiou, seconds: (performance.now() - begin) / 1000 }
}

const showClasses = (iou: readonly number[], { class_names: names }: Config): string =>
  iou.map((value, k) => `${names?.[k] ?? k} ${value.toFixed(1)}`).join(', ')

async function runEpoch({ config, trainer, loader, log, lastIteration }: Run, epoch: number, begin: number) {
  const { iterationsPerEpoch } = loader
  const interval = config.log_interval ?? Math.max(1, Math.floor(iterationsPerEpoch / 8))
  const means = new Means()
  let waitedSince = performance.now()
  for await (const batch of loader.epoch(epoch)) {
    const ready = performance.now()
    const [learningRate] = trainer.learningRates
    const result = await trainer.step(batch, drawsFor(config, trainer))
    if (!Number.isFinite(result.total_loss)) {
      throw new UserError(`the loss of iteration ${trainer.iteration} is ${result.total_loss}: try a lower lr`)
    }
    const done = performance.now()
    const times = { data: (ready - waitedSince) / 1000, seconds: (done - waitedSince) / 1000 }
    means.add({ ...numbersOf(result), ...times })
    waitedSince = done
    const inEpoch = trainer.iteration - epoch * iterationsPerEpoch
    if (inEpoch % interval === 0 || inEpoch === iterationsPerEpoch || trainer.iteration === lastIteration) {
      const mean = means.take()
      const left = ((done - begin) / 1000 / trainer.iteration) * (lastIteration - trainer.iteration)
      const share = Math.round((100 * (mean.data ?? 0)) / (mean.seconds ?? 1))
      const line =
        `epoch ${epoch + 1}/${config.epochs} ${inEpoch}/${iterationsPerEpoch}  ${showLosses(mean)}  ` +
        `lr ${learningRate.toExponential(2)}  ${(1000 * (mean.seconds ?? 0)).toFixed(0)} ms (data ${share}%)  ETA ${duration(left)}`
      log.write('train', line, { epoch, iteration: trainer.iteration, lr: learningRate, ...mean })
    }
    if (trainer.iteration >= lastIteration) break
  }
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
