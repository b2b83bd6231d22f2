// The random intensity-based augmentations of AugSeg (arXiv 2212.04976): each changes colours or sharpness alone, and
// the factors of those that Pillow calls enhancements only ever weaken an image.

import type { Random } from '../random.js'
import { gaussianBlur } from './blur.js'
import { adjustBrightness, adjustContrast, adjustHue, adjustSaturation } from './color.js'
import { autocontrast, equalize, posterize, solarize } from './lookup-tables.js'
import { adjustSharpness } from './sharpness.js'

type Draw = Pick<Random, 'uniform' | 'integer'>

interface Operation {
  /** Draws its parameter; one without draws nothing. */
  draw(random: Draw): number
  /** Changes RGB pixels of an image of the given width, in place. */
  apply(pixels: Uint8Array, width: number, parameter: number): void
}

const noParameter = (): number => 0

/** A factor above 0.05 up to 0.95. */
const factor = (random: Draw): number => 0.95 - 0.9 * random.uniform()

const blur: Operation = {
  draw: (random) => random.uniform(0.1, 2),
  apply: (pixels, width, radius) => gaussianBlur(pixels, width, radius),
}

const operations = {
  identity: { draw: noParameter, apply: () => {} },
  autocontrast: { draw: noParameter, apply: autocontrast },
  equalize: { draw: noParameter, apply: equalize },
  blur,
  contrast: { draw: factor, apply: (pixels, _, by) => adjustContrast(pixels, by) },
  brightness: { draw: factor, apply: (pixels, _, by) => adjustBrightness(pixels, by) },
  color: { draw: factor, apply: (pixels, _, by) => adjustSaturation(pixels, by) },
  sharpness: { draw: factor, apply: adjustSharpness },
  posterize: {
    draw: (random) => 8 - Math.max(1, Math.ceil(4 * random.uniform())),
    apply: (pixels, _, bits) => posterize(pixels, bits),
  },
  solarize: {
    draw: (random) => 256 - Math.max(1, Math.ceil(255 * random.uniform())),
    apply: (pixels, _, threshold) => solarize(pixels, threshold),
  },
  hue: {
    draw: (random) => {
      const turn = 0.5 * random.uniform()
      return random.uniform() < 0.5 ? -turn : turn
    },
    apply: (pixels, _, by) => adjustHue(pixels, by),
  },
} satisfies Readonly<Record<string, Operation>>

export type IntensityName = keyof typeof operations

/** The operations by name. */
export const intensityOperations: Readonly<Record<IntensityName, Operation>> = operations

export const intensityNames = Object.keys(operations) as readonly IntensityName[]

/** An operation with what was drawn for it. */
export interface IntensityDraw {
  readonly name: IntensityName
  readonly parameter: number
}

/** Draws 1 to `most` operations, with replacement. Order of draws: their number, then each operation and its parameter. */
export function drawIntensity(most: number, random: Draw): IntensityDraw[] {
  return Array.from({ length: random.integer(1, most + 1) }, () => {
    const name = intensityNames[random.integer(0, intensityNames.length)] ?? 'identity'
    return { name, parameter: intensityOperations[name].draw(random) }
  })
}

/** Applies operations one after another to RGB pixels of an image of the given width, in place. */
export function changeIntensity(pixels: Uint8Array, width: number, draws: readonly IntensityDraw[]): void {
  for (const { name, parameter } of draws) intensityOperations[name].apply(pixels, width, parameter)
}
