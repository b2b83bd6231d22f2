import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encode } from 'fast-png'
import sharp from 'sharp'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { chooseModel, createModel, type ModelChoice } from '#dist/models/index.js'
import { type Config, parseConfig } from '#dist/train/config/load.js'
import type { Sample } from '#dist/train/data/dataset.js'
import { createLoader, type Loader } from '#dist/train/data/loader.js'
import { unimatchLayout } from '#dist/train/methods/unimatch.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import { Random } from '../cases/case.js'

export interface LoaderMeasurement {
  readonly crop: number
  /** Bytes of a photograph of 500x375, on average. */
  readonly bytes: number
  /** Images that one core reads and augments in a second, from files and from the cache of decoded pictures. */
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

const [width, height] = [500, 375]
const photographs = 12
/** The list names each photograph so often: pausing between epochs would spoil the measurement. */
const repeats = 200
const nclass = 21

/** Calls `body` with a folder of photographs and labels of the size of Pascal VOC's. */
export async function withPhotographs<T>(body: (samples: readonly Sample[]) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'atrous-bench-'))
  try {
    const samples: Sample[] = []
    for (let n = 0; n < photographs; n++) {
      const random = new Random(`photograph ${n}`)
      const waves = Array.from({ length: 3 }, () => [
        random.uniform() / 20,
        random.uniform() / 20,
        random.uniform() * 6,
      ])
      const shade = (x: number, y: number, c: number) =>
        waves.reduce((sum, [a = 0, b = 0, p = 0], i) => sum + 36 * Math.sin((1 + i) * (a * x + b * y) + p + c), 128)
      const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
        const at = Math.floor(i / 3)
        return Math.max(0, Math.min(255, shade(at % width, Math.floor(at / width), i % 3) + 24 * random.uniform()))
      })
      const label = Uint8Array.from({ length: width * height }, (_, i) => {
        const level = shade(i % width, Math.floor(i / width), 0)
        return level > 145 ? 1 + (n % (nclass - 1)) : level > 142 ? 255 : 0
      })
      const sample = { name: String(n), image: join(folder, `${n}.jpg`), label: join(folder, `${n}.png`) }
      await sharp(pixels, { raw: { width, height, channels: 3 } })
        .jpeg({ quality: 90 })
        .toFile(sample.image)
      writeFileSync(sample.label, encode({ width, height, channels: 1, data: label }))
      samples.push(sample)
    }
    return await body(Array(repeats).fill(samples).flat())
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function settings(crop: number, batch: number, classes: number): Config {
  const keys = { nclass: classes, crop_size: crop, batch_size: batch, epochs: 100, lr: 0.001, method: 'prevmatch' }
  return parseConfig(keys, 'the bench')
}

function load(samples: readonly Sample[], config: Config, changes: { workers?: number; cacheBytes?: number }): Loader {
  return createLoader({ config, labeled: samples, unlabeled: samples, seed: 1, layout: unimatchLayout, ...changes })
}

/** Images per second of processor time, over about `seconds` of it, after `warmUp` images. */
async function imagesPerCore(loader: Loader, batch: number, warmUp: number, seconds: number): Promise<number> {
  let images = -warmUp
  let begin = process.cpuUsage()
  for await (const _ of loader.epoch(0)) {
    if (images < 0) begin = process.cpuUsage()
    images = images < 0 ? Math.min(0, images + 3 * batch) : images + 3 * batch
    const { user, system } = process.cpuUsage(begin)
    const used = (user + system) / 1e6
    if (images > 0 && used >= seconds) return images / used
  }
  throw new Error('the list of photographs is too short')
}

/** Reads and augments batches of PrevMatch: labeled images, and twice as many unlabeled ones with three views each. */
export async function measureLoader(samples: readonly Sample[], crop: number, seconds = 4): Promise<LoaderMeasurement> {
  const batch = 8
  const config = settings(crop, batch, nclass)
  const rate = async (cacheBytes: number, warmUp: number) => {
    const loader = load(samples, config, { workers: 1, cacheBytes })
    try {
      return await imagesPerCore(loader, batch, warmUp, seconds)
    } finally {
      await loader.close()
    }
  }
  const bytes = samples.reduce((sum, { image }) => sum + statSync(image).size, 0) / samples.length
  return { crop, bytes, fromFiles: await rate(0, 2 * batch), fromCache: await rate(2 ** 30, 12 * photographs) }
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
