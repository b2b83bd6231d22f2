import type { Device } from '../../engine/device.js'
import { largestFitting } from '../../engine/dry-device.js'
import type { SegmentationModel } from '../../models/segmentation.js'
import { cut, type Image } from '../data/pixels.js'
import { resizeBilinear, resizeNearest } from '../data/resize.js'
import { Evaluator, type ImageSize } from './evaluator.js'
import { type Tile, tilesOf } from './tiles.js'

export interface PredictorOptions {
  /** Long side that images are shrunk or enlarged to before the model sees them. */
  readonly longSide?: number | undefined
  /** As in `EvaluationOptions`. */
  readonly flip?: boolean | undefined
  readonly scales?: readonly number[] | undefined
  readonly amp?: boolean | undefined
  /** Larger images are tiled whatever the adapter can hold, by default those of 2^22 pixels at the largest scale. */
  readonly maxPixels?: number | undefined
}

/** Larger images are tiled on any adapter: at this size a ResNet-101 has 1.5 GB of intermediates. */
const maxPixelsAtOnce = 2 ** 22

/** The steps in which tiles get smaller, by an eighth of a power of two in pixels, down to a few pixels. */
const tileSteps = 8 * 18
const pixelsAt = (maxPixels: number, step: number): number => Math.max(1, Math.floor(maxPixels * 2 ** (-step / 8)))

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
  private readonly maxPixels: number
  private readonly plans = new Map<string, Promise<PredictionPlan>>()
  /** The step at which tiles of another image fitted last. */
  private lastStep = 0

  constructor(
    device: Device,
    model: SegmentationModel,
    private readonly options: PredictorOptions = {},
  ) {
    const { flip = false, scales = [1], amp = false } = options
    this.evaluator = new Evaluator(device, model, { mode: 'original', flip, scales, amp })
    this.maxPixels = options.maxPixels ?? Math.floor(maxPixelsAtOnce / Math.max(1, ...scales) ** 2)
  }

  /**
   * The mask [H, W] of an image [H, W, 3]: computed at `longSide`, with the scores resized to the size of the image. An
   * image that is too large for that is tiled, with a quarter of overlap, of which each tile gives the half nearer to
   * it; where scores cannot be resized, the mask itself is (nearest).
   */
  async predict(image: Image): Promise<Image> {
    const { width, height } = image
    const { seen: size, tiles, resizesScores } = await this.plan(image)
    const isSame = size.width === width && size.height === height
    const seen = isSame ? image : resizeBilinear(image, size.width, size.height)
    if (resizesScores) {
      const { label } = await this.evaluator.predict(seen, { width, height })
      return { data: Uint8Array.from(label), width, height }
    }
    const mask = { data: new Uint8Array(size.width * size.height), ...size }
    for (const tile of tiles) {
      const { label } = await this.evaluator.predict(tiles.length === 1 ? seen : cut(seen, 3, tile.seen))
      paste(mask, label, tile)
    }
    return isSame ? mask : resizeNearest(mask, width, height)
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
    const [first, ...others] = tilesOf(seen.width, seen.height, this.maxPixels)
    // The programs are those that predict.
    if (first && others.length === 0) {
      if (await this.evaluator.prepare(seen, size)) return { seen, tiles: [first], resizesScores: true }
      if (await this.evaluator.prepare(seen)) return { seen, tiles: [first], resizesScores: false }
    }
    return { seen, tiles: await this.tilesThatFit(seen), resizesScores: false }
  }

  /** The largest tiles of an image that the adapter can hold. */
  private async tilesThatFit({ width, height }: ImageSize): Promise<Tile[]> {
    const at = (step: number) => tilesOf(width, height, pixelsAt(this.maxPixels, step))
    const fits = async (negative: number): Promise<boolean> => {
      const [tile] = at(-negative)
      return tile !== undefined && this.evaluator.fits({ width: tile.seen.w, height: tile.seen.h })
    }
    // Steps count down the size, so that larger numbers are larger tiles.
    const step = -((await largestFitting(-tileSteps, 0, fits, -this.lastStep)) ?? -tileSteps)
    this.lastStep = step
    return at(step)
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

/** Puts the kept part of a tile's prediction into the mask. */
function paste(mask: Image, label: Uint32Array, { seen, kept }: Tile): void {
  for (let y = kept.y; y < kept.y + kept.h; y++) {
    const from = (y - seen.y) * seen.w + kept.x - seen.x
    mask.data.set(label.subarray(from, from + kept.w), y * mask.width + kept.x)
  }
}
