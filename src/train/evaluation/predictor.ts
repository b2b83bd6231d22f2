import type { Device } from '../../engine/device.js'
import type { DeepLabV3PlusConfig } from '../../models/deeplabv3plus.js'
import type { ModelConfig, SegmentationModel } from '../../models/segmentation.js'
import { cut, type Image } from '../data/pixels.js'
import { resizeBilinear, resizeNearest } from '../data/resize.js'
import { Evaluator } from './evaluator.js'
import { type Tile, tilesOf } from './tiles.js'

export interface PredictorOptions {
  /** Long side that images are shrunk or enlarged to before the model sees them. */
  readonly longSide?: number | undefined
  /** As in `EvaluationOptions`. */
  readonly flip?: boolean | undefined
  readonly scales?: readonly number[] | undefined
  readonly amp?: boolean | undefined
  /** Larger images are tiled; by default, what the adapter can hold. */
  readonly maxPixels?: number | undefined
}

/** Larger images are tiled on any adapter: at this size a ResNet-101 has 1.5 GB of intermediates. */
const maxPixelsAtOnce = 2 ** 22

/** Bytes of the largest buffer of a forward pass, per pixel of the image. */
function bytesPerPixel({
  stem,
  planes,
  expansion,
  replace_stride_with_dilation: dilated,
  ...config
}: DeepLabV3PlusConfig): number {
  const { reduce_channels: low, aspp_channels: wide, fuse_channels: fused, nclass } = config
  let stride = 4
  const stages = planes.map((width, i) => {
    if (i > 0 && !dilated[i - 1]) stride *= 2
    // The first convolution of a stage's first block is computed before the stride.
    return Math.max(
      (width * expansion) / stride ** 2,
      i === 0 ? 0 : width / (dilated[i - 1] ? stride : stride / 2) ** 2,
    )
  })
  const pyramid = (5 * wide) / stride ** 2
  const decoder = Math.max(low + wide, fused) / 16
  return 4 * Math.max(nclass, 3, Math.max(...stem) / 4, ...stages, pyramid, decoder)
}

/** Pixels of an image whose every buffer this adapter can bind. */
export function pixelLimit(device: Device, config: ModelConfig, scales: readonly number[] = [1]): number {
  const { maxStorageBufferBindingSize: binding, maxBufferSize: buffer } = device.gpu.limits
  const largest = Math.max(1, ...scales)
  // Maps round up to whole pixels: 5 % covers that from images of 40 pixels on.
  const fitting = (0.95 * Math.min(binding, buffer)) / bytesPerPixel(config as DeepLabV3PlusConfig)
  return Math.floor(Math.min(fitting, maxPixelsAtOnce) / largest ** 2)
}

/** Class masks of images of any size. */
export class Predictor {
  private readonly evaluator: Evaluator
  private readonly maxPixels: number

  constructor(
    private readonly device: Device,
    private readonly model: SegmentationModel,
    private readonly options: PredictorOptions = {},
  ) {
    const { flip = false, scales = [1], amp = false } = options
    this.evaluator = new Evaluator(device, model, { mode: 'original', flip, scales, amp })
    this.maxPixels = options.maxPixels ?? pixelLimit(device, model.config, scales)
  }

  /**
   * The mask [H, W] of an image [H, W, 3]: computed at `longSide`, with the scores resized to the size of the image. An
   * image that is too large for that is tiled, with a quarter of overlap, of which each tile gives the half nearer to
   * it; a mask whose scores are too large for the adapter is resized itself (nearest).
   */
  async predict(image: Image): Promise<Image> {
    const { width, height } = image
    const seen = this.resized(image)
    const tiles = tilesOf(seen.width, seen.height, this.maxPixels)
    const scoresFit =
      4 * this.model.config.nclass * width * height <= this.device.gpu.limits.maxStorageBufferBindingSize
    if (tiles.length === 1 && scoresFit) {
      const { label } = await this.evaluator.predict(seen, { width, height })
      return { data: Uint8Array.from(label), width, height }
    }
    const mask = { data: new Uint8Array(seen.width * seen.height), width: seen.width, height: seen.height }
    for (const tile of tiles) {
      const { label } = await this.evaluator.predict(tiles.length === 1 ? seen : cut(seen, 3, tile.seen))
      paste(mask, label, tile)
    }
    return seen === image ? mask : resizeNearest(mask, width, height)
  }

  /** Whether an image of this size is tiled. */
  tiles(width: number, height: number): number {
    const size = this.sizeOf(width, height)
    return tilesOf(size.width, size.height, this.maxPixels).length
  }

  destroy(): void {
    this.evaluator.destroy()
  }

  private sizeOf(width: number, height: number): { width: number; height: number } {
    const { longSide } = this.options
    if (longSide === undefined) return { width, height }
    const factor = longSide / Math.max(width, height)
    const scaled = (extent: number) => Math.max(1, Math.round(extent * factor))
    return { width: scaled(width), height: scaled(height) }
  }

  private resized(image: Image): Image {
    const { width, height } = this.sizeOf(image.width, image.height)
    return width === image.width && height === image.height ? image : resizeBilinear(image, width, height)
  }
}

/** Puts the kept part of a tile's prediction into the mask. */
function paste(mask: Image, label: Uint32Array, { seen, kept }: Tile): void {
  for (let y = kept.y; y < kept.y + kept.h; y++) {
    const from = (y - seen.y) * seen.w + kept.x - seen.x
    mask.data.set(label.subarray(from, from + kept.w), y * mask.width + kept.x)
  }
}
