/**
 * What a field of a batch shows of an image. `weak`: resized, cropped, flipped; `label`: its label map, alike; `padding`: 255
 * where the crop lies beyond the image, else 0; `strong`: the weak view with colour jitter, grayscale and blur; `cutmixBox`:
 * 1 inside a random box, else 0; `intensity`: the weak view behind 1 to `most` random operations of intensity.ts. Fields of
 * one image with the same `draw` share one set of random choices.
 */
export type FieldSpec =
  | { readonly view: 'weak' | 'label' | 'padding' }
  | { readonly view: 'strong' | 'cutmixBox'; readonly draw: number }
  | { readonly view: 'intensity'; readonly draw: number; readonly most: number }
  | BatchFieldSpec

/**
 * A field that is made of all images of a step together, by draws of the batch, when another field of theirs is filled.
 * `cutmix`: see `cutMixView`.
 */
export interface BatchFieldSpec {
  readonly view: 'cutmix'
  /** The field that it is made of, of the same stream: a weak view. */
  readonly of: string
  /** Epochs, counted from 0, in which it is made; in others its bytes mean nothing. Default: all. */
  readonly epochs?: 'even' | 'odd'
}

/** How the images of a stream are resized, mirrored and cropped. */
export interface Geometry {
  /**
   * What is drawn, uniformly: the longer side, in pixels, of two integers and those between them; or by what factor the
   * result is larger than `base`, whatever the size of the image. Default: a longer side of half to double the image's.
   */
  readonly resize?:
    | { readonly longSide: readonly [least: number, most: number] }
    | { readonly scale: readonly [from: number, to: number]; readonly base: readonly [height: number, width: number] }
  /** Whether the image is mirrored before it is padded and cropped: padding is then on the right. Default: after. */
  readonly flipsFirst?: boolean
  /** Colour of the padding, RGB. Default: black. */
  readonly padding?: readonly [number, number, number]
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

/** One step's data: bytes, [N, S, S, 3] of RGB images that are not normalised, and [N, S, S] of all else. */
export type Batch = Readonly<Record<string, Uint8Array>>

/** Channels of a field: 3 for an image, 1 for a map. */
export const channelsOf = ({ view }: FieldSpec): 1 | 3 =>
  view === 'weak' || view === 'strong' || view === 'intensity' || view === 'cutmix' ? 3 : 1

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
export const bytesOf = (field: FieldSpec, size: number): number => size * size * channelsOf(field)

interface FieldRange {
  readonly field: string
  readonly offset: number
  readonly bytes: number
}

function rangesOf(layout: BatchLayout, batchSize: number, size: number): FieldRange[] {
  let offset = 0
  return layout.flatMap((stream) =>
    Object.entries(stream.fields).map(([field, spec]) => {
      const bytes = imagesOf(stream, batchSize) * bytesOf(spec, size)
      offset += bytes
      return { field, offset: offset - bytes, bytes }
    }),
  )
}

/** Bytes of a batch. */
export const batchBytes = (layout: BatchLayout, batchSize: number, size: number): number =>
  rangesOf(layout, batchSize, size).reduce((sum, { bytes }) => sum + bytes, 0)

/** The fields of a batch that lie one after another in `buffer`. */
export const batchViews = (buffer: SharedArrayBuffer, layout: BatchLayout, batchSize: number, size: number): Batch =>
  Object.fromEntries(
    rangesOf(layout, batchSize, size).map(({ field, offset, bytes }) => [field, new Uint8Array(buffer, offset, bytes)]),
  )
