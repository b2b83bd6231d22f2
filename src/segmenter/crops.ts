import { augment } from '../train/data/augment.js'
import type { Batch, BatchLayout } from '../train/data/batch.js'
import type { MemoryImages } from '../train/data/memory-batch.js'
import { windowStarts } from '../train/evaluation/inference.js'
import { joinBytes } from '../train/io/byte-source.js'
import { PURPOSE, Random } from '../train/random.js'

/** A square part of a labeled picture. */
export interface Crop {
  /** RGB, [S, S, 3]. */
  readonly image: Uint8Array
  /** [S, S]. */
  readonly labels: Uint8Array
}

/**
 * The crops of side `size` that cover labeled pictures as windows do, in steps of two thirds of a crop, each followed by its
 * mirror image. Pictures that are smaller are padded with black, which has the label `ignored`; crops in which every pixel has
 * it are left out.
 */
export function cropsOf(pictures: MemoryImages['labeled'], size: number, ignored: number): Crop[] {
  const fields = { image: { view: 'weak' }, labels: { view: 'label' } } as const
  return pictures.flatMap(({ image, label }) => {
    const { width, height } = image
    const starts = (extent: number) => windowStarts(extent, size, undefined, true)
    const corners = starts(height).flatMap((cropY) => starts(width).map((cropX) => ({ cropX, cropY })))
    return corners.flatMap((corner) =>
      [false, true].flatMap((flip) => {
        const crop = { image: new Uint8Array(size * size * 3), labels: new Uint8Array(size * size) }
        augment(image, label, size, fields, { width, height, ...corner, flip, strong: [] }, crop, ignored)
        return crop.labels.some((value) => value !== ignored) ? [crop] : []
      }),
    )
  })
}

/**
 * Places, in a list of `count`, of what a step learns from: all are taken once before any is taken again, in an order that
 * is drawn anew each time.
 * @param step from 0
 */
export function placesOf(step: number, count: number, batchSize: number, seed: number): number[] {
  return Array.from({ length: batchSize }, (_, position) => {
    const taken = step * batchSize + position
    const order = new Random(seed, Math.floor(taken / count), PURPOSE.labeledOrder).permutation(count)
    return order[taken % count] ?? 0
  })
}

/** The batch of these crops: a method's labeled images, and their labels. */
export function cropBatch(layout: BatchLayout, crops: readonly Crop[], places: readonly number[]): Batch {
  const fields = layout.flatMap((stream) => Object.entries(stream.fields))
  return Object.fromEntries(
    fields.map(([name, { view }]) => {
      return [name, joinBytes(places.flatMap((place) => crops[place]?.[view === 'label' ? 'labels' : 'image'] ?? []))]
    }),
  )
}
