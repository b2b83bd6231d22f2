import type { Config } from './config.js'
import { readPair, type Sample } from './dataset.js'
import { labelRules } from './label.js'

/** Reading more pairs than this before the first step would keep the user waiting. */
const mostPairs = 400

/**
 * Reads labeled images with their labels before the first step, all of them or evenly spread ones, so that what is
 * wrong with them shows at once.
 *
 * @throws UserError naming the first file that cannot be used
 */
export async function checkPairs(samples: readonly Sample[], config: Config): Promise<void> {
  const rules = labelRules(config)
  const step = Math.max(1, samples.length / mostPairs)
  const chosen = Array.from({ length: Math.min(samples.length, mostPairs) }, (_, i) => samples[Math.floor(i * step)])
  const next = chosen.values()
  const read = async (): Promise<void> => {
    for (const sample of next) if (sample) await readPair(sample, rules)
  }
  await Promise.all([read(), read(), read(), read()])
}
