import { statSync } from 'node:fs'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { chooseModel, createModel, type ModelChoice } from '#dist/models/index.js'
import { type Config, parseConfig } from '#dist/train/config/load.js'
import type { BatchLayout, StreamSpec } from '#dist/train/data/batch.js'
import type { Sample } from '#dist/train/data/dataset.js'
import { createLoader, type Loader } from '#dist/train/data/loader.js'
import { unimatchLayout } from '#dist/train/methods/unimatch.js'
import { PURPOSE } from '#dist/train/random.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import { nclass } from './photographs.js'

export interface LoaderMeasurement {
  readonly crop: number
  readonly stream: 'labeled' | 'unlabeled' | 'coefficients'
  /** Bytes of a photograph, on average. */
  readonly bytes: number
  /** Images per second of processor time of all threads, from files and from the cache of decoded images. */
  readonly fromFiles: number
  readonly fromCache: number
}

export interface WaitMeasurement {
  readonly crop: number
  readonly batch: number
  readonly workers: number
  readonly milliseconds: number
  /** Share of the time of a step in which it waits for its batch. */
  readonly share: number
}

/** What networks of RGB and of DCT coefficients learn together from: the views of each, of which the strong ones differ. */
const coefficientStream: StreamSpec = {
  name: 'coefficients',
  split: 'unlabeled',
  purpose: { order: PURPOSE.unlabeledOrder, sample: PURPOSE.unlabeledSample },
  fields: {
    img_u_w: { view: 'weak' },
    img_u_s: { view: 'strong', draw: 0 },
    coefficients_w: { view: 'coefficients' },
    coefficients_s: { view: 'coefficients', draw: 1 },
    ignore_mask: { view: 'padding' },
    box: { view: 'gridBox', draw: 1 },
  },
}

/** The list names each photograph so often: pausing between epochs would spoil the measurement. */
const repeats = 2000

function settings(crop: number, batch: number, classes: number): Config {
  const keys = { nclass: classes, crop_size: crop, batch_size: batch, epochs: 100, lr: 0.001, method: 'prevmatch' }
  return parseConfig(keys, 'the bench')
}

function load(
  samples: readonly Sample[],
  config: Config,
  changes: { layout?: BatchLayout; workers?: number; cacheBytes?: number },
): Loader {
  const list = Array(repeats).fill(samples).flat()
  return createLoader({ config, labeled: list, unlabeled: list, seed: 1, layout: unimatchLayout, ...changes })
}

/** Images per second of processor time, over about `seconds` of it, after `warmUp` images. */
async function imagesPerSecond(loader: Loader, batch: number, warmUp: number, seconds: number): Promise<number> {
  let images = -warmUp
  let begin = process.cpuUsage()
  for await (const _ of loader.epoch(0)) {
    if (images < 0) begin = process.cpuUsage()
    images = images < 0 ? Math.min(0, images + batch) : images + batch
    const { user, system } = process.cpuUsage(begin)
    const used = (user + system) / 1e6
    if (images > 0 && used >= seconds) return images / used
  }
  throw new Error('the list of photographs is too short')
}

/**
 * Reads and augments the images of one stream: of PrevMatch with their labels, or with three views each; with coefficients
 * of two views beside two views.
 * @param seconds of processor time
 */
export async function measureLoader(
  samples: readonly Sample[],
  stream: LoaderMeasurement['stream'],
  crop: number,
  seconds = 4,
): Promise<LoaderMeasurement> {
  const batch = 8
  const config = settings(crop, batch, nclass)
  const layout = [...unimatchLayout, coefficientStream].filter(({ name }) => name === stream)
  const rate = async (cacheBytes: number) => {
    const loader = load(samples, config, { layout, workers: 1, cacheBytes })
    try {
      return await imagesPerSecond(loader, batch, 4 * batch + 4 * samples.length, seconds)
    } finally {
      await loader.close()
    }
  }
  const bytes = samples.reduce((sum, { image }) => sum + statSync(image).size, 0) / samples.length
  return { crop, stream, bytes, fromFiles: await rate(0), fromCache: await rate(2 ** 30) }
}

/** Trains on the photographs and measures how long the steps wait for their batches. */
export async function measureWait(
  device: Device,
  choice: ModelChoice & { readonly nclass: number },
  samples: readonly Sample[],
  { crop, batch }: { crop: number; batch: number },
): Promise<WaitMeasurement> {
  const config = settings(crop, batch, Math.max(choice.nclass, nclass))
  const model = createModel(new Store(device, 'model'), chooseModel({ ...choice, nclass: config.nclass }))
  const sizes = { labeled: batch, unlabeled: batch, height: crop, width: crop }
  const trainer = await createTrainer(device, model, config, { iterationsPerEpoch: 100, ...sizes })
  const loader = load(samples, config, { cacheBytes: 0 })
  try {
    let waited = 0
    let total = 0
    let steps = -2
    let since = performance.now()
    for await (const data of loader.epoch(0)) {
      const ready = performance.now()
      await trainer.step(data)
      const done = performance.now()
      // The first steps zero fresh buffers and find empty queues.
      if (++steps > 0) {
        waited += ready - since
        total += done - since
      }
      since = done
      if (steps >= 6 && total >= 4000) break
    }
    const workers = loader.workers
    return { crop, batch, workers, milliseconds: total / steps, share: waited / total }
  } finally {
    await loader.close()
    trainer.destroy()
    model.store.destroy()
  }
}
