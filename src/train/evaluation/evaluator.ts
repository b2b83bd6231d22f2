import { Arena } from '../../engine/arena.js'
import { BindingLimitError, type Device } from '../../engine/device.js'
import { canBind, dryDevice } from '../../engine/dry-device.js'
import { assign, read } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { compile, type Program } from '../../engine/program.js'
import { spec } from '../../engine/shape.js'
import { Store, type Variable } from '../../engine/store.js'
import { normalizeImage } from '../../kernels/images.js'
import { confusionMatrix } from '../../kernels/metrics.js'
import { concat } from '../../kernels/movement.js'
import { castCall } from '../../kernels/pointwise.js'
import { softmaxMax } from '../../kernels/softmax.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { cut, type Image } from '../data/pixels.js'
import { UserError } from '../error.js'
import { classLabels, classScores } from './inference.js'
import { type Scores, scoresOf } from './metrics.js'

export { type Scores, scoresOf } from './metrics.js'

export interface EvaluationOptions {
  /**
   * `original`: the whole image at once. `center_crop`: only the square of side `window` in the middle of image and
   * label, or less where they are smaller. `sliding_window`: windows of side `window` in steps of two thirds of it, cut
   * at the border, whose class probabilities are added.
   */
  readonly mode: 'original' | 'center_crop' | 'sliding_window'
  /** Side of the windows or of the crop. */
  readonly window?: number
  readonly ignoreIndex?: number
  /** Compute in half precision: the adapter must have it. */
  readonly amp?: boolean
  /** Average the class probabilities with those of the mirrored image; see `classScores`. */
  readonly flip?: boolean
  /** Average the class probabilities over these sizes of the image, as multiples of its own; see `classScores`. */
  readonly scales?: readonly number[]
  /** Also make the scores of the classes available, [H, W, nclass]: logits, added or mean probabilities. */
  readonly scores?: boolean
}

/** A labeled image; pixels row by row, the image in RGB. */
export interface EvaluationImage {
  readonly image: Readonly<Image>
  readonly label: Readonly<Image>
}

/** What a model says of an image. */
export interface Prediction {
  readonly width: number
  readonly height: number
  /** The most probable class of each pixel, [H, W]. */
  readonly label: Uint32Array
  /** [H, W, nclass], where they were asked for. */
  readonly scores?: Float32Array
}

/**
 * Programs for images of so many sizes are kept. They share their buffers, so what one holds is its trace and bind
 * groups: with ResNet-101, 64 of them take 167 MiB of host memory.
 */
const programsKept = 64

/** Counts on the device have 32 bits. */
const maxCountedPixels = 2 ** 32 - 1

/** Width and height in pixels. */
export interface ImageSize {
  readonly width: number
  readonly height: number
}

interface Sizes {
  readonly height: number
  readonly width: number
  /** Of the prediction. */
  readonly outHeight: number
  readonly outWidth: number
}

/**
 * Predicts and scores with a model in evaluation mode.
 *
 * Every image is computed at its own size, without padding: there is a program for each size, so results do not depend
 * on which other images are in the list. Programs share pipelines (shapes are uniforms) and, in an arena, buffers; what
 * a new size costs is the host's tracing and binding, which runs while the device works on the image before.
 */
export class Evaluator {
  private readonly programs = new Map<string, Program>()
  private readonly workspace: Store
  private readonly arena: Arena
  private readonly counts: Variable
  /** Counts taken from the device before they could overflow. */
  private earlier: Float64Array
  private countedPixels = 0
  /** Settles when the device is done with the image before. */
  private running: Promise<undefined> | undefined

  constructor(
    private readonly device: Device,
    private readonly model: SegmentationModel,
    private readonly options: EvaluationOptions,
  ) {
    const { nclass } = model.config
    this.workspace = new Store(device, 'evaluation')
    this.arena = new Arena(device, 'evaluation buffer')
    this.counts = this.workspace.declare('counts', spec([nclass, nclass], 'u32'))
    this.earlier = new Float64Array(nclass * nclass)
  }

  /** Scores of the model's present weights on labeled images. `onImage` is called after each. */
  async evaluate(
    images: Iterable<EvaluationImage> | AsyncIterable<EvaluationImage>,
    onImage?: (done: number) => void,
  ): Promise<Scores> {
    this.reset()
    let done = 0
    for await (const pair of images) {
      await this.add(pair)
      onImage?.(++done)
    }
    return this.scores()
  }

  /** Forgets the images that were counted. */
  reset(): void {
    this.earlier.fill(0)
    this.clearDevice()
  }

  /**
   * Counts the pixels of a labeled image. Resolves when the device has begun with it, or with `predict` when it is done.
   * @returns the prediction, if asked for
   */
  async add({ image, label }: EvaluationImage, predict = false): Promise<Prediction | undefined> {
    const [seen, target] = [this.seen(image, 3), this.seen(label, 1)]
    const sizes = sizesOf(seen)
    const program = await this.program(sizes)
    // Images are queued only as fast as they are done.
    await this.settled()
    const pixels = seen.width * seen.height
    if (this.countedPixels + pixels > maxCountedPixels) {
      this.earlier = await this.confusion()
      this.clearDevice()
    }
    this.countedPixels += pixels
    program.run({ image: seen.data, target: target.data })
    this.running = this.device.gpu.queue.onSubmittedWorkDone()
    return predict ? this.fetch(program, sizes) : undefined
  }

  /** The images counted so far: [nclass, nclass], a row for each true class. */
  async confusion(): Promise<Float64Array> {
    await this.settled()
    const counts = await this.workspace.read('counts')
    return this.earlier.map((before, i) => before + (counts[i] ?? 0))
  }

  /** Scores of the images counted so far. */
  async scores(): Promise<Scores> {
    return scoresOf(await this.confusion(), this.model.config.nclass)
  }

  /**
   * Most probable class per pixel of an image [H, W, 3], and the scores where they were asked for; in mode
   * `center_crop`, of the crop.
   * @param size of the prediction where that is not the image's: scores are resized to it before classes are compared
   */
  async predict(image: Readonly<Image>, size?: ImageSize): Promise<Prediction> {
    const seen = this.seen(image, 3)
    const sizes = sizesOf(seen, size)
    const program = await this.program(sizes)
    await this.settled()
    const ignored = new Uint8Array(sizes.outWidth * sizes.outHeight).fill(this.ignoreIndex)
    program.run({ image: seen.data, target: ignored })
    return this.fetch(program, sizes)
  }

  /**
   * Makes the program for images of a size ahead.
   * @param out size of the prediction where that is not the image's
   * @returns whether the adapter can bind what it needs
   */
  prepare(size: ImageSize, out?: ImageSize): Promise<boolean> {
    return canBind(this.madeProgram(sizesOf(size, out)))
  }

  /** Whether the adapter can bind what images of a size need, by planning on a device that allocates nothing. */
  fits(size: ImageSize): Promise<boolean> {
    const { device } = dryDevice(this.device)
    return canBind(new Evaluator(device, this.model, this.options).compile(sizesOf(size)))
  }

  /** Frees programs and buffers; they are made again when needed. */
  release(): void {
    for (const program of this.programs.values()) program.destroy()
    this.programs.clear()
    this.arena.destroy()
  }

  destroy(): void {
    this.release()
    this.workspace.destroy()
  }

  private get ignoreIndex(): number {
    return this.options.ignoreIndex ?? 255
  }

  /** The part of an image that is evaluated. */
  private seen(image: Readonly<Image>, channels: number): Readonly<Image> {
    const { mode, window } = this.options
    if (mode !== 'center_crop' || window === undefined) return image
    const { width, height } = image
    const start = (extent: number) => Math.max(0, Math.floor((extent - window) / 2))
    const [w, h] = [Math.min(width, window), Math.min(height, window)]
    return cut(image, channels, { x: start(width), y: start(height), w, h })
  }

  private async settled(): Promise<void> {
    const { running } = this
    this.running = undefined
    if (running) await this.device.wait(running)
  }

  private clearDevice(): void {
    this.workspace.write('counts', new Uint32Array(this.earlier.length))
    this.countedPixels = 0
  }

  private async fetch(program: Program, { outWidth: width, outHeight: height }: Sizes): Promise<Prediction> {
    const label = await program.read('label', 'u32')
    const result = { width, height, label }
    return this.options.scores ? { ...result, scores: await program.read('scores') } : result
  }

  private async program(sizes: Sizes): Promise<Program> {
    try {
      return await this.madeProgram(sizes)
    } catch (error) {
      if (!(error instanceof BindingLimitError)) throw error
      throw new UserError(
        `an image of ${sizes.width}x${sizes.height} pixels is too large for this adapter in mode ` +
          `${this.options.mode}: choose sliding_window with smaller windows, or fewer scales`,
      )
    }
  }

  private async madeProgram(sizes: Sizes): Promise<Program> {
    const key = Object.values(sizes).join()
    const known = this.programs.get(key)
    if (known) {
      // A map keeps the order of insertion: the latest used is the last.
      this.programs.delete(key)
      this.programs.set(key, known)
      return known
    }
    const program = await this.compile(sizes)
    this.programs.set(key, program)
    for (const [other, old] of this.programs) {
      const tooMany = this.programs.size > programsKept
      if (other === key || !(tooMany || this.arena.hasOutgrown)) break
      old.destroy()
      this.programs.delete(other)
    }
    return program
  }

  private compile({ height, width, outHeight, outWidth }: Sizes): Promise<Program> {
    const inputs = { image: spec([1, height, width, 3], 'u8'), target: spec([1, outHeight, outWidth], 'u8') }
    const { flip, scales, mode } = this.options
    const window = mode === 'sliding_window' ? (this.options.window ?? Math.max(height, width)) : undefined
    const body = ({ image, target }: Record<keyof typeof inputs, Tensor>): Record<string, Tensor> => {
      const x = normalizeImage(image)
      const inference = { window, flip, scales }
      const bands = this.options.scores ? classScores(this.model, x, [outHeight, outWidth], inference) : undefined
      const labels =
        bands?.map((band) => softmaxMax(band).label) ?? classLabels(this.model, x, [outHeight, outWidth], inference)
      const label = concat(labels, 1)
      const { ignoreIndex } = this
      assign(this.counts, confusionMatrix(read(this.counts), label, target, { ignoreIndex }))
      return bands ? { label, scores: concat(bands, 1) } : { label }
    }
    const autocast = this.options.amp ? castCall : undefined
    const label = `evaluation at ${width}x${height}`
    return compile(this.device, inputs, body, { label, autocast, arena: this.arena })
  }
}

const sizesOf = ({ width, height }: ImageSize, out: ImageSize = { width, height }): Sizes => ({
  height,
  width,
  outHeight: out.height,
  outWidth: out.width,
})
