import type { Tensor } from '../../engine/ir.js'
import { type Spec, spec } from '../../engine/shape.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { PURPOSE, Random } from '../random.js'
import { type Draws, get, type Tensors } from './method.js'

const prefix = 'drop_'
const bitsOf = (name: string): string => `drop_bits_${name}`
const orderName = 'drop_perm'

/**
 * Multipliers of two views [2 · images, channels], the first view's in front: each channel lives in one of the views of an
 * image, twice as strong; the first half of the images, rounded down, in the order of `permutation` keep all in both.
 *
 * @param bits of each image and channel, 1 where it lives in the first view
 */
export function complementaryMultipliers(bits: ArrayLike<number>, permutation: ArrayLike<number>): Float32Array {
  const images = permutation.length
  const channels = bits.length / images
  const spared = new Set(Array.from(permutation).slice(0, Math.floor(images / 2)))
  const multipliers = new Float32Array(2 * bits.length)
  for (let image = 0; image < images; image++) {
    for (let c = image * channels; c < (image + 1) * channels; c++) {
      const first = spared.has(image) ? 1 : 2 * (bits[c] ?? 0)
      multipliers[c] = first
      multipliers[bits.length + c] = 2 - first
    }
  }
  return multipliers
}

/** Complementary dropout of the channels of two views' features: its inputs, their draws, and their use. */
export class ComplementaryDropout {
  /** Multipliers of each level by input name: [2 · images, channels]. */
  readonly inputs: Readonly<Record<string, Spec>>
  private readonly levels: SegmentationModel['dropoutLevels']

  constructor(
    private readonly seed: number,
    { dropoutLevels }: SegmentationModel,
    private readonly images: number,
  ) {
    this.levels = dropoutLevels
    const specs = dropoutLevels.map(({ name, channels }) => [prefix + name, spec([2 * images, channels])] as const)
    this.inputs = Object.fromEntries(specs)
  }

  /** The bits of each level, then the order in which images are spared. */
  draw(batchIndex: number): Draws {
    const random = new Random(this.seed, batchIndex, PURPOSE.dropout)
    const bits = this.levels.map(({ name, channels }) => {
      const drawn = Array.from({ length: this.images * channels }, () => (random.word() < 2 ** 31 ? 1 : 0))
      return [bitsOf(name), drawn] as const
    })
    return { ...Object.fromEntries(bits), [orderName]: random.permutation(this.images) }
  }

  /** The inputs' values. */
  values(draws: Draws): Record<string, Float32Array> {
    const values = this.levels.map(({ name }) => {
      const [bits = [], order = []] = [draws[bitsOf(name)], draws[orderName]]
      return [prefix + name, complementaryMultipliers(bits, order)] as const
    })
    return Object.fromEntries(values)
  }

  /** Within the step's trace: the multipliers of each level, in the order of the model's levels. */
  multipliers(inputs: Tensors): Tensor[] {
    return this.levels.map(({ name }) => get(inputs, prefix + name))
  }
}
