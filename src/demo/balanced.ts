import { UserError } from '../train/error.js'
import { classNames, scene } from './scenes.js'

/** Each class covers at least this share of a labeled scene: of few labels, each should say something of every class. */
const leastShare = 0.03

/**
 * Numbers of the first scenes of a world, from `first` on, in which every class has its least share.
 *
 * @param size side of the square images in pixels
 * @throws UserError where there are too few of that size
 */
export function balancedScenes(seed: number, size: number, count: number, first: number): number[] {
  const found: number[] = []
  const end = first + 1000 + 20 * count
  for (let index = first; index < end && found.length < count; index++) {
    const counts = new Array<number>(classNames.length).fill(0)
    for (const value of scene(seed, index, size).label) counts[value] = (counts[value] ?? 0) + 1
    if (Math.min(...counts) >= leastShare * size * size) found.push(index)
  }
  if (found.length < count) {
    throw new UserError(`scenes: at size ${size} too few scenes show every class; choose a larger size`)
  }
  return found
}
