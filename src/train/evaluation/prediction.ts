import type { CompileOptions } from '../../engine/program.js'
import type { AnyImage } from '../data/image-parts.js'
import type { Image } from '../data/pixels.js'

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
  /** Larger images are computed in tiles whatever the adapter can hold, by default those of 2^22 pixels at the largest scale. */
  readonly maxPixels?: number | undefined
  /** Also make the scores of the classes available, [H, W, nclass]: logits, added or mean probabilities. */
  readonly scores?: boolean
  /** Also make the probability of the class available, of images that are computed in one pass. */
  readonly confidence?: boolean
  /** How what runs at the moment is followed and ended early: asked for each program that is made, and each tile. */
  readonly watch?: () => Pick<CompileOptions, 'signal' | 'onProgress'>
}

/** A labeled image; pixels row by row, the image in RGB. */
export interface EvaluationImage {
  readonly image: AnyImage
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
  /** [H, W], where it was asked for. */
  readonly confidence?: Float32Array
}

/** Rows of an image [h, W, 3] and their mask [h, W]. */
export interface PredictedRows {
  readonly image: Image
  readonly mask: Image
}
