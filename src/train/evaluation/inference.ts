import { scoped } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { flip } from '../../kernels/flip.js'
import { concat, slice } from '../../kernels/movement.js'
import { add, scale } from '../../kernels/pointwise.js'
import { resizeBilinear } from '../../kernels/resize.js'
import { resizedSoftmaxMax, softmax, softmaxMax } from '../../kernels/softmax.js'
import { logits, lowLogits, type SegmentationModel } from '../../models/segmentation.js'

type Size = readonly [height: number, width: number]

/** In what form a model gets an image. */
export interface InferenceOptions {
  /** Side of the windows that slide over the image in steps of two thirds of it; without it, the whole image. */
  readonly window?: number | undefined
  /** Also the mirrored image. */
  readonly flip?: boolean | undefined
  /** Sizes of the image as multiples of its own. */
  readonly scales?: readonly number[] | undefined
}

const evaluation = { training: false }

/** One pass, over the image as it is. */
export const isPlain = ({ scales = [1], flip = false }: InferenceOptions): boolean =>
  scales.length === 1 && scales[0] === 1 && !flip

const sizeOf = ({ shape }: Tensor): Size => [shape[1] ?? 0, shape[2] ?? 0]

/**
 * Class scores [1, H, W, nclass] of a normalised image [1, h, w, 3] at `size` = [H, W]: logits for one pass over the
 * whole image, else the mean of the probabilities of the passes. One pass by windows is the business of
 * `SlidingWindows`. A model that reads coefficients makes one pass over the whole image.
 *
 * A pass takes the image resized (bilinear, aligned corners) by one of the scales, mirrored or not. Its logits are resized
 * to `size`, then comes softmax, then it is mirrored back: the order of mmsegmentation's test-time augmentation. By
 * windows, a pass's probabilities are the mean over the windows that cover a pixel, resized to `size`.
 *
 * @param seen [h, w] of the image
 */
export function classScores(
  model: SegmentationModel,
  x: Tensor,
  seen: Size,
  size: Size,
  options: InferenceOptions,
): Tensor {
  const { window, scales = [1] } = options
  const mirrored = options.flip ? [false, true] : [false]
  if (isPlain(options) && window === undefined) return resizeBilinear(logits(model, x, evaluation, seen), size)
  const passes = scales.flatMap((factor) => {
    const resized = resizeBilinear(x, scaledSize(seen, factor))
    return mirrored.map((mirror) =>
      scoped(`scale ${factor}${mirror ? ' mirrored' : ''}`, () => {
        const view = mirror ? flip(resized) : resized
        const probabilities =
          window === undefined
            ? softmax(resizeBilinear(logits(model, view, evaluation), size))
            : resizeBilinear(windowScores(model, view, window), size)
        return mirror ? flip(probabilities) : probabilities
      }),
    )
  })
  return scale(passes.reduce(add), 1 / passes.length)
}

/**
 * The class of the highest score per pixel, u32 [1, H, W]: that of `classScores`, whose result is used where scores are
 * not simply resized logits; and, of one pass, its probability [1, H, W].
 */
export function classLabels(
  model: SegmentationModel,
  x: Tensor,
  seen: Size,
  size: Size,
  options: InferenceOptions,
): { readonly label: Tensor; readonly confidence: Tensor } {
  if (isPlain(options) && options.window === undefined) {
    const sameSize = seen[0] === size[0] && seen[1] === size[1]
    const scores = sameSize ? lowLogits(model, x, evaluation) : logits(model, x, evaluation, seen)
    return resizedSoftmaxMax(scores, size)
  }
  return softmaxMax(classScores(model, x, seen, size, options))
}

/** Windows of all passes over an image of a size. */
export function windowsOf([height, width]: Size, { window, scales = [1], flip = false }: InferenceOptions): number {
  if (window === undefined) return 0
  const along = (extent: number) => Math.ceil(extent / windowStep(window))
  const each = scales.map((factor) => scaledSize([height, width], factor)).map(([h, w]) => along(h) * along(w))
  return each.reduce((sum, count) => sum + count, 0) * (flip ? 2 : 1)
}

/** Scales as a text such as `0.75,1,1.25`; undefined where it is none. */
export function parseScales(text: string): number[] | undefined {
  const scales = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)))
  return scales.every((factor) => factor >= 0.1 && factor <= 4) ? [...new Set(scales)] : undefined
}

/** Height and width times a factor, at least one pixel. */
export const scaledSize = ([height, width]: Size, factor: number): Size => [
  Math.max(1, Math.floor(height * factor + 0.5)),
  Math.max(1, Math.floor(width * factor + 0.5)),
]

/** Starts of the windows along one side: 0, then steps, by default of two thirds of a window. */
export function windowStarts(extent: number, window: number, step = windowStep(window)): number[] {
  return Array.from({ length: Math.ceil(extent / step) }, (_, i) => i * step)
}

/** Pixels from one window to the next. */
export const windowStep = (window: number): number => Math.max(1, Math.floor((window * 2) / 3))

interface Window {
  readonly top: number
  readonly left: number
  readonly bottom: number
  readonly right: number
}

/**
 * Class probabilities [1, H, W, nclass] by windows that are cut at the border: the mean over those that cover a pixel,
 * added in row-major order of the windows.
 */
function windowScores(model: SegmentationModel, x: Tensor, side: number): Tensor {
  const [height, width] = sizeOf(x)
  const windows: Window[] = windowStarts(height, side).flatMap((top) =>
    windowStarts(width, side).map((left) => {
      return { top, left, bottom: Math.min(height, top + side), right: Math.min(width, left + side) }
    }),
  )
  const known = new Map<Window, Tensor>()
  // Computed when the first band needs them, so that those of the bands above are free by then.
  const probabilities = (window: Window): Tensor => {
    const { top, left, bottom, right } = window
    const found = known.get(window)
    if (found) return found
    const part = slice(slice(x, 1, top, bottom - top), 2, left, right - left)
    const made = scoped(`window ${top},${left}`, () => softmax(logits(model, part, evaluation)))
    known.set(window, made)
    return made
  }
  // Between two neighbouring edges of windows every pixel lies in the same windows.
  const rows = intervals(windows.flatMap(({ top, bottom }) => [top, bottom]))
  const columns = intervals(windows.flatMap(({ left, right }) => [left, right]))
  const bands = rows.map(([top, bottom]) => {
    const cells = columns.map(([left, right]) => {
      const covering = windows.filter((w) => w.top <= top && bottom <= w.bottom && w.left <= left && right <= w.right)
      const sum = covering
        .map((w) => slice(slice(probabilities(w), 1, top - w.top, bottom - top), 2, left - w.left, right - left))
        .reduce(add)
      return covering.length === 1 ? sum : scale(sum, 1 / covering.length)
    })
    return concat(cells, 2)
  })
  return concat(bands, 1)
}

/** The chunks between neighbouring edges. */
function intervals(edges: readonly number[]): [number, number][] {
  const sorted = [...new Set(edges)].sort((a, b) => a - b)
  return sorted.slice(1).map((end, i) => [sorted[i] ?? 0, end])
}
