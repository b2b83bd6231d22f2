import type { Device } from '../engine/device.js'
import { assign, read, scoped, type Tensor } from '../engine/graph.js'
import { compile, type Program } from '../engine/program.js'
import { spec } from '../engine/shape.js'
import { Store, type Variable } from '../engine/store.js'
import { normalizeImage } from '../kernels/augment.js'
import { confusionMatrix } from '../kernels/metrics.js'
import { concat, slice } from '../kernels/movement.js'
import { add } from '../kernels/pointwise.js'
import { softmax, softmaxMax } from '../kernels/softmax.js'
import type { DeepLabV3Plus } from '../models/deeplabv3plus.js'

/** Result of an evaluation. */
export interface Scores {
  /** Per class: pixels of the class that were found. */
  readonly intersection: number[]
  /** Per class: pixels of the class or taken for it. */
  readonly union: number[]
  /** Per class, in percent; 0 for a class that occurs nowhere. */
  readonly iou: number[]
  /** Mean over all classes, in percent. */
  readonly miou: number
}

/** Scores of a confusion matrix [K, K] whose rows are the true classes. */
export function scoresOf(counts: ArrayLike<number>, nclass: number): Scores {
  const at = (target: number, predicted: number) => counts[target * nclass + predicted] ?? 0
  const classes = Array.from({ length: nclass }, (_, k) => k)
  const total = (values: number[]) => values.reduce((sum, value) => sum + value, 0)
  const intersection = classes.map((k) => at(k, k))
  const union = classes.map((k) => total(classes.map((j) => at(k, j) + at(j, k))) - at(k, k))
  const iou = classes.map((k) => (100 * (intersection[k] ?? 0)) / ((union[k] ?? 0) + 1e-10))
  return { intersection, union, iou, miou: total(iou) / nclass }
}

export interface EvaluationOptions {
  /**
   * `original`: the whole image at once. `sliding_window`: windows of side `window` in steps of two thirds of it, cut
   * at the border, whose class probabilities are added.
   */
  readonly mode: 'original' | 'sliding_window'
  /** Side of the windows; for `sliding_window`. */
  readonly window?: number
  readonly ignoreIndex?: number
  /** Also make logits (`original`) or added probabilities (`sliding_window`) available, [H, W, nclass]. */
  readonly scores?: boolean
}

/** A labeled image; pixels row by row, the image in RGB. */
export interface EvaluationImage {
  readonly image: { readonly data: Uint8Array; readonly width: number; readonly height: number }
  readonly label: { readonly data: Uint8Array; readonly width: number; readonly height: number }
}

const evaluation = { training: false }

/** Programs for images of so many sizes are kept. */
const programsKept = 4

/** Predicts and scores with a model in evaluation mode. Keeps a program per image size, the latest used ones. */
export class Evaluator {
  private readonly programs = new Map<string, Program>()
  private readonly workspace: Store
  private readonly counts: Variable

  constructor(
    private readonly device: Device,
    private readonly model: DeepLabV3Plus,
    private readonly options: EvaluationOptions,
  ) {
    const { nclass } = model.config
    this.workspace = new Store(device, 'evaluation')
    this.counts = this.workspace.declare('counts', spec([nclass, nclass], 'u32'))
  }

  /** Scores of the model's present weights on labeled images. `onImage` is called after each. */
  async evaluate(
    images: Iterable<EvaluationImage> | AsyncIterable<EvaluationImage>,
    onImage?: (done: number) => void,
  ): Promise<Scores> {
    const { nclass } = this.model.config
    this.workspace.write('counts', new Uint32Array(nclass * nclass))
    let done = 0
    for await (const { image, label } of images) {
      const program = await this.program(image.height, image.width)
      program.run({ image: image.data, target: label.data })
      // Images are queued only as fast as they are done.
      await this.device.idle()
      onImage?.(++done)
    }
    return scoresOf(await this.workspace.read('counts'), nclass)
  }

  /** Most probable class per pixel of an image [H, W, 3], and the scores where they were asked for. */
  async predict({
    data,
    width,
    height,
  }: EvaluationImage['image']): Promise<{ label: Uint32Array; scores?: Float32Array }> {
    const program = await this.program(height, width)
    const ignored = new Uint8Array(width * height).fill(this.options.ignoreIndex ?? 255)
    program.run({ image: data, target: ignored })
    const label = await program.read('label', 'u32')
    return this.options.scores ? { label, scores: await program.read('scores') } : { label }
  }

  /** Frees the programs; they are made again when needed. */
  release(): void {
    for (const program of this.programs.values()) program.destroy()
    this.programs.clear()
  }

  destroy(): void {
    this.release()
    this.workspace.destroy()
  }

  private async program(height: number, width: number): Promise<Program> {
    const key = `${height}x${width}`
    const known = this.programs.get(key)
    if (known) {
      // A map keeps the order of insertion: the latest used is the last.
      this.programs.delete(key)
      this.programs.set(key, known)
      return known
    }
    for (const [oldest, program] of this.programs) {
      if (this.programs.size < programsKept) break
      program.destroy()
      this.programs.delete(oldest)
    }
    const program = await this.compile(height, width)
    this.programs.set(key, program)
    return program
  }

  private compile(height: number, width: number): Promise<Program> {
    const inputs = { image: spec([1, height, width, 3], 'u8'), target: spec([1, height, width], 'u8') }
    const body = ({ image, target }: Record<keyof typeof inputs, Tensor>): Record<string, Tensor> => {
      const { label, scores } = this.trace(normalizeImage(image))
      const ignoreIndex = this.options.ignoreIndex ?? 255
      assign(this.counts, confusionMatrix(read(this.counts), label, target, { ignoreIndex }))
      return this.options.scores ? { label, scores: scores() } : { label }
    }
    return compile(this.device, inputs, body, { label: `evaluation at ${width}x${height}` })
  }

  private trace(x: Tensor): { label: Tensor; scores: () => Tensor } {
    if (this.options.mode === 'original') {
      const logits = this.model.logits(x, evaluation)
      return { label: softmaxMax(logits).label, scores: () => logits }
    }
    const [, height = 0, width = 0] = x.shape
    // In bands, since the scores of a whole photograph may be too large for one buffer.
    const bands = slidingScores(this.model, x, this.options.window ?? Math.max(height, width))
    const labels = bands.map((band) => softmaxMax(band).label)
    return { label: concat(labels, 1), scores: () => concat(bands, 1) }
  }
}

/** Starts of the windows along one side: 0, then steps of two thirds of a window. */
function starts(extent: number, window: number): number[] {
  const step = Math.max(1, Math.floor((window * 2) / 3))
  return Array.from({ length: Math.ceil(extent / step) }, (_, i) => i * step)
}

interface Window {
  readonly top: number
  readonly left: number
  readonly bottom: number
  readonly right: number
}

/**
 * Sum of the class probabilities over windows, in row-major order of the windows: horizontal bands
 * [1, h, W, nclass] whose heights add up to H.
 */
function slidingScores(model: DeepLabV3Plus, x: Tensor, side: number): Tensor[] {
  const [, height = 0, width = 0] = x.shape
  const windows: Window[] = starts(height, side).flatMap((top) =>
    starts(width, side).map((left) => {
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
    const made = scoped(`window ${top},${left}`, () => softmax(model.logits(part, evaluation)))
    known.set(window, made)
    return made
  }
  // Between two neighbouring edges of windows every pixel lies in the same windows.
  const rows = intervals(windows.flatMap(({ top, bottom }) => [top, bottom]))
  const columns = intervals(windows.flatMap(({ left, right }) => [left, right]))
  return rows.map(([top, bottom]) => {
    const cells = columns.map(([left, right]) =>
      windows
        .filter((w) => w.top <= top && bottom <= w.bottom && w.left <= left && right <= w.right)
        .map((w) => slice(slice(probabilities(w), 1, top - w.top, bottom - top), 2, left - w.left, right - left))
        .reduce(add),
    )
    return concat(cells, 2)
  })
}

/** The stretches between neighbouring edges. */
function intervals(edges: readonly number[]): [number, number][] {
  const sorted = [...new Set(edges)].sort((a, b) => a - b)
  return sorted.slice(1).map((end, i) => [sorted[i] ?? 0, end])
}
