import type { Device } from '../engine/device.js'
import type { Signal } from '../engine/pipelines.js'
import { fittingSize, type SegmentationModel } from '../models/segmentation.js'
import { type Config, parseConfig } from '../train/config/parse.js'
import { takes } from '../train/data/batch.js'
import { usedBytes } from '../train/data/label-rules.js'
import { type MemoryImages, memoryBatch } from '../train/data/memory-batch.js'
import type { Image } from '../train/data/pixels.js'
import { UserError } from '../train/error.js'
import { methodOf, methods } from '../train/methods/index.js'
import { nonFiniteIn } from '../train/run/non-finite.js'
import { createTrainer } from '../train/trainer/create.js'
import type { StepResult } from '../train/trainer/step-result.js'
import type { Trainer } from '../train/trainer/trainer.js'
import { cropBatch, cropsOf, placesOf } from './crops.js'
import { EncoderFeatures } from './encoder-features.js'
import { type Picture, rgbOf } from './picture.js'

/** A picture, and what it shows. */
export interface LabeledPicture {
  readonly image: Picture
  /** A class for each pixel, [H, W]; 255 where none is known, which is not learned from. */
  readonly labels: Uint8Array
}

/** How far the features of a fine-tuning of the head are computed. */
export interface FeatureProgress {
  /** Crops whose features are there, each of which went through the encoder once. */
  readonly computed: number
  /** All that there are to be, mirror images included. */
  readonly crops: number
  /** What the features so far take in bytes. */
  readonly bytes: number
}

/** How far a fine-tuning is. Kernels are compiled first, at step 0. */
export interface FineTuneProgress {
  readonly compiled: number
  readonly kernels: number
  /** With `head`, whose features are computed at step 0, too: their kernels first, then they, then the kernels of the steps. */
  readonly features?: FeatureProgress | undefined
  /** Steps done. */
  readonly step: number
  readonly steps: number
  /** Total loss of the last step; NaN before the first one. */
  readonly loss: number
  /** What the method shows besides, under the names of the log of `train.js`, such as `loss_x` and `mask_ratio`. */
  readonly metrics: Readonly<Record<string, number>>
}

export interface FineTuneOptions {
  readonly steps: number
  /** At the start; it falls to 0 as in `train.js`. The same for the whole network. */
  readonly learningRate: number
  /**
   * Trains the head alone: the encoder stays bit for bit as it is, and computes the features of each crop once, as in
   * evaluation; a step then takes the time of the head. So nothing is drawn at random of a picture: it is learned from in crops
   * that cover it as it is, in steps of two thirds of a crop, and in their mirror images, those without any label left out;
   * pictures smaller than a crop are padded. Features are float32, kept on the device up to 2^30 bytes in all and else on the
   * host; `onProgress` tells their bytes. By labeled pictures alone: the method is `supervised`. Default: false.
   * `settings: { lock_backbone: true }` trains the head by any method, with crops drawn as ever.
   */
  readonly head?: boolean | undefined
  /**
   * A method of `train.js`. Default: `prevmatch` with unlabeled pictures, else `supervised`. Not `co-training`, whose networks
   * of different kinds label images for each other: a segmenter has one of them.
   */
  readonly method?: string | undefined
  /** Pictures without labels, which semi-supervised methods learn from. */
  readonly unlabeled?: readonly Picture[] | undefined
  /** Labeled pictures in a step, or crops with `head`. Default: as many as there are, but 2 to 4. */
  readonly batchSize?: number | undefined
  /**
   * Side of the square crops that are learned from, in pixels. Default: the shortest side of all pictures, but 33 to 321, or
   * the multiple nearest to it that the model computes.
   */
  readonly cropSize?: number | undefined
  /** Of everything random. Default: 0. */
  readonly seed?: number | undefined
  /** Further keys of a configuration of `train.js`, such as `conf_thresh`. */
  readonly settings?: Readonly<Record<string, unknown>> | undefined
  /** An `AbortSignal`: the call then rejects with its reason, and the weights are those of before. */
  readonly signal?: Signal | undefined
  /** Called as kernels are compiled and behind each step. A promise of it is awaited before the next step. */
  readonly onProgress?: ((progress: FineTuneProgress) => void | Promise<void>) | undefined
}

/** What some methods do by epochs, such as keeping previous models, is done so many times. */
const mostEpochs = 10

/** The label of pixels whose class is not known. */
const unknownLabel = 255

/**
 * Trains a model from the weights that it has by a method of `train.js`; its `MethodContext` has no validation, so that each
 * epoch counts as a new best. Where that fails, or is ended early, the weights are those of before.
 *
 * @param turn runs a step when nothing else uses the model
 */
export async function fineTune(
  device: Device,
  model: SegmentationModel,
  samples: readonly LabeledPicture[],
  options: FineTuneOptions,
  turn: <T>(step: () => Promise<T>) => Promise<T>,
): Promise<void> {
  const { steps, signal, onProgress } = options
  signal?.throwIfAborted()
  const images = imagesOf(samples, options.unlabeled ?? [], model)
  const config = configOf(model, images, options)
  const method = methodOf(config.method)
  const layout = method.layout(config)
  if (takes(layout, 'unlabeled') && images.unlabeled.length === 0) {
    throw new UserError(`fine-tuning: the method ${config.method} needs unlabeled pictures: give them as 'unlabeled'`)
  }
  const iterationsPerEpoch = Math.ceil(steps / config.epochs)
  const { batch_size: batchSize, crop_size: size, seed, ignore_index: ignoreIndex } = config
  const longest = Math.max(...layout.map(({ perStep = 1 }) => perStep)) * batchSize * iterationsPerEpoch
  const crops = options.head ? cropsOf(images.labeled, size, unknownLabel) : []
  // Each place of a list has random choices of its own: no epoch begins one again.
  const lists = { labeled: repeated(images.labeled, longest), unlabeled: repeated(images.unlabeled, longest) }
  let compiled = 0
  let kernels = 0
  let encoder: EncoderFeatures | undefined
  let features: FeatureProgress | undefined
  const report = (step: number, { total_loss: loss = Number.NaN, ...metrics }: Readonly<Record<string, number>> = {}) =>
    onProgress?.({ compiled, kernels, features, step, steps, loss, metrics })
  const told: Promise<void>[] = []
  const watch = {
    signal,
    onProgress: (done: number, total: number) => {
      compiled = done
      kernels = total
      const answer = Promise.resolve(report(0))
      // It is awaited when all kernels are compiled; until then a failure would count as unhandled.
      answer.catch(() => {})
      told.push(answer)
    },
  }
  const before = model.store.snapshot('weights before fine-tuning')
  const batches = new Map(model.batchesTracked)
  let trainer: Trainer | undefined
  try {
    if (options.head) {
      encoder = await EncoderFeatures.create(device, model, { size, batchSize }, watch)
      await Promise.all(told)
      for (const { image } of crops) {
        signal?.throwIfAborted()
        await turn(() => (encoder as EncoderFeatures).add(image))
        features = { computed: (features?.computed ?? 0) + 1, crops: crops.length, bytes: encoder.bytes }
        await report(0)
      }
      encoder.finish()
    }
    trainer = await createTrainer(device, encoder?.model ?? model, config, {
      iterationsPerEpoch,
      labeled: batchSize,
      unlabeled: batchSize,
      height: size,
      width: size,
      ...watch,
    })
    await Promise.all(told)
    while (trainer.iteration < steps) {
      signal?.throwIfAborted()
      const { iteration, epoch } = trainer
      const within = iteration - epoch * iterationsPerEpoch
      if (within === 0) trainer.beginEpoch(true)
      const place = { epoch, iteration: within, iterationsPerEpoch }
      const places = encoder ? placesOf(iteration, crops.length, batchSize, seed) : []
      const batch = encoder
        ? cropBatch(layout, crops, places)
        : memoryBatch(layout, lists, { size, batchSize, seed, ignoreIndex }, place)
      const result = await turn(() => {
        encoder?.load(places)
        return (trainer as Trainer).step(batch)
      })
      check(result, iteration + 1)
      await report(iteration + 1, result.metrics)
    }
    signal?.throwIfAborted()
    const best = trainer.run.deployed[0]?.model
    if (best && best.store !== model.store) await turn(async () => model.store.copyFrom(best.store))
  } catch (error) {
    const restore = async () => {
      model.store.copyFrom(before)
      for (const [name, count] of batches) model.batchesTracked.set(name, count)
    }
    // Its turn fails where the model was given up or its device is lost: then no weights are left to restore.
    await turn(restore).catch(() => {})
    throw error
  } finally {
    trainer?.destroy()
    encoder?.destroy()
    before.destroy()
  }
}

function check(result: StepResult, step: number): void {
  const broken = nonFiniteIn(result)
  if (broken === undefined) return
  throw new UserError(
    `fine-tuning: step ${step}: ${broken.what}: lower the learning rate; the weights are those of before`,
  )
}

function imagesOf(
  samples: readonly LabeledPicture[],
  unlabeled: readonly Picture[],
  { config: { nclass } }: SegmentationModel,
): MemoryImages {
  if (samples.length === 0) throw new UserError('fine-tuning: there are no labeled pictures: give one at least')
  const labeled = samples.map(({ image, labels }, i) => {
    const { width, height } = image
    if (labels.length !== width * height) {
      throw new UserError(
        `fine-tuning: picture ${i} has ${width}x${height} pixels and ${labels.length} labels: give one for each pixel`,
      )
    }
    const wrong = usedBytes(labels).find((value) => value >= nclass && value !== unknownLabel)
    if (wrong !== undefined) {
      throw new UserError(
        `fine-tuning: picture ${i} has the label ${wrong}, but the classes are 0 to ${nclass - 1} and ${unknownLabel} is ignored`,
      )
    }
    return { image: rgbOf(image), label: { data: labels, width, height } }
  })
  if (labeled.every(({ label }) => label.data.every((value) => value === unknownLabel))) {
    throw new UserError('fine-tuning: no pixel has a label: label some')
  }
  return { labeled, unlabeled: unlabeled.map(rgbOf) }
}

/** @throws UserError for settings that no training has, or none of this model */
function configOf(model: SegmentationModel, images: MemoryImages, options: FineTuneOptions): Config {
  const { steps, learningRate, seed = 0 } = options
  const { labeled, unlabeled } = images
  const { nclass } = model.config
  const usual = unlabeled.length > 0 ? 'prevmatch' : 'supervised'
  const method = options.settings?.method ?? options.method ?? usual
  const { batchSize = Math.max(2, Math.min(4, labeled.length)), cropSize = cropFor(model, images) } = options
  if (!Number.isSafeInteger(steps) || steps < 1) {
    throw new UserError(`fine-tuning: steps is ${steps}: give a whole number of at least 1`)
  }
  if (options.head) checkHead(options, String(method))
  const known = methods().find(({ name }) => name === method)
  if (known?.models || (known && model.input === 'coefficients')) {
    const several =
      `${method} trains several networks of different kinds, which label images for each other, and a segmenter has one: ` +
      `choose another method, or train.js --method ${method}`
    const own = known.models ? several : 'the model reads DCT coefficients, which train.js alone learns from'
    throw new UserError(`fine-tuning: ${own}`)
  }
  const given = { crop_size: cropSize, batch_size: batchSize, epochs: Math.min(steps, mostEpochs), lr: learningRate }
  const locked = options.head ? { lock_backbone: true } : {}
  const config = parseConfig(
    { nclass, method, seed, lr_multi: 1, ...given, ...options.settings, ...locked },
    'fine-tuning',
  )
  if (config.nclass !== nclass || config.ignore_index !== unknownLabel) {
    throw new UserError(
      `fine-tuning: the model has ${nclass} classes, and ${unknownLabel} is ignored: leave 'nclass' and 'ignore_index' out`,
    )
  }
  const { crop_size: crop } = config
  const [fitting] = fittingSize(model, [crop, crop])
  if (fitting !== crop) {
    throw new UserError(
      `fine-tuning: 'crop_size' is ${crop}, but the model needs a multiple of ${model.multiple}, such as ${fitting}`,
    )
  }
  methodOf(config.method).check?.(config, (what) => new UserError(`fine-tuning: ${what}`))
  return config
}

/** Throws for what does not go with features that are computed once. */
function checkHead({ unlabeled = [], settings = {} }: FineTuneOptions, method: string): void {
  const fail = (what: string) => new UserError(`fine-tuning: ${what}`)
  const instead = "leave out 'head', and give settings: { lock_backbone: true }, which trains the head by any method"
  if (unlabeled.length > 0)
    throw fail(`'head' learns from labeled pictures alone: leave out 'unlabeled'; or ${instead}`)
  if (method !== 'supervised') {
    throw fail(`${method} changes pictures at each step, but with 'head' their features are computed once: ${instead}`)
  }
  if (settings.micro_batch !== undefined) throw fail("a step of 'head' takes its batch whole: leave out 'micro_batch'")
  if (settings.lock_backbone === false) throw fail("'head' locks the encoder: leave out 'lock_backbone' or 'head'")
}

/** Crops have sides of a multiple of 16, and one: the strides of a network divide them evenly. Or what the model needs. */
function cropFor(model: SegmentationModel, { labeled, unlabeled }: MemoryImages): number {
  const all = [...labeled.map(({ image }) => image), ...unlabeled]
  const shortest = Math.min(...all.map(({ width, height }: Image) => Math.min(width, height)))
  const side = Math.max(33, Math.min(321, Math.floor((shortest - 1) / 16) * 16 + 1))
  return fittingSize(model, [side, side])[0]
}

const repeated = <T>(list: readonly T[], length: number): readonly T[] =>
  list.length === 0 ? list : Array.from({ length: Math.max(length, list.length) }, (_, i) => list[i % list.length] as T)
