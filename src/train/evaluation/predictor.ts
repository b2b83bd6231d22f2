import type { Device } from '../../engine/device.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import type { ImageParts } from '../data/image-parts.js'
import type { Image } from '../data/pixels.js'
import { resizeBilinear, resizeNearest } from '../data/resize.js'
import { Evaluator, type ImageSize, type PredictedRows } from './evaluator.js'
import type { Tile } from './tiles.js'

export interface PredictorOptions {
  /** Long side that images are shrunk or enlarged to before the model sees them. */
  readonly longSide?: number | undefined
  /** As in `EvaluationOptions`. */
  readonly flip?: boolean | undefined
  readonly scales?: readonly number[] | undefined
  readonly amp?: boolean | undefined
  readonly maxPixels?: number | undefined
}

/** How an image is computed. */
export interface PredictionPlan {
  /** The size at which the model sees it. */
  readonly seen: ImageSize
  /** One where the whole image fits the adapter. */
  readonly tiles: readonly Tile[]
  /** Whether scores are resized to the size of the image before classes are compared, rather than the mask. */
  readonly resizesScores: boolean
}

/** Class masks of images of any size. */
export class Predictor {
  private readonly evaluator: Evaluator
  private readonly plans = new Map<string, Promise<PredictionPlan>>()

  constructor(
    device: Device,
    model: SegmentationModel,
    private readonly options: PredictorOptions = {},
  ) {
    const { flip = false, scales = [1], amp = false, maxPixels } = options
    this.evaluator = new Evaluator(device, model, { mode: 'original', flip, scales, amp, maxPixels })
  }

  /**
   * The mask [H, W] of an image [H, W, 3]: computed at `longSide`, with the scores resized to the size of the image. An
   * image that is too large for that is tiled, with a quarter of overlap, of which each tile gives the half nearer to
   * it; where scores cannot be resized, the mask itself is (nearest).
   */
  async predict(image: Image): Promise<Image> {
    const { width, height } = image
    const { seen: size, resizesScores } = await this.plan(image)
    const isSame = size.width === width && size.height === height
    const seen = isSame ? image : resizeBilinear(image, size.width, size.height)
    const out = resizesScores ? { width, height } : size
    const { label } = await this.evaluator.predict(seen, out)
    const mask = { data: Uint8Array.from(label), ...out }
    return isSame || resizesScores ? mask : resizeNearest(mask, width, height)
  }

  /** The same mask of an image that is read in parts, from top to bottom; `longSide` is not for these. */
  predictRows(image: ImageParts): AsyncGenerator<PredictedRows, void, undefined> {
    if (this.options.longSide !== undefined) throw new Error('an image that is read in parts is not resized')
    return this.evaluator.predictRows(image)
  }

  /** How an image of a size is computed: depends on nothing but the size, the model and the adapter. */
  plan({ width, height }: ImageSize): Promise<PredictionPlan> {
    const key = `${width}x${height}`
    const plan = this.plans.get(key) ?? this.makePlan({ width, height })
    this.plans.set(key, plan)
    return plan
  }

  destroy(): void {
    this.evaluator.destroy()
  }

  private async makePlan(size: ImageSize): Promise<PredictionPlan> {
    const seen = this.seenSize(size)
    const tiles = await this.evaluator.plan(seen)
    // The program is the one that predicts.
    const resizesScores = tiles.length === 1 && (await this.evaluator.prepare(seen, size))
    return { seen, tiles, resizesScores }
  }

  /** The size at which the model sees an image. */
  private seenSize({ width, height }: ImageSize): ImageSize {
    const { longSide } = this.options
    if (longSide === undefined) return { width, height }
    const factor = longSide / Math.max(width, height)
    const scaled = (extent: number) => Math.max(1, Math.round(extent * factor))
    return { width: scaled(width), height: scaled(height) }
  }
}
