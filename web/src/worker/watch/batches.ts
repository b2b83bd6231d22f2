import { elements } from '#dist/engine/shape.js'
import { augment, drawSample } from '#dist/train/data/augment.js'
import {
  type Batch,
  type BatchLayout,
  elementsOf,
  type FieldData,
  fieldSpec,
  imagesOf,
  isMadeIn,
  isOfBatch,
  type StreamSpec,
} from '#dist/train/data/batch.js'
import { cutMixView, drawCutMix } from '#dist/train/data/cutmix-view.js'
import type { Image } from '#dist/train/data/pixels.js'
import { Random } from '#dist/train/random.js'

/** A picture in memory, with its labels where it has any. */
export interface Sample {
  readonly image: Image
  readonly label: Image | null
}

/** Pictures of a list; an array is one. */
export interface SampleList {
  readonly length: number
  at(index: number): Sample | undefined
}

export interface BatchSettings {
  readonly layout: BatchLayout
  readonly batchSize: number
  /** Side of the crops in pixels. */
  readonly size: number
  readonly seed: number
  readonly iterationsPerEpoch: number
}

/** Batches of pictures that are in memory: orders and draws are those of the loader of a run with the same lists. */
export class Batches {
  constructor(
    private readonly settings: BatchSettings,
    private readonly lists: Readonly<Record<StreamSpec['split'], SampleList>>,
  ) {}

  /** The batch of a step, counted from 0. */
  at(iteration: number): Batch {
    const { layout, batchSize, size, iterationsPerEpoch } = this.settings
    const epoch = Math.floor(iteration / iterationsPerEpoch)
    const batch: Record<string, FieldData> = {}
    for (const stream of layout) {
      const count = imagesOf(stream, batchSize)
      for (const [name, field] of Object.entries(stream.fields)) {
        const { shape, dtype } = fieldSpec(field, count, size, size)
        batch[name] = dtype === 'f32' ? new Float32Array(elements(shape)) : new Uint8Array(elements(shape))
      }
      this.fill(stream, count, epoch, iteration % iterationsPerEpoch, batch)
      this.mix(stream, count, epoch, iteration, batch)
    }
    return batch
  }

  private fill(stream: StreamSpec, count: number, epoch: number, within: number, batch: Batch): void {
    const { size, seed, batchSize, iterationsPerEpoch } = this.settings
    const { fields, purpose, geometry, split } = stream
    const list = this.lists[split]
    // Labeled pictures are repeated to the length of an epoch.
    const length = Math.max(list.length, batchSize * iterationsPerEpoch)
    const order = new Random(seed, epoch, purpose.order).permutation(length)
    for (let position = 0; position < count; position++) {
      const place = order[(within * count + position) % length] ?? 0
      const sample = list.at(place % list.length)
      if (!sample) throw new Error(`there are no ${split} pictures`)
      const random = new Random(seed, epoch, purpose.sample, place)
      const draws = drawSample(sample.image, size, fields, random, geometry)
      const parts = Object.entries(fields).map(([name, field]) => {
        const bytes = elementsOf(field, size)
        return [name, batch[name]?.subarray(position * bytes, (position + 1) * bytes) ?? new Uint8Array()] as const
      })
      augment(sample.image, sample.label, size, fields, draws, Object.fromEntries(parts), 255, geometry)
    }
  }

  /** Fields that are made of all pictures of the batch together. */
  private mix(stream: StreamSpec, count: number, epoch: number, iteration: number, batch: Batch): void {
    const { size, seed } = this.settings
    for (const [name, field] of Object.entries(stream.fields)) {
      if (!isOfBatch(field) || !isMadeIn(field, epoch) || stream.purpose.batch === undefined) continue
      const draws = drawCutMix(count, size, new Random(seed, iteration, stream.purpose.batch))
      const [from, to] = [batch[field.of], batch[name]]
      if (!(from instanceof Uint8Array) || !(to instanceof Uint8Array)) continue
      const bytes = elementsOf(field, size)
      for (let place = 0; place < count; place++) {
        cutMixView(from, size, draws, place, to.subarray(place * bytes, (place + 1) * bytes))
      }
    }
  }
}
