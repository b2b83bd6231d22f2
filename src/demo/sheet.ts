import type { Rgb } from '../train/data/classes.js'
import { textSize } from '../train/drawing/font.js'
import { Page } from '../train/drawing/page.js'

/** One line of the contact sheet; all maps have the sheet's `size`. */
export interface SheetRow {
  /** [size, size, 3], RGB */
  image: Uint8Array
  /** [size, size], class indices; 255 is drawn grey */
  truth: Uint8Array
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
  /** Rows of the sheet are split into this many blocks side by side; 1 by default. */
  blocks?: number
}

const ink: Rgb = [34, 38, 44]
const faint: Rgb = [112, 118, 128]
const ignored: Rgb = [200, 200, 200]
const margin = 24
const gap = 8
const titleScale = 2

/**
 * Draws a contact sheet on white: a column each for the image, the truth and every prediction, titles above, the
 * classes' colours below.
 *
 * @returns the sheet, to be encoded with `png`
 * @throws RangeError if there is no row, a map has another size, or the rows' predictions differ in name or order
 */
export function contactSheet(rows: readonly SheetRow[], options: SheetOptions): Page {
  const { size, classNames, palette, captions = {} } = options
  const zoom = options.zoom ?? Math.max(1, Math.round(160 / size))
  const [first] = rows
  if (first === undefined) throw new RangeError('contact sheet: no rows')
  const names = first.predictions.map((prediction) => prediction.name)
  checkRows(rows, names, size)

  const blocks = Math.min(options.blocks ?? 1, rows.length)
  const perBlock = Math.ceil(rows.length / blocks)
  const cell = size * zoom
  const columns = 2 + names.length
  const blockWidth = columns * cell + (columns - 1) * gap
  const blockGap = 3 * gap
  const line = textSize('', titleScale).height + 6
  const head = margin + 2 * line + gap
  const legendItems = classNames.map((name) => 20 + 8 + textSize(name, titleScale).width + 24)
  const legend = wrap(legendItems, Math.max(blockWidth * blocks + blockGap * (blocks - 1), ...legendItems))
  const legendTop = head + perBlock * (cell + gap) + gap
  const page = new Page(
    2 * margin + blocks * blockWidth + (blocks - 1) * blockGap,
    legendTop + legend.length * 32 + margin - 12,
  )

  for (let block = 0; block < blocks; block++) {
    const left = margin + block * (blockWidth + blockGap)
    for (const [i, title] of ['image', 'truth', ...names].entries()) {
      const middle = left + i * (cell + gap) + cell / 2
      const caption = i < 2 ? undefined : captions[title]
      // Without a second line the title sits next to its column.
      page.text(title, middle, margin + (caption === undefined ? line : 0), ink, titleScale, 'middle')
      if (caption !== undefined) page.text(caption, middle, margin + line, faint, titleScale, 'middle')
    }
    for (const [i, row] of rows.slice(block * perBlock, (block + 1) * perBlock).entries()) {
      const top = head + i * (cell + gap)
      const { image } = row
      page.picture(left, top, size, zoom, (at) => [image[at * 3] ?? 0, image[at * 3 + 1] ?? 0, image[at * 3 + 2] ?? 0])
      const masks = [row.truth, ...row.predictions.map((prediction) => prediction.mask)]
      for (const [k, mask] of masks.entries()) {
        page.picture(left + (k + 1) * (cell + gap), top, size, zoom, (at) => palette[mask[at] ?? 255] ?? ignored)
      }
    }
  }

  for (const [i, items] of legend.entries()) {
    const total = items.reduce((sum, item) => sum + (legendItems[item] ?? 0), -24)
    let x = Math.round((page.width - total) / 2)
    for (const item of items) {
      const y = legendTop + i * 32
      page.rectangle(x, y, 20, 20, palette[item] ?? ignored)
      page.text(classNames[item] ?? '', x + 28, y + 3, ink, titleScale)
      x += legendItems[item] ?? 0
    }
  }
  return page
}

function checkRows(rows: readonly SheetRow[], names: readonly string[], size: number): void {
  for (const [i, row] of rows.entries()) {
    if (row.predictions.length !== names.length || row.predictions.some((p, k) => p.name !== names[k])) {
      throw new RangeError(`contact sheet: row ${i} has other predictions than the first (${names.join(', ')})`)
    }
    if (row.image.length !== size * size * 3)
      throw new RangeError(`contact sheet: image ${i} is not ${size}x${size} RGB`)
    for (const mask of [row.truth, ...row.predictions.map((prediction) => prediction.mask)]) {
      if (mask.length !== size * size) throw new RangeError(`contact sheet: a mask of row ${i} is not ${size}x${size}`)
    }
  }
}

/** Breaks items of the given widths into lines no wider than `limit`; gives the items' indices. */
function wrap(widths: readonly number[], limit: number): number[][] {
  const lines: number[][] = [[]]
  let used = 0
  for (const [i, width] of widths.entries()) {
    if (used > 0 && used + width - 24 > limit) {
      lines.push([])
      used = 0
    }
    lines.at(-1)?.push(i)
    used += width
  }
  return lines
}
