import type { Config } from '../config/load.js'
import { evaluationSamples } from '../data/dataset.js'
import type { Image } from '../data/pixels.js'
import { UserError } from '../error.js'
import { evenlySpaced } from './check-samples.js'
import type { Lists } from './lists.js'

/** Validation images whose sizes are looked at. */
const maxImages = 400

/**
 * The largest validation image, as far as they are looked at and can be read: evaluation takes memory by its size.
 * @throws UserError where none can be read
 */
export async function largestImage({ validation }: Lists, config: Config): Promise<Image> {
  let largest: Image | undefined
  let fault = 'the list is empty'
  const samples = evaluationSamples(evenlySpaced(validation, maxImages), config, 2, (_, { message }) => {
    fault = message
  })
  for await (const { image } of samples) {
    if (!largest || image.width * image.height > largest.width * largest.height) largest = image
  }
  if (!largest) throw new UserError(`no validation image can be read: ${fault}`)
  return largest
}
