import { dataBytes, elements, type Shape, type Spec, spec } from '../../engine/shape.js'
import { coefficientCount, gridSize } from './dct.js'

/**
 * What a field of a batch shows of an image. `weak`: resized, cropped, flipped; `label`: its label map, alike; `padding`: 255
 * where the crop lies beyond the image, else 0; `strong`: the weak view with colour jitter, grayscale and blur; `cutmixBox`:
 * 1 inside a random box, else 0; `intensity`: the weak view behind 1 to `most` random operations of intensity.ts;
 * `distorted`: the weak view with the photometric distortion of photometric.ts, its padding as it was;
 * `coefficients`: of the discrete cosine transform, see `dctCoefficients`, of the weak view, or of the strong one of a draw;
 * `gridBox`: 1 inside a random box of cells of their grid, else 0; `spreadBox`: the same box on the pixels, each of which takes
 * the nearest cell. Fields of one image with the same `draw` share one set of random choices, whose box is one of pixels or of
 * cells.
 */
export type FieldSpec =
  | { readonly view: 'weak' | 'label' | 'padding' }
  | { readonly view: 'strong' | 'cutmixBox' | 'gridBox' | 'spreadBox'; readonly draw: number }
  | { readonly view: 'intensity'; readonly draw: number; readonly most: number }
  | { readonly view: 'distorted' }
  | { readonly view: 'coefficients'; readonly draw?: number }
  | BatchFieldSpec

/**
 * A field that is made of all images of a step together, by draws of the batch, when another field of theirs is filled.
 * `cutmix`: see `cutMixView`.
 */
export interface BatchFieldSpec {
  readonly view: 'cutmix'
  /** The field that it is made of, of the same stream: an image. */
  readonly of: string
  /** Epochs, counted from 0, in which it is made; in others its bytes mean nothing. Default: all. */
  readonly epochs?: 'even' | 'odd'
}

/** How the images of a stream are resized, mirrored and cropped. */
export interface Geometry {
  /**
   * What is drawn, uniformly: the longer side, in pixels, of two integers and those between them; or by what factor the
   * result is larger than `base`, whatever the size of the image; or by what factor its shorter side is longer than
   * `shortSide` pixels. Default: a longer side of half to double the image's.
   */
  readonly resize?:
    | { readonly longSide: readonly [least: number, most: number] }
    | { readonly scale: readonly [from: number, to: number]; readonly base: readonly [height: number, width: number] }
    | { readonly scale: readonly [from: number, to: number]; readonly shortSide: number }
  /** Whether the image is mirrored before it is padded and cropped: padding is then on the right. Default: after. */
  readonly flipsFirst?: boolean
  /** Colour of the padding, RGB. Default: black. */
  readonly padding?: readonly [number, number, number]
  /**
   * The crop of a labeled image is drawn anew, 10 times at most, while one class has at least this share of its annotated
   * pixels, or it shows one class alone.
   */
  readonly maxClassShare?: number
}

/** A stream of images: an order of a list, each image of which fills the fields of a batch. */
export interface StreamSpec {
  readonly name: string
  readonly split: 'labeled' | 'unlabeled'
  /** Random streams (`PURPOSE`) of the order of the list and of the choices for an image: no two streams share one. */
  readonly purpose: {
    readonly order: number
    readonly sample: number
    /** Of the choices for a step's images together, where a field needs some. */
    readonly batch?: number
  }
  /** Images per step, in multiples of `batch_size`. Default: 1. */
  readonly perStep?: number
  readonly geometry?: Geometry
  readonly fields: Readonly<Record<string, FieldSpec>>
}

/** The streams of a batch. Plain data, which goes to worker threads as it is. Field names differ between streams. */
export type BatchLayout = readonly StreamSpec[]

/** Bytes, or coefficients in float32. */
export type FieldData = Uint8Array | Float32Array

/** One step's data: bytes [N, S, S, 3] of RGB images that are not normalised, [N, S, S] of maps; else see `fieldSpec`. */
export type Batch = Readonly<Record<string, FieldData>>

const imageViews: ReadonlySet<FieldSpec['view']> = new Set(['weak', 'strong', 'intensity', 'distorted', 'cutmix'])

/** Channels of a field: 3 for an image, 1 for a map. */
export function channelsOf({ view }: FieldSpec): number {
  if (view === 'coefficients') return coefficientCount
  return imageViews.has(view) ? 3 : 1
}

/**
 * Shape and type of a field of `count` images: u8 [N, H, W, 3] of images, u8 [N, H, W] of maps, where H and W are those of the
 * grid for what lies on it; f32 [N, gridSize(H), gridSize(W), 64] of coefficients.
 */
export function fieldSpec(field: FieldSpec, count: number, height: number, width: number): Spec {
  const { view } = field
  const onGrid = view === 'coefficients' || view === 'gridBox'
  const extents: Shape = onGrid ? [gridSize(height), gridSize(width)] : [height, width]
  const channels = channelsOf(field)
  const shape = [count, ...extents, ...(channels === 1 ? [] : [channels])]
  return spec(shape, view === 'coefficients' ? 'f32' : 'u8')
}

/** Whether a field is made of all images of a step together. */
export const isOfBatch = (field: FieldSpec): field is BatchFieldSpec => field.view === 'cutmix'

/** Whether a stream has fields that are made in an epoch of all images of a step together. */
export const mixes = ({ fields }: StreamSpec, epoch: number): boolean =>
  Object.values(fields).some((field) => isOfBatch(field) && isMadeIn(field, epoch))

/** Whether a field is made in an epoch. */
export const isMadeIn = ({ epochs }: BatchFieldSpec, epoch: number): boolean =>
  epochs === undefined || (epochs === 'even') === (epoch % 2 === 0)

/** Whether a step takes images of a split. */
export const takes = (layout: BatchLayout, split: StreamSpec['split']): boolean =>
  layout.some((stream) => stream.split === split)

/** Images that a stream gives to a step. */
export const imagesOf = ({ perStep = 1 }: StreamSpec, batchSize: number): number => perStep * batchSize

/** Bytes of one image's part of a field. */
export const bytesOf = (field: FieldSpec, size: number): number => dataBytes(fieldSpec(field, 1, size, size))

/** Elements of one image's part of a field. */
export const elementsOf = (field: FieldSpec, size: number): number => elements(fieldSpec(field, 1, size, size).shape)

interface FieldRange {
  readonly field: string
  readonly offset: number
  readonly spec: Spec
}

/** Where the fields lie, and the bytes of all. */
function rangesOf(layout: BatchLayout, batchSize: number, size: number): { ranges: FieldRange[]; bytes: number } {
  let bytes = 0
  const ranges = layout.flatMap((stream) =>
    Object.entries(stream.fields).map(([field, own]) => {
      const spec = fieldSpec(own, imagesOf(stream, batchSize), size, size)
      const offset = bytes
      // Typed arrays begin at multiples of their elements.
      bytes += Math.ceil(dataBytes(spec) / 4) * 4
      return { field, offset, spec }
    }),
  )
  return { ranges, bytes }
}

/** Bytes of a batch. */
export const batchBytes = (layout: BatchLayout, batchSize: number, size: number): number =>
  rangesOf(layout, batchSize, size).bytes

/** The fields of a batch that lie one after another in `buffer`. */
export const batchViews = (buffer: ArrayBufferLike, layout: BatchLayout, batchSize: number, size: number): Batch =>
  Object.fromEntries(
    rangesOf(layout, batchSize, size).ranges.map(({ field, offset, spec: { shape, dtype } }) => {
      const count = elements(shape)
      return [field, dtype === 'f32' ? new Float32Array(buffer, offset, count) : new Uint8Array(buffer, offset, count)]
    }),
  )
