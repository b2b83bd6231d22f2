import { Random } from '../random.js'
import { augment, drawSample } from './augment.js'
import { type Batch, elementsOf, imagesOf, isMadeIn, isOfBatch, type StreamSpec } from './batch.js'
import { cutMixView, drawCutMix } from './cutmix-view.js'
import type { Image } from './pixels.js'

/** What the batches of a training have in common. */
export interface Filling {
  /** Side of the crops. */
  readonly size: number
  readonly batchSize: number
  readonly seed: number
  /** Label of the padding. */
  readonly ignoreIndex: number
}

/** Where an image belongs. */
export interface Place {
  readonly stream: StreamSpec
  /** Place in the batch. */
  readonly position: number
  /** Place in the list, which names the random stream of its choices. */
  readonly sample: number
}

/** The place in its list of each image of a stream in an epoch. */
export const orderOf = ({ purpose }: StreamSpec, seed: number, epoch: number, length: number): Uint32Array =>
  new Random(seed, epoch, purpose.order).permutation(length)

/**
 * The place in its list of the image at a place of a batch. A stream that takes more images than the epoch was measured for
 * begins its list again.
 */
export const sampleAt = (order: Uint32Array, iteration: number, count: number, position: number): number =>
  order[(iteration * count + position) % order.length] as number

const nothing = new Uint8Array()

/** Fills the fields of an image, except those that are made of all images of a batch. */
export function fillFields(
  { stream, position, sample }: Place,
  epoch: number,
  { image, label }: { readonly image: Image; readonly label: Image | null },
  { size, seed, ignoreIndex }: Filling,
  batch: Batch,
): void {
  const { fields, purpose, geometry } = stream
  const random = new Random(seed, epoch, purpose.sample, sample)
  const annotation = label ? { label, ignore: ignoreIndex } : undefined
  const draws = drawSample(image, size, fields, random, geometry, annotation)
  const parts = Object.entries(fields).map(([name, field]) => {
    const count = elementsOf(field, size)
    return [name, (batch[name] ?? nothing).subarray(position * count, (position + 1) * count)] as const
  })
  augment(image, label, size, fields, draws, Object.fromEntries(parts), ignoreIndex, geometry)
}

/** Fills the other fields at a place of a batch whose images are all there. */
export function mixFields(
  { stream, position }: Place,
  { epoch, batchIndex }: { readonly epoch: number; readonly batchIndex: number },
  { size, batchSize, seed }: Filling,
  batch: Batch,
): void {
  const { fields, purpose } = stream
  if (purpose.batch === undefined) throw new Error(`the stream ${stream.name} has no purpose of draws of a batch`)
  // Each place draws for all of them, so that all go by the same draws whichever thread has them.
  const draws = drawCutMix(imagesOf(stream, batchSize), size, new Random(seed, batchIndex, purpose.batch))
  for (const [name, field] of Object.entries(fields)) {
    if (!isOfBatch(field) || !isMadeIn(field, epoch)) continue
    const bytes = elementsOf(field, size)
    const out = bytesIn(batch, name).subarray(position * bytes, (position + 1) * bytes)
    cutMixView(bytesIn(batch, field.of), size, draws, position, out)
  }
}

function bytesIn(batch: Batch, name: string): Uint8Array {
  const field = batch[name]
  if (!(field instanceof Uint8Array)) throw new Error(`unreachable: the batch has no bytes '${name}'`)
  return field
}
