import type { Arena } from '../../engine/arena.js'
import { BindingLimitError, type Device } from '../../engine/device.js'
import { canBind, dryDevice, largestFitting } from '../../engine/dry-device.js'
import { assign, read } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { compile, type Program } from '../../engine/program.js'
import { spec } from '../../engine/shape.js'
import { Store, type Variable } from '../../engine/store.js'
import { confusionMatrix } from '../../kernels/metrics.js'
import { castCall } from '../../kernels/pointwise.js'
import { softmaxMax } from '../../kernels/softmax.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { type AnyImage, type ImageParts, partOf } from '../data/image-parts.js'
import { type Box, cut, type Image } from '../data/pixels.js'
import { UserError } from '../error.js'
import { classLabels, classScores, type InferenceOptions, isPlain, windowsOf } from './inference.js'
import { type Scores, scoresOf } from './metrics.js'
import { inputOf, inputSpec, normalizeInput, readsCoefficients } from './model-input.js'
import type { EvaluationImage, EvaluationOptions, PredictedRows, Prediction } from './prediction.js'
import { Programs } from './programs.js'
import { keptOnly, paste, type Tile, tilesOf } from './tiles.js'
import { SlidingWindows } from './windows.js'

export { type Scores, scoresOf } from './metrics.js'
export type { EvaluationImage, EvaluationOptions, PredictedRows, Prediction } from './prediction.js'

/** A prediction that is being put together. */
type Unfinished = { -readonly [Key in keyof Prediction]: Prediction[Key] }

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

/** Larger images are tiled on any adapter: at this size a ResNet-101 has 1.5 GB of intermediates. */
const maxPixelsAtOnce = 2 ** 22
/** Where windows slide over mirrored or resized images, one program computes all of a tile: so many at most. */
const maxWindowsAtOnce = 256

/** The steps in which tiles get smaller, by an eighth of a power of two in pixels, down to a few pixels. */
const tileSteps = 8 * 18
const pixelsAt = (maxPixels: number, step: number): number => Math.max(1, Math.floor(maxPixels * 2 ** (-step / 8)))

/**
 * Predicts and scores with a model in evaluation mode.
 *
 * Every image is computed at its own size, without padding: there is a program for each size, so results do not depend
 * on which other images are in the list. Programs share pipelines (shapes are uniforms) and, in an arena, buffers; what
 * a new size costs is the host's tracing and binding, which runs while the device works on the image before. An image
 * that is too large to be computed at once is computed in tiles of one size; see `plan`.
 */
export class Evaluator {
  private readonly programs: Programs
  private readonly workspace: Store
  private readonly counts: Variable
  private readonly windows: SlidingWindows | undefined
  private readonly maxPixels: number
  private readonly plans = new Map<string, Promise<readonly Tile[]>>()
  /** The step at which tiles of another image fitted last. */
  private lastStep = 0
  /** Counts taken from the device before they could overflow. */
  private earlier: Float64Array
  private countedPixels = 0
  private tiled = 0

  constructor(
    private readonly device: Device,
    private readonly model: SegmentationModel,
    private readonly options: EvaluationOptions,
  ) {
    const { nclass } = model.config
    const { mode, window: side, amp = false, scales = [1] } = options
    if (readsCoefficients(model) && !isPlain(options)) {
      throw new UserError(
        'a model that reads DCT coefficients has no mirrored or scaled views: leave out flip and scales',
      )
    }
    this.workspace = new Store(device, 'evaluation')
    this.programs = new Programs(device)
    this.counts = this.workspace.declare('counts', spec([nclass, nclass], 'u32'))
    this.earlier = new Float64Array(nclass * nclass)
    this.maxPixels = options.maxPixels ?? Math.floor(maxPixelsAtOnce / Math.max(1, ...scales) ** 2)
    if (mode === 'sliding_window' && side !== undefined && isPlain(options)) {
      this.windows = new SlidingWindows(device, model, this.programs, { side, amp }, (scores, target) => {
        const { label } = softmaxMax(scores)
        this.count(label, target)
        return options.scores ? { label, scores } : { label }
      })
    }
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
    this.tiled = 0
    this.clearDevice()
  }

  /** How many of the images counted so far were computed in tiles. */
  get tiledImages(): number {
    return this.tiled
  }

  /**
   * Counts the pixels of a labeled image. Resolves when the device has begun with it, or with `predict` when it is done.
   * @returns the prediction, if asked for
   */
  async add({ image, label }: EvaluationImage, predict = false): Promise<Prediction | undefined> {
    const [seen, target] = [await this.seen(image), this.targetOf(label)]
    const pixels = seen.width * seen.height
    if (this.countedPixels + pixels > maxCountedPixels) {
      this.earlier = await this.confusion()
      this.clearDevice()
    }
    this.countedPixels += pixels
    const result = predict ? this.unfinished(seen) : undefined
    if ((await this.compute(seen, target, result)) > 1) this.tiled++
    return result
  }

  /** The images counted so far: [nclass, nclass], a row for each true class. */
  async confusion(): Promise<Float64Array> {
    await this.programs.settled()
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
   * @param size of the prediction where that is not the image's: scores are resized to it before classes are compared,
   * and the image is not tiled
   */
  async predict(image: AnyImage, size?: ImageSize): Promise<Prediction> {
    const seen = await this.seen(image)
    const out = size ?? { width: seen.width, height: seen.height }
    const result = this.unfinished(out)
    const ignored = { ...out, data: new Uint8Array(out.width * out.height).fill(this.ignoreIndex) }
    if (out.width === seen.width && out.height === seen.height) await this.compute(seen, ignored, result)
    else {
      const whole = { x: 0, y: 0, w: out.width, h: out.height }
      const program = await this.program(sizesOf(seen, size))
      await this.programs.run(program, { image: await inputOf(this.model, seen), target: ignored.data })
      await this.take(program, whole, whole, result)
    }
    return result
  }

  /**
   * The mask of an image that is read in parts, from top to bottom, in the tiles of `plan`: what is held at a time are the
   * rows of a tile. Mirrored and scaled views as in `predict`.
   */
  async *predictRows(image: ImageParts): AsyncGenerator<PredictedRows, void, undefined> {
    const tiles = await this.plan(image)
    const { width } = image
    for (const top of new Set(tiles.map(({ kept }) => kept.y))) {
      const row = tiles.filter(({ kept }) => kept.y === top)
      const { seen: { y = 0, h = 0 } = {}, kept: { h: height = 0 } = {} } = row[0] ?? {}
      const rows = await image.part({ x: 0, y, w: width, h })
      const mask = { data: new Uint8Array(width * height), width, height }
      for (const { seen, kept } of row) {
        const { label } = await this.predict(cut(rows, 3, { ...seen, y: 0 }))
        paste(Uint8Array.from(label), 1, seen, kept, mask.data, width, top)
      }
      yield { image: cut(rows, 3, { x: 0, y: top - y, w: width, h: height }), mask }
    }
  }

  /**
   * Makes the program for images of a size ahead.
   * @param out size of the prediction where that is not the image's
   * @returns whether the adapter can bind what it needs
   */
  prepare(size: ImageSize, out?: ImageSize): Promise<boolean> {
    return canBind(this.madeProgram(sizesOf(size, out)))
  }

  /**
   * The parts in which an image of a size is computed: one where it is small enough, and in one pass by windows, else tiles
   * of one size that overlap by a quarter, each as an image of its own. Depends on nothing but the size, the model, the options and the adapter.
   */
  plan({ width, height }: ImageSize): Promise<readonly Tile[]> {
    const key = `${width}x${height}`
    const plan = this.plans.get(key) ?? this.makePlan({ width, height })
    this.plans.set(key, plan)
    // What was ended early is planned again.
    plan.catch(() => this.plans.delete(key))
    return plan
  }

  /** Whether the adapter can bind what images of a size need, by planning on a device that allocates nothing. */
  fits(size: ImageSize): Promise<boolean> {
    const { device } = dryDevice(this.device)
    return new Evaluator(device, this.model, this.options).prepare(size)
  }

  /** Frees programs and buffers; they are made again when needed. */
  release(): void {
    this.programs.release()
    this.windows?.destroy()
  }

  destroy(): void {
    this.release()
    this.workspace.destroy()
  }

  private get ignoreIndex(): number {
    return this.options.ignoreIndex ?? 255
  }

  /** The part of an image that is evaluated. */
  private async seen(image: AnyImage): Promise<AnyImage> {
    const box = this.cropOf(image)
    return box ? partOf(image, box) : image
  }

  /** The same part of its label. */
  private targetOf(label: Readonly<Image>): Readonly<Image> {
    const box = this.cropOf(label)
    return box ? cut(label, 1, box) : label
  }

  private cropOf({ width, height }: ImageSize): Box | undefined {
    const { mode, window } = this.options
    if (mode !== 'center_crop' || window === undefined) return undefined
    const start = (extent: number) => Math.max(0, Math.floor((extent - window) / 2))
    return { x: start(width), y: start(height), w: Math.min(width, window), h: Math.min(height, window) }
  }

  private clearDevice(): void {
    this.workspace.write('counts', new Uint32Array(this.earlier.length))
    this.countedPixels = 0
  }

  private async makePlan({ width, height }: ImageSize): Promise<readonly Tile[]> {
    const at = (step: number) => tilesOf(width, height, pixelsAt(this.maxPixels, step))
    const isSmall = (size: ImageSize) => windowsOf([size.height, size.width], this.passes) <= maxWindowsAtOnce
    const whole = at(0)
    // The program is the one that computes it.
    const isWhole = whole.length === 1 && isSmall({ width, height })
    if (this.windows || (isWhole && (await this.prepare({ width, height })))) {
      return tilesOf(width, height, width * height)
    }
    const fits = async (negative: number): Promise<boolean> => {
      const [tile] = at(-negative)
      const size = { width: tile?.seen.w ?? 0, height: tile?.seen.h ?? 0 }
      return isSmall(size) && this.fits(size)
    }
    // Steps count down the size, so that larger numbers are larger tiles.
    const step = -((await largestFitting(-tileSteps, 0, fits, -this.lastStep)) ?? -tileSteps)
    this.lastStep = step
    return at(step)
  }

  /** Computes an image in its parts, and counts it. Returns the number of parts. */
  private async compute(image: AnyImage, target: Readonly<Image>, result?: Unfinished): Promise<number> {
    if (this.windows) {
      const take = (program: Program, outputs: Box, kept: Box) =>
        result ? this.take(program, outputs, kept, result) : Promise.resolve()
      await this.windows.run(image, target, this.ignoreIndex, take)
      return 1
    }
    const tiles = await this.plan(image)
    const isWhole = tiles.length === 1
    for (const { seen, kept } of tiles) {
      this.options.watch?.().signal?.throwIfAborted()
      const program = await this.program(sizesOf({ width: seen.w, height: seen.h }))
      await this.programs.run(program, {
        image: await inputOf(this.model, isWhole ? image : await partOf(image, seen)),
        target: isWhole ? target.data : keptOnly(target, seen, kept, this.ignoreIndex),
      })
      if (result) await this.take(program, seen, kept, result)
    }
    return tiles.length
  }

  private unfinished({ width, height }: ImageSize): Unfinished {
    const pixels = width * height
    const result = { width, height, label: new Uint32Array(pixels) }
    const { scores, confidence } = this.options
    return {
      ...result,
      ...(scores ? { scores: new Float32Array(pixels * this.model.config.nclass) } : {}),
      ...(confidence ? { confidence: new Float32Array(pixels) } : {}),
    }
  }

  /**
   * Takes what was computed into a prediction.
   * @param outputs where the outputs of the program lie in it
   * @param kept what of them is taken
   */
  private async take(program: Program, outputs: Box, kept: Box, result: Unfinished): Promise<void> {
    paste(await program.read('label', 'u32'), 1, outputs, kept, result.label, result.width)
    const { scores, confidence, width } = result
    const { nclass } = this.model.config
    if (confidence) paste(await program.read('confidence'), 1, outputs, kept, confidence, width)
    if (scores) paste(await program.read('scores'), nclass, outputs, kept, scores, width)
  }

  private async program(sizes: Sizes): Promise<Program> {
    try {
      return await this.madeProgram(sizes)
    } catch (error) {
      if (!(error instanceof BindingLimitError)) throw error
      throw new UserError(`${error.message}: not even ${sizes.width}x${sizes.height} pixels at a time can be computed`)
    }
  }

  private madeProgram(sizes: Sizes): Promise<Program> {
    return this.programs.get(Object.values(sizes).join(), (arena) => this.compile(sizes, arena))
  }

  /** In what form the model gets an image. */
  private get passes(): InferenceOptions {
    const { flip, scales, mode, window } = this.options
    return { flip, scales, window: mode === 'sliding_window' ? window : undefined }
  }

  private count(label: Tensor, target: Tensor): void {
    const { ignoreIndex } = this
    assign(this.counts, confusionMatrix(read(this.counts), label, target, { ignoreIndex }))
  }

  private compile({ height, width, outHeight, outWidth }: Sizes, arena: Arena): Promise<Program> {
    const seen = [height, width] as const
    const inputs = { image: inputSpec(this.model, 1, ...seen), target: spec([1, outHeight, outWidth], 'u8') }
    const body = ({ image, target }: Record<keyof typeof inputs, Tensor>): Record<string, Tensor> => {
      const x = normalizeInput(this.model, image)
      const size = [outHeight, outWidth] as const
      const { options, passes } = this
      const scores = options.scores ? classScores(this.model, x, seen, size, passes) : undefined
      const { label, confidence } =
        scores && !options.confidence ? softmaxMax(scores) : classLabels(this.model, x, seen, size, passes)
      this.count(label, target)
      return { label, ...(scores ? { scores } : {}), ...(options.confidence ? { confidence } : {}) }
    }
    const autocast = this.options.amp ? castCall : undefined
    const label = `evaluation at ${width}x${height}`
    return compile(this.device, inputs, body, { label, autocast, arena, ...this.options.watch?.() })
  }
}

const sizesOf = ({ width, height }: ImageSize, out: ImageSize = { width, height }): Sizes => ({
  height,
  width,
  outHeight: out.height,
  outWidth: out.width,
})
