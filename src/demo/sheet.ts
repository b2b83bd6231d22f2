import type { Rgb } from '../train/data/classes.js'
import { colored } from '../train/drawing/masks.js'
import { faint, Svg, textWidth } from '../train/drawing/svg.js'
import { encodePng } from '../train/io/png.js'

/** One line of the contact sheet; all maps have the sheet's `size`. */
export interface SheetRow {
  /** [size, size, 3], RGB */
  image: Uint8Array
  /** [size, size], class indices; 255 is drawn grey */
  groundTruth: Uint8Array
  /** One mask [size, size] of class indices for each method, in the order of the columns. */
  predictions: readonly { name: string; mask: Uint8Array }[]
}

export interface SheetOptions {
  /** Side of the images in pixels. */
  size: number
  classNames: readonly string[]
  /** Colour of each class, 0..255. */
  palette: readonly Rgb[]
  /** Second line of a column's title by the prediction's name, e.g. `{ prevmatch: 'mIoU 61.2' }`. */
  captions?: Readonly<Record<string, string>>
  /** Whole-number magnification; without it, cells become about 160 pixels wide. */
  zoom?: number
}

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
 * @throws RangeError if there is no row, a map has another size, or the rows' predictions differ in name or order
 */
export async function contactSheet(rows: readonly SheetRow[], options: SheetOptions): Promise<string> {
  const { size: pixels, classNames, palette, captions = {} } = options
  const [first] = rows
  if (first === undefined) throw new RangeError('contact sheet: no rows')
  const names = first.predictions.map((prediction) => prediction.name)
  checkRows(rows, names, pixels)

  const cell = pixels * (options.zoom ?? Math.max(1, Math.round(160 / pixels)))
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
  for (const [i, { image, groundTruth, predictions }] of rows.entries()) {
    const sides = { width: pixels, height: pixels }
    const masks = [groundTruth, ...predictions.map(({ mask }) => mask)]
    const shown = masks.map((data) => colored({ ...sides, data }, palette, ignored))
    for (const [k, picture] of [{ ...sides, data: image }, ...shown].entries()) {
      svg.png(await encodePng(picture, 3, 'small'), margin + k * (cell + gap), head + i * (cell + gap), cell, cell)
    }
  }

  const items = classNames.map((name) => swatch + gap + textWidth(name, size) + 2 * gap)
  const lines = wrap(items, Math.max(width, ...items))
  const legendTop = head + rows.length * (cell + gap) + gap
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

function checkRows(rows: readonly SheetRow[], names: readonly string[], size: number): void {
  for (const [i, row] of rows.entries()) {
    if (row.predictions.length !== names.length || row.predictions.some((p, k) => p.name !== names[k])) {
      throw new RangeError(`contact sheet: row ${i} has other predictions than the first (${names.join(', ')})`)
    }
    if (row.image.length !== size * size * 3)
      throw new RangeError(`contact sheet: image ${i} is not ${size}x${size} RGB`)
    for (const mask of [row.groundTruth, ...row.predictions.map((prediction) => prediction.mask)]) {
      if (mask.length !== size * size) throw new RangeError(`contact sheet: a mask of row ${i} is not ${size}x${size}`)
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
