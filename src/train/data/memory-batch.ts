import { type Batch, type BatchLayout, batchBytes, batchViews, imagesOf, mixes } from './batch.js'
import { type Filling, fillFields, mixFields, orderOf, type Place, sampleAt } from './fill-batch.js'
import type { Image } from './pixels.js'

/** Images in memory, RGB [H, W, 3], and the labels [H, W] of labeled ones. */
export interface MemoryImages {
  readonly labeled: readonly { readonly image: Image; readonly label: Image }[]
  readonly unlabeled: readonly Image[]
}

/** Where a batch stands in a training; epochs and iterations within an epoch from 0. */
export interface BatchPlace {
  readonly epoch: number
  readonly iteration: number
  readonly iterationsPerEpoch: number
}

/** A batch of images in memory: byte for byte what the loader makes of files that hold the same lists of them. */
export function memoryBatch(
  layout: BatchLayout,
  images: MemoryImages,
  filling: Filling,
  { epoch, iteration, iterationsPerEpoch }: BatchPlace,
): Batch {
  const { size, batchSize, seed } = filling
  const batch = batchViews(new ArrayBuffer(batchBytes(layout, batchSize, size)), layout, batchSize, size)
  const places = layout.flatMap((stream): Place[] => {
    const count = imagesOf(stream, batchSize)
    const order = orderOf(stream, seed, epoch, images[stream.split].length)
    return Array.from({ length: count }, (_, position) => {
      return { stream, position, sample: sampleAt(order, iteration, count, position) }
    })
  })
  for (const place of places) {
    const { stream, sample } = place
    const pair = stream.split === 'labeled' ? images.labeled[sample] : undefined
    const image = pair?.image ?? images.unlabeled[sample]
    if (!image) throw new Error(`the stream ${stream.name} takes ${stream.split} images, and there are none`)
    fillFields(place, epoch, { image, label: pair?.label ?? null }, filling, batch)
  }
  const batchIndex = epoch * iterationsPerEpoch + iteration
  for (const place of places) if (mixes(place.stream, epoch)) mixFields(place, { epoch, batchIndex }, filling, batch)
  return batch
}
