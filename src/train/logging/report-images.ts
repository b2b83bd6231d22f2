import sharp from 'sharp'
import type { Rgb } from '../data/classes.js'
import { colored, type Size, shrinkMask } from '../drawing/masks.js'
import { encodePng } from '../io/png.js'

/** A validation image of a report. */
export interface ReportSample {
  readonly name: string
  readonly width: number
  readonly height: number
  /** [height, width, 3], RGB */
  readonly image: Uint8Array
  /** Class indices [height, width] */
  readonly groundTruth: Uint8Array
  /** Class indices [height, width] */
  readonly prediction: Uint8Array
}

/** The pictures of a sample as data URIs, and how many of its pixels are right. */
export interface Pictures {
  readonly image: string
  readonly groundTruth: string
  readonly prediction: string
  readonly errors: string
  /** In percent of the pixels that count; undefined where none does. */
  readonly pixelAccuracy: number | undefined
  /** Size that the pictures are shown in. */
  readonly width: number
  readonly height: number
}

/** Pictures are shrunk to this side; a row of four is hardly wider on a screen. */
const maxSide = 480
/** Colours of the error map: pixels that are wrong, and those that do not count. */
export const wrongColor: Rgb = [232, 62, 62]
export const uncountedColor: Rgb = [140, 158, 208]
/** Colour of what is of no class in a mask. */
export const unknownColor: Rgb = [214, 216, 222]
/** An error map shows the image in so many greys. */
const greys = 32

/**
 * @param palette colours of the classes; pixels of any other value are pale
 * @param ignoreIndex value of the ground truth where nothing counts
 * @throws RangeError if an array has not the size of the image
 */
export async function drawPictures(
  sample: ReportSample,
  palette: readonly Rgb[],
  ignoreIndex: number,
): Promise<Pictures> {
  const { name, width, height, image, groundTruth, prediction } = sample
  for (const [what, array, length] of [
    ['image', image, 3 * width * height],
    ['ground truth', groundTruth, width * height],
    ['prediction', prediction, width * height],
  ] as const) {
    if (array.length !== length) throw new RangeError(`report: ${what} of ${name} is not ${width}x${height}`)
  }
  let counted = 0
  let right = 0
  for (let i = 0; i < groundTruth.length; i++) {
    if (groundTruth[i] === ignoreIndex) continue
    counted++
    if (groundTruth[i] === prediction[i]) right++
  }
  const scale = Math.min(1, maxSide / Math.max(width, height))
  const size = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) }
  const photo = sharp(image, { raw: { width, height, channels: 3 } }).resize({ ...size, fit: 'fill' })
  const jpeg = await photo.clone().jpeg({ quality: 88 }).toBuffer()
  const grey = await photo.clone().greyscale().toColourspace('b-w').raw().toBuffer()
  const masks = {
    groundTruth: shrinkMask(groundTruth, width, height, size),
    prediction: shrinkMask(prediction, width, height, size),
  }
  const errors = masks.groundTruth.map((value, i) => {
    if (value === ignoreIndex) return greys + 1
    return value === masks.prediction[i] ? Math.floor(((grey[i] ?? 0) * greys) / 256) : greys
  })
  // Paler than the photograph, so that what is wrong stands out.
  const shades = Array.from({ length: greys }, (_, k): Rgb => {
    const shade = Math.round(90 + (150 * k) / (greys - 1))
    return [shade, shade, shade]
  })
  return {
    image: `data:image/jpeg;base64,${jpeg.toString('base64')}`,
    groundTruth: await png(masks.groundTruth, size, palette),
    prediction: await png(masks.prediction, size, palette),
    errors: await png(errors, size, [...shades, wrongColor, uncountedColor]),
    pixelAccuracy: counted > 0 ? (100 * right) / counted : undefined,
    ...size,
  }
}

/** Indices in their colours; those without one are pale. */
async function png(data: Uint8Array, size: Size, palette: readonly Rgb[]): Promise<string> {
  const bytes = await encodePng(colored({ ...size, data }, palette, unknownColor), 3, 'small')
  return `data:image/png;base64,${bytes.toString('base64')}`
}
