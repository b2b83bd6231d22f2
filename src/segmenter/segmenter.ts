import { digestOf, writeAtomically } from '#files'
import type { Device } from '../engine/device.js'
import { AtrousError } from '../engine/error.js'
import type { CompilationWatch, Signal } from '../engine/pipelines.js'
import type { SegmentationModel } from '../models/segmentation.js'
import { stateDict } from '../models/weights.js'
import { onnxOf } from '../onnx/export.js'
import { contentsOf, encode, metadataOf } from '../train/checkpoint/contents.js'
import { type LoadedModel, openModel } from '../train/checkpoint/loaded-model.js'
import { parsed } from '../train/checkpoint/parse.js'
import type { Rgb } from '../train/data/classes.js'
import { Evaluator } from '../train/evaluation/evaluator.js'
import { joinBytes } from '../train/io/byte-source.js'
import { safetensorsParts } from '../train/io/safetensors-format.js'
import { DeviceProgram, type DeviceSegmentation } from './device-program.js'
import { type FineTuneOptions, fineTune, type LabeledPicture } from './fine-tune.js'
import { type ImageSource, openSource, pixelsOf } from './image-source.js'
import { type CheckpointSource, readSource } from './source.js'

/** How far kernels are compiled. */
export interface CompileProgress {
  readonly compiled: number
  /** All that there are to be. */
  readonly kernels: number
}

/** How a call is followed, and ended early. */
export interface CallOptions {
  /** An `AbortSignal`: the call then rejects with its reason. */
  readonly signal?: Signal | undefined
  /** Called as kernels are compiled. */
  readonly onProgress?: ((progress: CompileProgress) => void) | undefined
}

export interface LoadOptions extends CallOptions {
  /** Also compile what pictures of this size need, so that the first one is as fast as the others. */
  readonly size?: { readonly width: number; readonly height: number } | undefined
}

export interface SegmentOptions extends CallOptions {
  /** Also give the scores of all classes. */
  readonly scores?: boolean | undefined
}

/** What a model says of a picture, row by row from the top. */
export interface Segmentation {
  readonly width: number
  readonly height: number
  /** The index of the most probable class of each pixel, [H, W]. */
  readonly labels: Uint8Array
  /** Its probability, [H, W]. */
  readonly confidence: Float32Array
  /** Logits, [H, W, classes], where they were asked for: their softmax are the probabilities. */
  readonly scores?: Float32Array
}

export interface ExportOptions {
  /** Height and width of the one image per run; by default any number of images of any size. */
  readonly size?: readonly [height: number, width: number] | undefined
}

/** What a checkpoint says of the training that it comes from, which is kept while nothing is learned on top. */
const kept = ['epoch', 'miou', 'bestMiou'] as const

/**
 * A segmentation model that is used, corrected and saved: what `predict.js`, `convert.js` and a short training do, on pixels
 * in memory, in Node and in a page alike. Calls of one segmenter take turns.
 */
export class Segmenter {
  /** Names of the classes, by index. */
  readonly classes: readonly string[]
  /** A colour for each class: red, green, blue, 0 to 255. */
  readonly palette: readonly Rgb[]
  private readonly model: SegmentationModel
  private readonly evaluators = new Map<boolean, Evaluator>()
  /** For pictures of the size of the last one. */
  private onDevice: DeviceProgram | undefined
  /** What a checkpoint says besides. */
  private info: Readonly<Record<string, unknown>>
  private watched: CallOptions = {}
  /** Settles when the calls before are done; it never rejects. */
  private last: Promise<unknown> = Promise.resolve()
  /** Calls that have not ended. */
  private running = 0
  private isDestroyed = false
  private isTuning = false

  private constructor(
    private readonly device: Device,
    loaded: LoadedModel,
  ) {
    this.classes = loaded.classNames
    this.palette = loaded.palette
    this.model = openModel(device, loaded)
    const said = kept.map((key) => [key, parsed(loaded.checkpoint.metadata[key])] as const)
    this.info = Object.fromEntries(said.filter(([, value]) => value !== undefined))
  }

  /**
   * Reads a checkpoint of a whole model: safetensors, or what torch.save wrote, of which nothing is executed.
   * @throws UserError that names the source and what is wrong with it
   */
  static async load(device: Device, source: CheckpointSource, options: LoadOptions = {}): Promise<Segmenter> {
    const { signal, size } = options
    signal?.throwIfAborted()
    const loaded = await readSource(source)
    signal?.throwIfAborted()
    const segmenter = new Segmenter(device, loaded)
    try {
      if (size) await segmenter.turn(options, () => segmenter.evaluator(false).plan(size))
    } catch (error) {
      segmenter.destroy()
      throw error
    }
    return segmenter
  }

  /**
   * The class of each pixel, as `predict.js` gives it. What an adapter cannot compute at once, and pictures of more than
   * 2^22 pixels, are computed in tiles that overlap by a quarter.
   * @throws UserError for a picture whose data do not have its size, or that is too small for the model
   */
  async segment(source: ImageSource, options: SegmentOptions = {}): Promise<Segmentation> {
    const { device } = this
    const opened = openSource(device, source)
    return this.turn(options, async () => {
      const image = opened.image ?? (await pixelsOf(device, opened.texture))
      const found = await this.evaluator(options.scores === true).predict(image)
      const { width, height, label, confidence = new Float32Array(), scores } = found
      return { width, height, labels: Uint8Array.from(label), confidence, ...(scores ? { scores } : {}) }
    }).finally(() => opened.close())
  }

  /**
   * The same labels as of `segment`, with their colors, left on the device: for pictures that follow one another, such as
   * those of a camera, nothing is read back. What is given is overwritten by the next such call, and destroyed where that is
   * for a picture of another size. Resolves when the device is done.
   * @throws UserError for a picture that cannot be used or is too large to be computed at once (2^22 pixels, or less where the
   * adapter binds less), and for a model that reads DCT coefficients
   */
  async segmentOnDevice(source: ImageSource, options: CallOptions = {}): Promise<DeviceSegmentation> {
    const opened = openSource(this.device, source)
    return this.turn(options, async () => {
      const { width, height } = opened.image ?? opened.texture
      const known = this.onDevice?.result
      if (known?.width !== width || known.height !== height) {
        this.onDevice?.destroy()
        this.onDevice = undefined
        const size = [height, width] as const
        this.onDevice = await DeviceProgram.create(this.device, this.model, this.palette, size, this.watch)
      }
      return (this.onDevice as DeviceProgram).run(opened)
    }).finally(() => opened.close())
  }

  /**
   * Trains on top of the weights: by the labeled pictures, and in semi-supervised methods by unlabeled ones as well. Other
   * calls take turns with its steps, and see the weights of the last one.
   * @throws UserError for pictures and options that cannot be used, and where a loss is no longer finite; whatever ends it
   * early, the weights are then those of before
   */
  fineTune(samples: readonly LabeledPicture[], options: FineTuneOptions): Promise<void> {
    return this.during(async () => {
      if (this.isTuning)
        throw new AtrousError('a segmenter is fine-tuned once at a time: await that, or end it by its signal')
      this.isTuning = true
      try {
        await fineTune(this.device, this.model, samples, options, (step) => this.turn({}, step))
        this.info = {}
      } finally {
        this.isTuning = false
      }
    })
  }

  /** The bytes of a safetensors file of the weights as they are now, which `load`, `predict.js` and PyTorch read. */
  toBytes(): Promise<Uint8Array> {
    return this.turn({}, async () => joinBytes(await this.parts()))
  }

  /**
   * Writes such a file, which appears under its name only when it is complete. In Node alone.
   * @throws WriteError where it cannot be written
   */
  save(path: string): Promise<void> {
    return this.turn({}, async () => writeAtomically(path, await this.parts()))
  }

  /**
   * The model as an ONNX file: input `image`, float32 [batch, 3, height, width], (value / 255 - mean) / std by ImageNet's
   * mean and deviation; output `logits`, float32 [batch, classes, height, width].
   * @throws UserError where the model has what ONNX lacks
   */
  exportOnnx({ size }: ExportOptions = {}): Promise<Uint8Array> {
    return this.turn({}, async () => {
      const metadata = encode({ ...this.description, ...metadataOf(this.model) })
      return joinBytes(onnxOf(this.model, await stateDict(this.model), 'the model', { size, metadata }))
    })
  }

  /** Frees what it holds on the device, when the call that runs has ended; those that wait for their turn fail. */
  destroy(): void {
    if (this.isDestroyed) return
    this.isDestroyed = true
    if (this.running === 0) this.free()
  }

  private free(): void {
    this.onDevice?.destroy()
    for (const evaluator of this.evaluators.values()) evaluator.destroy()
    this.model.store.destroy()
  }

  private get description(): Readonly<Record<string, unknown>> {
    return { ...this.info, class_names: this.classes, palette: this.palette }
  }

  private async parts(): Promise<readonly Uint8Array[]> {
    const { tensors, metadata } = await contentsOf(this.model, this.description)
    return safetensorsParts(tensors, metadata, digestOf)
  }

  private get watch(): CompilationWatch {
    const { signal, onProgress } = this.watched
    return { signal, onProgress: (compiled, kernels) => onProgress?.({ compiled, kernels }) }
  }

  private evaluator(scores: boolean): Evaluator {
    const known = this.evaluators.get(scores)
    if (known) return known
    const made = new Evaluator(this.device, this.model, {
      mode: 'original',
      confidence: true,
      scores,
      watch: () => this.watch,
    })
    this.evaluators.set(scores, made)
    return made
  }

  /** Runs a call when those before are done. */
  private turn<T>(options: CallOptions, body: () => Promise<T>): Promise<T> {
    const run = this.last.then(() =>
      this.during(async () => {
        options.signal?.throwIfAborted()
        this.watched = options
        try {
          return await body()
        } finally {
          this.watched = {}
        }
      }),
    )
    this.last = run.catch(() => {})
    return run
  }

  /** What a call works with stays until it has ended. */
  private async during<T>(body: () => Promise<T>): Promise<T> {
    if (this.isDestroyed) throw destroyed()
    this.running++
    try {
      return await body()
    } finally {
      if (--this.running === 0 && this.isDestroyed) this.free()
    }
  }
}

const destroyed = () => new AtrousError('this segmenter was destroyed: load it again')
