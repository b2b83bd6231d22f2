import sharp from 'sharp'
import type { Rgb } from '../train/data/classes.js'
import { colored, type Size, shrinkMask } from '../train/drawing/masks.js'
import { faint, Svg, textWidth } from '../train/drawing/svg.js'
import { encodePng } from '../train/io/png.js'

/** One line of the contact sheet. */
export interface SheetRow extends Size {
  /** [height, width, 3], RGB */
  readonly image: Uint8Array
  /** [height, width], class indices; what is no class is drawn grey */
  readonly groundTruth: Uint8Array
  /** One mask [height, width] of class indices for each method, in the order of the columns. */
  readonly predictions: readonly { readonly name: string; readonly mask: Uint8Array }[]
}

export interface SheetOptions {
  classNames: readonly string[]
  /** Colour of each class, 0..255. */
  palette: readonly Rgb[]
  /** Second line of a column's title by the prediction's name, e.g. `{ prevmatch: 'mIoU 61.2' }`. */
  captions?: Readonly<Record<string, string>>
  /** Whole-number magnification. Default: small images are magnified to about 160 pixels. */
  zoom?: number
}

const usualWidth = 160
const mostWidth = 300

const ignored: Rgb = [200, 200, 200]
const margin = 24
const gap = 8
const size = 17
const swatch = 20

/**
 * Draws a contact sheet on white: a column each for the image, the ground truth and every prediction, titles above, the
 * classes' colours below.
 *
 * @returns the text of an SVG file that holds the images
 * @throws RangeError if there is no row, a map has not the size of its image, or the rows' predictions differ in name or
 * order
 */
export async function contactSheet(rows: readonly SheetRow[], options: SheetOptions): Promise<string> {
  const { classNames, palette, captions = {} } = options
  const [first] = rows
  if (first === undefined) throw new RangeError('contact sheet: no rows')
  const names = first.predictions.map((prediction) => prediction.name)
  checkRows(rows, names)

  const widest = Math.max(...rows.map((row) => row.width))
  const zoom = options.zoom ?? Math.max(1, Math.round(usualWidth / widest))
  const cell = Math.min(mostWidth, widest * zoom)
  const titles = ['image', 'ground truth', ...names]
  const head = margin + 48
  const width = titles.length * (cell + gap) - gap
  const svg = new Svg()
  for (const [i, title] of titles.entries()) {
    const middle = margin + i * (cell + gap) + cell / 2
    const caption = captions[title]
    // Without a second line the title sits next to its column.
    svg.text(title, middle, margin + (caption === undefined ? 28 : 6), { size, bold: true, anchor: 'middle' })
    if (caption !== undefined) svg.text(caption, middle, margin + 28, { size, color: faint, anchor: 'middle' })
  }
  let top = head
  for (const row of rows) {
    const drawnHeight = Math.round((cell * row.height) / row.width)
    for (const [k, picture] of (await picturesOf(row, cell, palette)).entries()) {
      svg.png(picture, margin + k * (cell + gap), top, cell, drawnHeight)
    }
    top += drawnHeight + gap
  }

  const items = classNames.map((name) => swatch + gap + textWidth(name, size) + 2 * gap)
  const lines = wrap(items, Math.max(width, ...items))
  const legendTop = top + gap
  for (const [i, line] of lines.entries()) {
    const total = line.reduce((sum, item) => sum + (items[item] ?? 0), -2 * gap)
    let x = margin + (width - total) / 2
    for (const item of line) {
      const y = legendTop + i * 32
      svg.rectangle(x, y, swatch, swatch, palette[item] ?? ignored, { radius: 4 })
      svg.text(classNames[item] ?? '', x + swatch + gap, y + swatch / 2, { size })
      x += items[item] ?? 0
    }
  }
  return svg.file(width + 2 * margin, legendTop + lines.length * 32 - 12 + margin)
}

/** Image, ground truth and predictions as PNGs, at most `most` pixels wide. */
async function picturesOf(row: SheetRow, most: number, palette: readonly Rgb[]): Promise<Buffer[]> {
  const { width, height, image, groundTruth, predictions } = row
  const scale = Math.min(1, most / width)
  const size = { width: Math.round(width * scale), height: Math.max(1, Math.round(height * scale)) }
  const raw = sharp(image, { raw: { width, height, channels: 3 } })
  const photo =
    scale < 1
      ? await raw
          .resize({ ...size, fit: 'fill' })
          .raw()
          .toBuffer()
      : image
  const masks = [groundTruth, ...predictions.map(({ mask }) => mask)]
  const shown = masks.map((mask) => {
    return colored({ ...size, data: shrinkMask(mask, width, height, size) }, palette, ignored)
  })
  return Promise.all([{ ...size, data: photo }, ...shown].map((picture) => encodePng(picture, 3, 'small')))
}

function checkRows(rows: readonly SheetRow[], names: readonly string[]): void {
  for (const [i, { width, height, image, groundTruth, predictions }] of rows.entries()) {
    if (predictions.length !== names.length || predictions.some((p, k) => p.name !== names[k])) {
      throw new RangeError(`contact sheet: row ${i} has other predictions than the first (${names.join(', ')})`)
    }
    if (image.length !== width * height * 3) {
      throw new RangeError(`contact sheet: image ${i} is not ${width}x${height} RGB`)
    }
    for (const mask of [groundTruth, ...predictions.map(({ mask }) => mask)]) {
      if (mask.length !== width * height) {
        throw new RangeError(`contact sheet: a mask of row ${i} is not ${width}x${height}`)
      }
    }
  }
}

/** Breaks items of the given widths into lines no wider than `limit`; gives the items' indices. */
function wrap(widths: readonly number[], limit: number): number[][] {
  const lines: number[][] = [[]]
  let used = 0
  for (const [i, width] of widths.entries()) {
    if (used > 0 && used + width - 2 * gap > limit) {
      lines.push([])
      used = 0
    }
    lines.at(-1)?.push(i)
    used += width
  }
  return lines
}
