import { type Box, cut, type Image } from './pixels.js'

/** An RGB image of which parts are read when they are needed. */
export interface ImageParts {
  readonly width: number
  readonly height: number
  /** The pixels [h, w, 3] of a rectangle. Parts of the same rows are decoded once where they follow one another. */
  part(box: Box): Promise<Image>
}

/** An image in memory, or one that is read in parts. */
export type AnyImage = Readonly<Image> | ImageParts

export const inParts = (image: AnyImage): image is ImageParts => 'part' in image

export const partOf = async (image: AnyImage, box: Box): Promise<Image> =>
  inParts(image) ? image.part(box) : cut(image, 3, box)
