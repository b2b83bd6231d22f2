import { chromeTrace, profileTable } from '../../engine/profile.js'
import type { Config } from '../config/load.js'
import type { Batch } from '../data/batch.js'
import type { Scores } from '../evaluation/evaluator.js'
import { writeAtomically } from '../io/files.js'
import { duration, lossParts, maskRatios, showLosses } from '../logging/log.js'
import { trainingLine } from '../logging/terminal.js'
import type { StepResult, SubmittedStep } from '../trainer/step-result.js'
import { type BestFiles, BestModels, bestFilesOf } from './best-files.js'
import { explainNonFinite, nonFiniteIn } from './non-finite.js'
import type { Run, TrainingResult } from './run.js'
import { save } from './save.js'
import { decisiveOf, evaluateAll, samplesOf } from './validate.js'

/** When the steps of this process began, and after which iteration; what was skipped took no time. */
interface Start {
  readonly time: number
  readonly iteration: number
}

/** Trains to the end of a run, or until it is interrupted, with an evaluation and checkpoints after every epoch. */
export async function runEpochs(run: Run): Promise<TrainingResult> {
  const { trainer, logger, state, lastIteration, loader, agreement, group } = run
  const begin = performance.now()
  const seconds = () => (performance.now() - begin) / 1000
  let scores: Scores | undefined
  const best = new BestModels()
  let skipped = run.options.skipIterations ?? 0
  const start: Start = { time: begin, iteration: trainer.iteration + skipped }
  while ((trainer.iteration < lastIteration || state.validationDue) && !agreement.stopped) {
    if (!state.validationDue) {
      const { epoch } = trainer
      const first = trainer.iteration - epoch * loader.iterationsPerEpoch
      const events = first === 0 ? trainer.beginEpoch(state.newBest) : []
      for (const { name, fields, line } of events) logger.event(name, fields, line)
      trainer.iteration += skipped
      await runEpoch(run, epoch, first + skipped, start)
      skipped = 0
      if (agreement.stopped && trainer.epoch === epoch && trainer.iteration < lastIteration) break
      state.validationDue = true
      // Whatever happens in the validation, the weights of the epoch are kept.
      await run.watchdog.during(savingWatched, save(run, best))
    }
    const validated = await validate(run, seconds)
    scores = validated.scores
    best.add(validated.best)
    state.validationDue = false
    await agreement.after()
    const samples = group.rank === 0 ? await samplesOf(run, validated.decisive) : []
    await run.watchdog.during(savingWatched, save(run, best, samples))
  }
  const interrupted = agreement.stopped && (trainer.iteration < lastIteration || state.validationDue === true)
  if (interrupted) await save(run, best)
  const missing = run.failures.paths.length > 0 ? `${run.failures.summary}; ${run.files.lastGood}` : undefined
  const { bestMiou } = state
  return { iterations: trainer.iteration, scores, bestMiou, seconds: seconds(), interrupted, unsaved: missing }
}

const savingWatched = (): string => 'the weights for a checkpoint from the device'

/** The validation behind an epoch, or behind what of it there is; the best models, if they are those of now. */
async function validate(
  run: Run,
  seconds: () => number,
): Promise<{ readonly decisive: string; readonly scores: Scores; readonly best: BestFiles }> {
  const { trainer, logger, state, loader } = run
  const { config } = run.options
  const epoch = Math.ceil(trainer.iteration / loader.iterationsPerEpoch) - 1
  const missing = new Set<string>()
  const scored = await evaluateAll(run, missing)
  const decisive = decisiveOf(run, scored)
  const others = scored.filter((each) => each !== decisive)
  const { scores, tiledImages: tiled } = decisive
  const { rivals = false } = trainer.run
  const { miou, iou, accuracy, share, miouPresent, pixelAccuracy } = scores
  // Nothing is worse than 0, and a run has a best model from its first validation on.
  const isBest = miou > state.bestMiou || state.bestMiou === 0
  state.newBest = miou > state.bestMiou
  state.bestMiou = Math.max(state.bestMiou, miou)
  state.miou = miou
  state.iteration = trainer.iteration
  const star = isBest ? ' (best so far)' : `; best ${state.bestMiou.toFixed(2)}`
  const inTiles = tiled === 0 ? '' : `; ${tiled} images in tiles`
  const without = missing.size === 0 ? '' : `; ${missing.size} of ${run.validation.length} images left out`
  const beside = others.map(({ name, scores }) => `; ${name} ${scores.miou.toFixed(2)}`).join('')
  const whose = rivals ? ` of ${decisive.name}` : ''
  const line = `epoch ${epoch + 1}/${config.epochs}: mIoU ${miou.toFixed(2)}${whose}${star}${beside}${inTiles}${without}  [${showClasses(iou, config)}]`
  const unreadable = missing.size === 0 ? {} : { unreadable: [...missing] }
  const besides =
    others.length === 0 ? {} : { others: Object.fromEntries(others.map(({ name, scores }) => [name, scores.miou])) }
  const inTilesToo = tiled === 0 ? {} : { tiled }
  const ofModel = rivals ? { model: decisive.name } : {}
  const details = {
    iou,
    accuracy,
    share,
    miouPresent,
    pixelAccuracy,
    best: state.bestMiou,
    ...ofModel,
    ...besides,
    ...inTilesToo,
    ...unreadable,
  }
  logger.event('evaluation', { epoch, iteration: trainer.iteration, miou, ...details, seconds: seconds() }, line)
  return { decisive: decisive.name, scores, best: await bestFilesOf(run, scored, isBest) }
}

const showClasses = (iou: readonly number[], { class_names: names }: Config): string =>
  iou.map((value, k) => `${names[k]} ${value.toFixed(1)}`).join(', ')

/** The loss scale of a step in half precision, and the steps that it skipped so far. */
const scalingOf = ({ loss_scale, skipped_steps }: StepResult) =>
  loss_scale === undefined ? {} : { loss_scale, skipped_steps }

const showScale = ({ loss_scale: scale, skipped_steps: skipped = 0 }: StepResult): string =>
  scale === undefined ? '' : `loss scale ${scale}${skipped > 0 ? `, ${skipped} skipped` : ''}  `

/** A step whose result was not looked at yet. */
interface RunningStep extends SubmittedStep {
  /** When its batch was there. */
  readonly ready: number
}

/**
 * The steps of an epoch from the iteration `first` on. What a step computed is looked at once the next one is submitted, so
 * that the device need not wait for the host; nothing is saved before all of it was.
 */
async function runEpoch(run: Run, epoch: number, first: number, start: Start): Promise<void> {
  const { trainer, loader, watchdog, lastIteration, agreement } = run
  const results = stepResults(run, epoch, start)
  let running: RunningStep | undefined
  /** When the step before was done, since when the next batch may have been waited for. */
  let before = performance.now()
  const waited = () => `the device to finish iteration ${running?.iteration ?? trainer.iteration + 1}`
  const finish = async () => {
    if (running) before = await results(running, before)
    running = undefined
  }
  const batches = watchdog.each(() => loader.waitingFor(), waited, loader.epoch(epoch, first))
  for await (const batch of batches) {
    const ready = performance.now()
    const submitted = await submit(run, batch, before)
    await finish()
    running = { ...submitted, ready }
    if (submitsAlone(run)) await finish()
    if (trainer.iteration >= lastIteration || agreement.stopped) break
  }
  await watchdog.during(waited, finish())
}

/** Whether each step must be through before the next one: to be timed, or repeated from its start where it fails. */
const submitsAlone = ({ profiler, options }: Run): boolean =>
  (profiler && !profiler.profile) || options.traceNan === true

/** Looks at the steps of an epoch, one after the other, and shows and logs them; says when each was done. */
function stepResults(run: Run, epoch: number, start: Start): (step: RunningStep, before: number) => Promise<number> {
  const { trainer, loader, logger, means, state, lastIteration } = run
  const { config } = run.options
  const { iterationsPerEpoch } = loader
  const interval = config.log_interval ?? Math.max(1, Math.floor(iterationsPerEpoch / 8))
  const { metrics } = trainer
  /** Batches without a labeled pixel since the last line of the log. */
  let withoutLabels = 0
  return async ({ iteration, ready, result: pending }, before) => {
    const result = await pending
    const [learningRate] = result.lr_used
    const broken = await run.agreement.after(nonFiniteIn(result))
    if (broken) throw await explainNonFinite(trainer, iteration, broken, run.options.traceNan)
    if (result.withoutLabels) {
      withoutLabels++
      const what = 'no labeled pixel in the batch, so that its labeled loss is 0'
      logger.once('without labels', `iteration ${iteration}: ${what} (counted in log.jsonl as without_labels)`)
    }
    const done = performance.now()
    const times = { data: Math.max(0, ready - before) / 1000, seconds: (done - before) / 1000 }
    means.add({ ...result.metrics, ...times })
    const inEpoch = iteration - epoch * iterationsPerEpoch
    const perStep = (done - start.time) / 1000 / (iteration - start.iteration)
    const eta = duration(perStep * (lastIteration - iteration))
    logger.status((width) => {
      const status = {
        epoch: epoch + 1,
        epochs: config.epochs,
        iteration: inEpoch,
        iterationsPerEpoch,
        totalLoss: result.metrics.total_loss ?? Number.NaN,
        losses: lossParts(result.metrics, metrics),
        maskRatio: maskRatios(result.metrics, metrics)[0],
        miou: state.iteration > 0 ? state.miou : undefined,
        bestMiou: state.iteration > 0 ? state.bestMiou : undefined,
        imagesPerSecond: (run.group.size * trainer.imagesPerStep) / times.seconds,
        dataShare: times.data / times.seconds,
        skippedSteps: result.skipped_steps,
        eta,
      }
      return trainingLine(status, width)
    })
    if (inEpoch % interval === 0 || inEpoch === iterationsPerEpoch || iteration === lastIteration) {
      const mean = means.take()
      const share = Math.round((100 * (mean.data ?? 0)) / (mean.seconds ?? 1))
      const line =
        `epoch ${epoch + 1}/${config.epochs} ${inEpoch}/${iterationsPerEpoch}  ${showLosses(mean, metrics)}  ` +
        `lr ${learningRate.toExponential(2)}  ${showScale(result)}${(1000 * (mean.seconds ?? 0)).toFixed(0)} ms (data ${share}%)  ETA ${eta}`
      const labels = withoutLabels > 0 ? { without_labels: withoutLabels } : {}
      withoutLabels = 0
      const fields = { epoch, iteration, lr: learningRate, ...mean, ...scalingOf(result), ...labels }
      logger.event('train', fields, logger.live ? undefined : line)
    }
    return done
  }
}

/**
 * Submits a step, or runs and profiles it if its turn has come.
 * @param before when the step before was done
 */
async function submit(run: Run, batch: Batch, before: number): Promise<SubmittedStep> {
  const { trainer, profiler, options } = run
  if (!profiler || !options.profile || profiler.profile) return trainer.submit(batch)
  const submitted = await profiler.step(before, async () => {
    const step = await trainer.submit(batch)
    await step.result
    return step
  })
  if (!profiler.profile) return submitted
  const { file } = options.profile
  for (const line of profileTable(profiler.profile)) options.display.line(line)
  writeAtomically(file, [Buffer.from(chromeTrace(new Map([[`${options.config.method} step`, profiler.profile]])))])
  options.display.line(`profile: wrote ${file}, which https://ui.perfetto.dev opens`)
  return submitted
}
