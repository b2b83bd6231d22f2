// The CutMix view of Dual Teacher (Na et al., NeurIPS 2023), as its code makes it: images of a batch with boxes from one
// another, and then changes of colour, blur and flip of each.

import type { Random } from '../random.js'
import { colorJitter, type JitterDraws } from './augment.js'
import { gaussianBlur } from './blur.js'
import { type Box, MEAN, STD } from './pixels.js'

/** What is drawn for one image of the batch; null where the operation is left out. */
export interface MixedImageDraws {
  readonly jitter: JitterDraws | null
  /** Standard deviation of the blur, in pixels. */
  readonly sigma: number | null
  readonly flip: boolean
}

/** What is drawn for a batch. */
export interface CutMixDraws {
  /** Of each image: the image of the same batch that fills its box. */
  readonly sources: ArrayLike<number>
  /** Of each image, the same in it and in its source. May be empty. */
  readonly boxes: readonly Box[]
  readonly images: readonly MixedImageDraws[]
}

/**
 * A box around a centre, cut off at the borders of the image.
 * @param lambda share of the image that a whole box leaves
 */
export function cutBox(height: number, width: number, lambda: number, centerY: number, centerX: number): Box {
  const side = Math.sqrt(1 - lambda)
  const range = (extent: number, center: number): readonly [number, number] => {
    const half = Math.floor(Math.trunc(extent * side) / 2)
    return [Math.max(0, center - half), Math.min(extent, center + half)]
  }
  const [top, bottom] = range(height, centerY)
  const [left, right] = range(width, centerX)
  return { x: left, y: top, w: right - left, h: bottom - top }
}

/**
 * Order of draws: sources, share λ ~ Beta(4, 4) of all boxes, centres (y, then x); then for each image jitter (0.8), blur
 * (0.5) and flip (0.5).
 */
export function drawCutMix(images: number, size: number, random: Random): CutMixDraws {
  const sources = random.permutation(images)
  const lambda = random.beta(4, 4)
  const center = () => random.integer(Math.floor(size / 8), size)
  const boxes = Array.from({ length: images }, () => cutBox(size, size, lambda, center(), center()))
  const drawImage = (): MixedImageDraws => {
    const jitter =
      random.uniform() > 0.2
        ? {
            order: Array.from(random.permutation(4)),
            brightness: random.uniform(0.75, 1.25),
            contrast: random.uniform(0.75, 1.25),
            saturation: random.uniform(0.75, 1.25),
            hue: random.uniform(-0.25, 0.25),
          }
        : null
    const sigma = random.uniform() > 0.5 ? random.uniform(0.15, 1.15) : null
    return { jitter, sigma, flip: random.uniform() > 0.5 }
  }
  return { sources, boxes, images: Array.from({ length: images }, drawImage) }
}

const { fround } = Math

/**
 * What becomes of the 256 levels of the three channels when a normalised image is turned into bytes again: rounding in
 * float32, then truncation, takes one off some of them. [3, 256]
 */
export const denormalizedLevels: readonly Uint8Array[] = MEAN.map((mean, c) => {
  const deviation = STD[c] as number
  return Uint8Array.from({ length: 256 }, (_, level) => {
    const normalized = fround(fround(fround(level / 255) - fround(mean)) / fround(deviation))
    const restored = fround(fround(normalized / fround(1 / deviation)) + fround(mean))
    return Math.trunc(fround(restored * 255))
  })
})

/**
 * The view of the image at a place of the batch.
 * @param batch its images, [N, S, S, 3]
 * @param out receives the view, [S, S, 3]
 */
export function cutMixView(batch: Uint8Array, size: number, draws: CutMixDraws, place: number, out: Uint8Array): void {
  const bytes = 3 * size * size
  const imageAt = (index: number) => batch.subarray(index * bytes, (index + 1) * bytes)
  const [box, image] = [draws.boxes[place], draws.images[place]]
  if (!box || !image) throw new Error(`unreachable: nothing was drawn for image ${place}`)
  out.set(imageAt(place))
  const source = imageAt(draws.sources[place] ?? place)
  for (let row = box.y; row < box.y + box.h; row++) {
    const from = 3 * (row * size + box.x)
    out.set(source.subarray(from, from + 3 * box.w), from)
  }
  for (const [c, levels] of denormalizedLevels.entries()) {
    for (let at = c; at < bytes; at += 3) out[at] = levels[out[at] as number] as number
  }
  if (image.jitter) colorJitter(out, image.jitter)
  if (image.sigma !== null) gaussianBlur(out, size, image.sigma)
  if (image.flip) flipRows(out, size)
}

/** Mirrors an RGB image left to right, in place. */
function flipRows(pixels: Uint8Array, width: number): void {
  for (let start = 0; start < pixels.length; start += 3 * width) {
    for (let left = start, right = start + 3 * (width - 1); left < right; left += 3, right -= 3) {
      for (let c = 0; c < 3; c++) {
        const swapped = pixels[left + c] as number
        pixels[left + c] = pixels[right + c] as number
        pixels[right + c] = swapped
      }
    }
  }
}
