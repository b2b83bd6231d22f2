import type { Arena } from '../../engine/arena.js'
import { BindingLimitError, type Device } from '../../engine/device.js'
import { canBind, dryDevice, largestFitting } from '../../engine/dry-device.js'
import { assign, read } from '../../engine/graph.js'
import type { Tensor } from '../../engine/ir.js'
import { compile, type Program } from '../../engine/program.js'
import { elements, type Spec, spec, zeros } from '../../engine/shape.js'
import { Store, type Variable } from '../../engine/store.js'
import { pad, slice } from '../../kernels/movement.js'
import { castCall } from '../../kernels/pointwise.js'
import { softmax } from '../../kernels/softmax.js'
import { addWindows } from '../../kernels/windows.js'
import { logits, type SegmentationModel } from '../../models/segmentation.js'
import type { AnyImage } from '../data/image-parts.js'
import { type Box, cut, type Image } from '../data/pixels.js'
import { UserError } from '../error.js'
import { movesWindowsBack, windowStarts } from './inference.js'
import { type InputParts, inputPartsOf, inputSpec, normalizeInput, stepOf } from './model-input.js'
import type { Programs } from './programs.js'

/** Windows of a batch have so many pixels together, unless one alone has more. */
const batchPixels = 2 ** 18
const maxBatch = 64
/** Chunks of columns are multiples of so many, so that images of similar widths share programs. */
const columnUnit = 64

export interface WindowOptions {
  /** Of the windows, in pixels. */
  readonly side: number
  /** Compute in half precision. */
  readonly amp: boolean
  /**
   * Added probabilities take so many bytes at most, by default 2^28: more columns of an image are computed in chunks, and
   * windows at their borders twice.
   */
  readonly maxSumBytes?: number
}

/** What becomes of finished rows of added probabilities [1, h, W, nclass]: the outputs of the program that delivers them. */
export type Finish = (scores: Tensor, target: Tensor) => Record<string, Tensor>

/** Takes finished rows: where the outputs of the program lie in the image, and what of them it has. */
export type TakeRows = (program: Program, outputs: Box, kept: Box) => Promise<void>

/** Added probabilities of some rows and columns of an image, [rows, columns, nclass]. */
interface Sums {
  readonly rows: number
  readonly columns: number
  readonly store: Store
  /** All are 0: what is finished leaves zeros behind. */
  isClear: boolean
}

/** Windows of one size, beside each other. */
interface Run {
  readonly width: number
  readonly lefts: readonly number[]
}

/**
 * Class probabilities by windows that are cut at the border, or moved back, see `movesWindowsBack`, added in row-major order of the windows. What a model reads of
 * them is cut from what it reads of the whole image.
 *
 * Windows go through one program for each of their sizes, in batches of bounded size, and only the rows that a row of
 * windows covers are held: memory and programs do not grow with the number of windows.
 */
export class SlidingWindows {
  private sums: Sums[] = []

  constructor(
    private readonly device: Device,
    private readonly model: SegmentationModel,
    private readonly programs: Programs,
    private readonly options: WindowOptions,
    private readonly finish: Finish,
  ) {}

  /**
   * Computes an image [H, W, 3].
   * @param target [H, W]
   * @param ignored stands for the pixels of a program that the image does not have
   */
  async run(image: AnyImage, target: Readonly<Image>, ignored: number, take?: TakeRows): Promise<void> {
    const { side } = this.options
    const { step } = this
    const sums = this.sumsFor(image)
    const parts = inputPartsOf(this.model, image)
    for (let left = 0; left < image.width; left += sums.columns) {
      const right = Math.min(image.width, left + sums.columns)
      sums.isClear = false
      const tops = this.starts(image.height)
      for (const [i, top] of tops.entries()) {
        const height = Math.min(side, image.height - top)
        for (const batch of this.batches(image.width, left, right, height)) {
          await this.add(sums, parts, { top, height, ...batch }, left)
        }
        const box = { x: left, y: top, w: right - left, h: (tops[i + 1] ?? image.height) - top }
        // As many for all rows of windows where they can be: they share a program.
        const rows = movesWindowsBack(this.model) ? box.h : step
        const program = await this.finishing(sums, rows)
        await this.programs.run(program, { target: padded(cut(target, 1, box), sums.columns, rows, ignored) })
        await take?.(program, { ...box, w: sums.columns, h: rows }, box)
      }
      sums.isClear = true
    }
  }

  destroy(): void {
    for (const { store } of this.sums) store.destroy()
    this.sums = []
  }

  /** Pixels from one window to the next. */
  private get step(): number {
    return stepOf(this.model.input, this.options.side)
  }

  private starts(extent: number): number[] {
    return windowStarts(extent, this.options.side, this.step, movesWindowsBack(this.model))
  }

  /** Where the probabilities of an image are added. */
  private sumsFor({ width, height }: AnyImage): Sums {
    const { side, maxSumBytes = 2 ** 28 } = this.options
    // With a row below the finished ones, from where zeros move up.
    const finished = movesWindowsBack(this.model) ? Math.min(side, height) : this.step
    const rows = Math.max(finished + 1, this.step + 1, Math.min(side, height))
    const perColumn = rows * this.model.config.nclass * 4
    const limit = Math.min(maxSumBytes, this.device.gpu.limits.maxStorageBufferBindingSize)
    const most = Math.max(1, Math.floor(limit / perColumn))
    const even = Math.ceil(width / Math.ceil(width / most))
    const columns = Math.min(most, Math.ceil(even / columnUnit) * columnUnit)
    const known = this.sums.find((sums) => sums.rows === rows && sums.columns === columns && sums.isClear)
    const others = this.sums.filter((sums) => sums !== known)
    const made = known ?? { rows, columns, store: new Store(this.device, 'evaluation'), isClear: true }
    if (!known) made.store.declare('window sums', spec([rows, columns, this.model.config.nclass]))
    this.sums = [...others, made]
    let bytes = this.sums.reduce((sum, { store }) => sum + store.bytes(), 0)
    for (const old of others) {
      if (old.isClear && bytes <= limit) continue
      bytes -= old.store.bytes()
      this.programs.drop((key) => key.endsWith(keyOf(old)))
      old.store.destroy()
      this.sums = this.sums.filter((sums) => sums !== old)
    }
    return made
  }

  /** The windows of a row that cover some of the columns from `left` to `right`, in batches of the same size. */
  private batches(width: number, left: number, right: number, height: number): Run[] {
    const { side } = this.options
    const lefts = this.starts(width).filter((start) => start < right && start + side > left)
    const widths = new Map<number, number[]>()
    for (const start of lefts) {
      const own = Math.min(side, width - start)
      widths.set(own, [...(widths.get(own) ?? []), start])
    }
    return [...widths].flatMap(([own, all]) => {
      const pixels = own * height
      const { maxStorageBufferBindingSize: limit } = this.device.gpu.limits
      const bound = Math.floor(limit / (pixels * this.model.config.nclass * 4))
      const most = Math.max(1, Math.min(maxBatch, bound, Math.floor(batchPixels / pixels)))
      const size = Math.ceil(all.length / Math.ceil(all.length / most))
      const runs = Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size))
      return runs.map((some) => ({ width: own, lefts: [...some, ...Array(size - some.length).fill(Number.NaN)] }))
    })
  }

  /** Adds the probabilities of a batch. A window that starts nowhere fills it up. */
  private async add(
    sums: Sums,
    parts: InputParts,
    { top, height, width, lefts }: Run & { top: number; height: number },
    left: number,
  ): Promise<void> {
    const program = await this.adding(sums, height, width, lefts.length)
    const { shape, dtype } = inputSpec(this.model, lefts.length, height, width)
    const images = zeros(dtype, elements(shape))
    const places = new Uint32Array(lefts.length * 2)
    for (const [i, start] of lefts.entries()) {
      places[2 * i] = Number.isNaN(start) ? sums.rows : 0
      if (Number.isNaN(start)) continue
      places[2 * i + 1] = start - left
      images.set(await parts.part({ x: start, y: top, w: width, h: height }), (i * images.length) / lefts.length)
    }
    await this.programs.run(program, { images, places })
  }

  private async adding(sums: Sums, height: number, width: number, count: number): Promise<Program> {
    const variable = sums.store.get('window sums')
    try {
      return await this.programs.get(`add ${height},${width},${count}${keyOf(sums)}`, (arena) =>
        this.compileAdding(this.device, variable, [count, height, width], arena),
      )
    } catch (error) {
      if (!(error instanceof BindingLimitError)) throw error
      throw new UserError(`${error.message}: ${await this.remedy(Math.max(width, height))}`)
    }
  }

  private compileAdding(
    device: Device,
    variable: Variable,
    [count, height, width]: readonly [number, number, number],
    arena?: Arena,
  ): Promise<Program> {
    const images: Spec = inputSpec(this.model, count, height, width)
    const inputs = { images, places: spec([count, 2], 'u32') }
    const body = ({ images, places }: Record<keyof typeof inputs, Tensor>) => {
      const probabilities = softmax(
        logits(this.model, normalizeInput(this.model, images), { training: false }, [height, width]),
      )
      assign(variable, addWindows(read(variable), probabilities, places))
      return {}
    }
    const label = `evaluation of ${count} windows of ${width}x${height}`
    const precision = this.options.amp ? { autocast: castCall } : {}
    return compile(device, inputs, body, { label, ...(arena ? { arena } : {}), ...precision })
  }

  /** The program that delivers so many of the upper rows, and moves the others up. */
  private finishing(sums: Sums, finished: number): Promise<Program> {
    const { rows, columns, store } = sums
    return this.programs.get(`finish ${finished}${keyOf(sums)}`, (arena) => {
      const inputs = { target: spec([1, finished, columns], 'u8') }
      const body = ({ target }: Record<keyof typeof inputs, Tensor>) => {
        const variable = store.get('window sums')
        const all = read(variable)
        const upper = slice(all, 0, 0, finished)
        const outputs = this.finish(upper.reshape(1, ...upper.shape), target)
        assign(variable, pad(slice(all, 0, finished, rows - finished), 0, 0, rows))
        return outputs
      }
      return compile(this.device, inputs, body, { label: `rows of windows of ${columns} columns`, arena })
    })
  }

  /** What to do about windows that the adapter does not bind. */
  private async remedy(side: number): Promise<string> {
    const { nclass } = this.model.config
    const fits = (smaller: number): Promise<boolean> => {
      const { device } = dryDevice(this.device)
      const variable = new Store(device, 'evaluation').declare('window sums', spec([1, 1, nclass]))
      return canBind(this.compileAdding(device, variable, [1, smaller, smaller]))
    }
    const most = await largestFitting(1, side - 1, fits, Math.floor(side / 2))
    const smaller = most === undefined ? '' : `windows (crop_size) of at most ${most} pixels, or `
    return `choose ${smaller}the mode original, which takes large images in tiles that fit`
  }
}

const keyOf = ({ rows, columns }: Sums): string => ` into ${rows},${columns}`

/** A label map with `fill` right of it and below. */
function padded({ data, width, height }: Image, toWidth: number, toHeight: number, fill: number): Uint8Array {
  if (width === toWidth && height === toHeight) return data
  const out = new Uint8Array(toWidth * toHeight).fill(fill)
  for (let y = 0; y < height; y++) out.set(data.subarray(y * width, (y + 1) * width), y * toWidth)
  return out
}
