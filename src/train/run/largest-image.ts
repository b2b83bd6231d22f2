import type { Config } from '../config/load.js'
import { evaluationSamples } from '../data/dataset.js'
import type { Image } from '../data/pixels.js'
import { evenlySpaced } from './check-samples.js'
import type { Lists } from './lists.js'

/** Validation images whose sizes are looked at. */
const maxImages = 400

/** The largest validation image, as far as they are looked at: evaluation takes memory by its size. */
export async function largestImage({ validation }: Lists, config: Config): Promise<Image> {
  let largest: Image | undefined
  for await (const { image } of evaluationSamples(evenlySpaced(validation, maxImages), config)) {
    if (!largest || image.width * image.height > largest.width * largest.height) largest = image
  }
  if (!largest) throw new Error('unreachable: the list of validation images is not empty')
  return largest
}
