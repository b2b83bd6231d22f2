import type { Tensor } from '../../engine/ir.js'
import { type Data, type Spec, spec } from '../../engine/shape.js'
import { normalizeCoefficients } from '../../kernels/coefficients.js'
import { normalizeImage } from '../../kernels/images.js'
import type { ModelInput, SegmentationModel } from '../../models/segmentation.js'
import { cellSide, coefficientCount, dctCoefficients, gridSize } from '../data/dct.js'
import { type AnyImage, inParts, partOf } from '../data/image-parts.js'
import type { Box } from '../data/pixels.js'
import { windowStep } from './inference.js'

/** The part of a model that this is about. */
type Reader = Pick<SegmentationModel, 'input'>

export const readsCoefficients = ({ input }: Reader): boolean => input === 'coefficients'

/** `count` images of a size as a program for a model takes them: u8 [N, H, W, 3], or f32 coefficients on their grid. */
export const inputSpec = (model: Reader, count: number, height: number, width: number): Spec =>
  readsCoefficients(model)
    ? spec([count, gridSize(height), gridSize(width), coefficientCount])
    : spec([count, height, width, 3], 'u8')

/** Within a trace: what a model reads, of such images. */
export const normalizeInput = (model: Reader, images: Tensor): Tensor =>
  readsCoefficients(model) ? normalizeCoefficients(images) : normalizeImage(images)

/** A whole image as a program takes it. */
export async function inputOf(model: Reader, image: AnyImage): Promise<Data> {
  const whole = inParts(image) ? await image.part({ x: 0, y: 0, w: image.width, h: image.height }) : image
  return readsCoefficients(model) ? dctCoefficients(whole) : whole.data
}

/** Parts of an image as a program takes them. */
export interface InputParts {
  /** @param box begins at a cell of the grid where coefficients are read */
  part(box: Box): Promise<Data>
}

export const inputPartsOf = (model: Reader, image: AnyImage): InputParts =>
  readsCoefficients(model) ? new CoefficientParts(image) : { part: async (box) => (await partOf(image, box)).data }

/** Some rows of cells, of all columns. */
interface CellRows {
  readonly from: number
  readonly to: number
  readonly values: Float32Array
}

/** So far from a cell, in pixels, its coefficients depend on pixels; a multiple of a cell. */
const reach = cellSide

/** The coefficients of images of more pixels, which take 16 bytes for each, are not held at once. */
const maxPixelsAtOnce = 2 ** 23

/** Parts of the coefficients of a whole image; of a large one some rows are held at a time. */
class CoefficientParts implements InputParts {
  private rows: CellRows | undefined

  constructor(private readonly image: AnyImage) {}

  async part({ x, y, w, h }: Box): Promise<Float32Array> {
    const [left, top] = [x / cellSide, y / cellSide]
    const [columns, rows] = [gridSize(w), gridSize(h)]
    const { from, values } = await this.rowsFor(top, top + rows)
    const pitch = gridSize(this.image.width) * coefficientCount
    const out = new Float32Array(rows * columns * coefficientCount)
    for (let row = 0; row < rows; row++) {
      const start = (top - from + row) * pitch + left * coefficientCount
      out.set(values.subarray(start, start + columns * coefficientCount), row * columns * coefficientCount)
    }
    return out
  }

  private async rowsFor(from: number, to: number): Promise<CellRows> {
    const { image } = this
    if (this.rows && this.rows.from <= from && to <= this.rows.to) return this.rows
    if (!inParts(image) && image.width * image.height <= maxPixelsAtOnce) {
      this.rows = { from: 0, to: gridSize(image.height), values: dctCoefficients(image) }
      return this.rows
    }
    // Not beside the new ones.
    this.rows = undefined
    const top = Math.max(0, from * cellSide - reach)
    const bottom = Math.min(image.height, to * cellSide + reach)
    const pixels = await partOf(image, { x: 0, y: top, w: image.width, h: bottom - top })
    const pitch = gridSize(image.width) * coefficientCount
    const above = (from * cellSide - top) / cellSide
    const values = dctCoefficients(pixels).subarray(above * pitch, (above + to - from) * pitch)
    this.rows = { from, to, values }
    return this.rows
  }
}

/**
 * Pixels from one window to the next: two thirds of a window, or those of its cells where coefficients are read, which are
 * cut between cells.
 */
export const stepOf = (input: ModelInput | undefined, window: number): number =>
  input === 'coefficients' ? cellSide * windowStep(gridSize(window)) : windowStep(window)
