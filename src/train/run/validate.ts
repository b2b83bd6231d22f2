import { type EvaluationSample, evaluationSamples, type Sample } from '../data/dataset.js'
import { UserError } from '../error.js'
import type { Scores } from '../evaluation/metrics.js'
import type { ReportSample } from '../logging/report.js'
import { evenlySpaced } from './check-samples.js'
import type { DeployedEvaluator, Run } from './run.js'

/**
 * The validation images of a list that can be read, as many as `max_unreadable` left out.
 *
 * @param missing takes the names of those that are left out
 */
export function readable(
  { options, logger, watchdog }: Run,
  list: readonly Sample[],
  missing: Set<string>,
): AsyncIterable<EvaluationSample> {
  const { max_unreadable: most } = options.config
  const images = evaluationSamples(list, options.config, 2, ({ name, image }, { message }) => {
    missing.add(name)
    if (missing.size > most || missing.size === list.length) {
      throw new UserError(`${missing.size} of ${list.length} validation images cannot be read: ${message}`)
    }
    logger.event('unreadable', { image, reason: message }, `${message}; meanwhile the evaluation leaves it out`)
  })
  return watchdog.each(
    (count) => `the validation image ${list[count + missing.size]?.image}`,
    ({ name }) => `the device to evaluate ${name}`,
    images,
  )
}

/** The model whose scores decide: the first one, or the best of those that are rivals. */
export function decisiveOf<T extends Pick<ScoredModel, 'scores'>>({ trainer }: Run, scored: readonly T[]): T {
  const [first, ...others] = scored
  if (!first) throw new Error('a method deploys at least one model')
  if (!trainer.run.rivals) return first
  return others.reduce((best, other) => (other.scores.miou > best.scores.miou ? other : best), first)
}

/** Scores the deployed models in their order on the validation images. */
export async function evaluateAll(run: Run, missing: Set<string>): Promise<ScoredModel[]> {
  const scored: ScoredModel[] = []
  for (const { name, model, evaluator } of run.evaluators) {
    // Each of them leaves out the same images, and says so once.
    const list = run.validation.filter((sample) => !missing.has(sample.name))
    const scores = await evaluator.evaluate(readable(run, list, missing))
    scored.push({ name, model, scores, tiledImages: evaluator.tiledImages })
  }
  return scored
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
