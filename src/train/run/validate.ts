import { type EvaluationSample, evaluationSamples, type Sample } from '../data/dataset.js'
import { validationPlaces } from '../distributed/sampler.js'
import { UserError } from '../error.js'
import type { Evaluator } from '../evaluation/evaluator.js'
import { type Scores, scoresOf } from '../evaluation/metrics.js'
import type { ReportSample } from '../logging/report.js'
import { evenlySpaced } from './check-samples.js'
import type { DeployedEvaluator, Run } from './run.js'

/**
 * The validation images of a list that can be read, as many as `max_unreadable` left out.
 *
 * @param missing takes the names of those that are left out
 */
export function readable(run: Run, list: readonly Sample[], missing: Set<string>): AsyncIterable<EvaluationSample> {
  const { options, logger, watchdog } = run
  const images = evaluationSamples(list, options.config, 2, ({ name, image }, { message }) => {
    missing.add(name)
    checkMissing(run, missing, `: ${message}`)
    logger.event('unreadable', { image, reason: message }, `${message}; meanwhile the evaluation leaves it out`)
  })
  return watchdog.each(
    (count) => `the validation image ${list[count + missing.size]?.image}`,
    ({ name }) => `the device to evaluate ${name}`,
    images,
  )
}

/** Throws a UserError where more are missing than a validation may leave out, or all of them. */
function checkMissing({ options, validation }: Run, { size }: ReadonlySet<string>, why = ''): void {
  if (size <= options.config.max_unreadable && size < validation.length) return
  throw new UserError(`${size} of ${validation.length} validation images cannot be read${why}`)
}

/** The model whose scores decide: the first one, or the best of those that are rivals. */
export function decisiveOf<T extends Pick<ScoredModel, 'scores'>>({ trainer }: Run, scored: readonly T[]): T {
  const [first, ...others] = scored
  if (!first) throw new Error('a method deploys at least one model')
  if (!trainer.run.rivals) return first
  return others.reduce((best, other) => (other.scores.miou > best.scores.miou ? other : best), first)
}

/** Scores the deployed models in their order on the validation images, of which each rank takes its share. */
export async function evaluateAll(run: Run, missing: Set<string>): Promise<ScoredModel[]> {
  const { group, validation } = run
  const { pad_validation: padded = false } = run.options.config
  const places = group.size > 1 ? validationPlaces(validation.length, padded, group) : validation.keys()
  const share = Array.from(places, (place) => validation[place] as Sample)
  const scored: ScoredModel[] = []
  for (const { name, model, evaluator } of run.evaluators) {
    // Each of them leaves out the same images, and says so once.
    const list = share.filter((sample) => !missing.has(sample.name))
    const own = await evaluator.evaluate(readable(run, list, missing))
    const { tiledImages } = evaluator
    scored.push({
      name,
      model,
      ...(group.size > 1 ? await ofAllRanks(run, evaluator, missing) : { scores: own, tiledImages }),
    })
  }
  return scored
}

/** The scores of the images of all ranks; `missing` takes the names of those that others left out. */
async function ofAllRanks(
  run: Run,
  evaluator: Evaluator,
  missing: Set<string>,
): Promise<Pick<ScoredModel, 'scores' | 'tiledImages'>> {
  const { group, options } = run
  const own = { counts: [...(await evaluator.confusion())], tiledImages: evaluator.tiledImages, missing: [...missing] }
  const all = await group.gatherValues(own)
  for (const { missing: names } of all) for (const name of names) missing.add(name)
  checkMissing(run, missing)
  const counts = own.counts.map((_, i) => all.reduce((sum, { counts }) => sum + (counts[i] ?? 0), 0))
  const tiledImages = all.reduce((sum, rank) => sum + rank.tiledImages, 0)
  return { scores: scoresOf(Float64Array.from(counts), options.config.nclass), tiledImages }
}

export interface ScoredModel extends Pick<DeployedEvaluator, 'name' | 'model'> {
  readonly scores: Scores
  /** How many images were too large to be computed at once. */
  readonly tiledImages: number
}

const reportSamples = 4

/** The validation images that the report shows, evenly spaced over the list, with what a model predicts now. */
export async function samplesOf({ options, validation, evaluators }: Run, model: string): Promise<ReportSample[]> {
  const shown = evaluators.find(({ name }) => name === model)
  if (!shown) throw new Error(`there is no model '${model}'`)
  const list = evenlySpaced(validation, reportSamples)
  const samples: ReportSample[] = []
  for await (const { image, label, name } of evaluationSamples(list, options.config, 2, () => {})) {
    const { width, height, data } = image
    const prediction = Uint8Array.from((await shown.evaluator.predict(image)).label)
    samples.push({ name, width, height, image: data, groundTruth: label.data, prediction })
  }
  return samples
}
