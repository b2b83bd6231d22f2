import { basename, dirname, extname, join } from 'node:path'
import type { Rgb } from '../data/classes.js'
import type { Image } from '../data/pixels.js'
import { encodePng } from '../io/png.js'

/** Shown for a value that is no class. */
const unknown: Rgb = [150, 150, 158]

/** A grey 8-bit PNG of class indices. */
export const indexPng = (mask: Image): Promise<Buffer> => encodePng(mask, 1)

/** An RGB PNG. */
export const rgbPng = (image: Image): Promise<Buffer> => encodePng(image, 3)

/**
 * A mask [H, W] of class indices in the colours of the classes, [H, W, 3].
 * @param other the colour of values that are no class
 */
export function colored({ data, width, height }: Image, palette: readonly Rgb[], other: Rgb = unknown): Image {
  const out = new Uint8Array(data.length * 3)
  // A plain loop over bytes: an image has millions of pixels.
  for (let i = 0, at = 0; i < data.length; i++) {
    const color = palette[data[i] as number] ?? other
    out[at++] = color[0]
    out[at++] = color[1]
    out[at++] = color[2]
  }
  return { data: out, width, height }
}

/** Share of the class's colour in an overlay. */
const opacity = 0.5

/** An image [H, W, 3] with its mask [H, W] over it; where two classes meet, the colour is opaque. */
export function overlay(image: Image, mask: Image, palette: readonly Rgb[]): Image {
  const { width, height } = image
  const data = new Uint8Array(image.data.length)
  for (let i = 0; i < mask.data.length; i++) {
    const label = mask.data[i] as number
    const rightmost = i % width === width - 1
    const lowest = i >= width * (height - 1)
    const border = (!rightmost && mask.data[i + 1] !== label) || (!lowest && mask.data[i + width] !== label)
    const share = border ? 1 : opacity
    const color = palette[label] ?? unknown
    for (let c = 0; c < 3; c++) {
      const at = i * 3 + c
      data[at] = Math.round((image.data[at] ?? 0) * (1 - share) + (color[c] ?? 0) * share)
    }
  }
  return { data, width, height }
}

/**
 * The rows of an overlay whose image comes in parts from top to bottom. Where two classes meet shows with the row below, so
 * that the last row of a part comes with the next one.
 */
export class OverlayRows {
  private kept: { readonly image: Image; readonly mask: Image } | undefined

  constructor(private readonly palette: readonly Rgb[]) {}

  /** Takes rows of the image [h, W, 3] and of its mask [h, W]; returns those of the overlay that are ready. */
  next(image: Image, mask: Image): Uint8Array {
    const { width } = image
    const rows = this.kept
      ? { image: below(this.kept.image, image), mask: below(this.kept.mask, mask) }
      : { image, mask }
    const { height } = rows.image
    const last = (map: Image, channels: number): Image => ({
      ...map,
      height: 1,
      data: map.data.slice(-width * channels),
    })
    this.kept = { image: last(rows.image, 3), mask: last(rows.mask, 1) }
    return overlay(rows.image, rows.mask, this.palette).data.subarray(0, (height - 1) * width * 3)
  }

  /** The last row. */
  last(): Uint8Array {
    return this.kept ? overlay(this.kept.image, this.kept.mask, this.palette).data : new Uint8Array()
  }
}

/** A map with another one of the same width below it. */
function below(upper: Image, lower: Image): Image {
  const data = new Uint8Array(upper.data.length + lower.data.length)
  data.set(upper.data)
  data.set(lower.data, upper.data.length)
  return { data, width: upper.width, height: upper.height + lower.height }
}

const stemOf = (path: string): string => basename(path, extname(path))

/** Names of results without their ending, from short to long; the last one is of one image alone. */
const nameRules = {
  stem: stemOf,
  file: (path: string) => basename(path),
  path: (path: string) =>
    join(dirname(path), basename(path))
      .replace(/[\\/:]+/g, '_')
      .replace(/^[._]+/, ''),
  number: (path: string, index: number) => `${index}_${stemOf(path)}`,
} as const

/** What results are called by. */
export type NameRule = Exclude<keyof typeof nameRules, 'number'>
export const nameRuleNames: readonly NameRule[] = ['stem', 'file', 'path']

const rulesInOrder = Object.values(nameRules)

/**
 * A different file name, without ending, for each image: by the rule, and only where images would share a name, for these
 * by the next longer one. Holds no folder, so that nothing is written elsewhere.
 */
export function outputNames(paths: readonly string[], rule: NameRule = 'stem'): string[] {
  const levels = new Uint8Array(paths.length).fill(nameRuleNames.indexOf(rule))
  const nameAt = (i: number) => rulesInOrder[levels[i] as number]?.(paths[i] ?? '', i) ?? ''
  for (;;) {
    const names = paths.map((_, i) => nameAt(i))
    const counts = new Map<string, number>()
    for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1)
    const shared = [...names.keys()].filter((i) => (counts.get(names[i] ?? '') ?? 0) > 1)
    if (shared.length === 0) return names
    for (const i of shared) levels[i] = Math.min((levels[i] as number) + 1, rulesInOrder.length - 1)
  }
}

/** In pixels. */
export interface Size {
  readonly width: number
  readonly height: number
}

/** The nearest pixels of a mask [height, width] in another size. */
export function shrinkMask(mask: Uint8Array, width: number, height: number, to: Size): Uint8Array {
  const shrunk = new Uint8Array(to.width * to.height)
  for (let y = 0; y < to.height; y++) {
    const row = Math.floor(((y + 0.5) * height) / to.height) * width
    for (let x = 0; x < to.width; x++) {
      shrunk[y * to.width + x] = mask[row + Math.floor(((x + 0.5) * width) / to.width)] ?? 0
    }
  }
  return shrunk
}
