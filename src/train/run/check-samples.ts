import type { Config } from '../config/load.js'
import { readImage, readPair, type Sample } from '../data/dataset.js'
import { labelRules } from '../data/label-rules.js'

/** Reading more images than these before the first step would keep the user waiting. */
const mostPairs = 400
const mostUnlabeled = 100

/** At most `most` evenly spaced samples. */
export function evenlySpaced(samples: readonly Sample[], most: number): Sample[] {
  const step = Math.max(1, samples.length / most)
  return Array.from({ length: Math.min(samples.length, most) }, (_, i) => samples[Math.floor(i * step)] as Sample)
}

/** The labels that were read, and whether a pixel of each counts. */
export type LabelsRead = ReadonlyMap<Sample, boolean>

/**
 * Reads images before the first step, with their labels where they have one, all of them or evenly spaced ones, so that
 * what is wrong with them shows at once. `node dist/check-data.js` reads all and reports more.
 *
 * @param reading holds the images that are being read
 * @throws UserError naming the first file that cannot be used
 */
export async function checkSamples(
  samples: readonly Sample[],
  config: Config,
  reading: Set<string> = new Set(),
): Promise<LabelsRead> {
  const labels = new Map<Sample, boolean>()
  const rules = labelRules(config)
  const pairs = samples.filter(({ label }) => label !== null)
  const unlabeled = samples.filter(({ label }) => label === null)
  const next = [...evenlySpaced(pairs, mostPairs), ...evenlySpaced(unlabeled, mostUnlabeled)].values()
  const read = async (): Promise<void> => {
    for (const sample of next) {
      reading.add(sample.image)
      if (sample.label === null) await readImage(sample.image, rules.orientation)
      else {
        const { label } = await readPair(sample, rules)
        labels.set(
          sample,
          label.data.some((value) => value !== rules.ignoreIndex),
        )
      }
      reading.delete(sample.image)
    }
  }
  await Promise.all([read(), read(), read(), read()])
  return labels
}

/** What to say of validation images whose labels hold nothing that counts; undefined where one does. */
export function nothingToScore(
  validation: readonly Sample[],
  labels: LabelsRead,
  { ignore_index: ignored }: Config,
): string | undefined {
  const read = validation.filter((sample) => labels.has(sample))
  if (read.length === 0 || read.some((sample) => labels.get(sample))) return undefined
  const which = read.length === validation.length ? `the ${read.length}` : `${read.length} of the ${validation.length}`
  return (
    `note: no pixel of ${which} validation images counts, all are ignored (${ignored}): every score will be 0, and no ` +
    `model better than another; check val_id_path, ignore_index and label_map`
  )
}
