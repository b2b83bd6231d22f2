import type { Rgb } from '../data/classes.js'
import { faint, ink, Svg, shorten, textWidth } from '../drawing/svg.js'
import type { Scores } from './metrics.js'

/** A confusion matrix [K, K] as CSV: a row per true class, a column per predicted one, in pixels. */
export function confusionCsv(counts: ArrayLike<number>, classNames: readonly string[]): string {
  const nclass = classNames.length
  const quote = (text: string) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  const header = ['ground truth \\ prediction', ...classNames].map(quote).join(',')
  const rows = classNames.map((name, k) =>
    [quote(name), ...Array.from({ length: nclass }, (_, j) => counts[k * nclass + j] ?? 0)].join(','),
  )
  return `${[header, ...rows].join('\n')}\n`
}

const absent: Rgb = [238, 240, 243]
const white: Rgb = [255, 255, 255]
const right: Rgb = [22, 92, 148]
const wrong: Rgb = [196, 58, 42]
/** The colour of nothing. */
const lightest: Rgb = [246, 248, 250]
const margin = 32
const gap = 12
const barLength = 160
const longestName = 24
/** A share of wrong pixels from which on the colour is the darkest, in percent. */
const worst = 50
/** Smaller shares, in percent, are not drawn. */
const least = 0.05

/** Side of a cell for so many classes. */
function cellSize(nclass: number): number {
  if (nclass <= 8) return 64
  if (nclass <= 14) return 48
  return nclass <= 24 ? 40 : nclass <= 40 ? 26 : 13
}

const mix = (to: Rgb, share: number): Rgb => {
  const at = (c: 0 | 1 | 2) => Math.round(lightest[c] + (to[c] - lightest[c]) * Math.min(1, Math.max(0, share)))
  return [at(0), at(1), at(2)]
}

/** Colour of a cell that holds so many percent of its row; small shares of wrong pixels are to be seen, too. */
const shade = (percent: number, diagonal: boolean): Rgb =>
  diagonal ? mix(right, percent / 100) : mix(wrong, Math.sqrt(percent / worst))

const luma = ([r, g, b]: Rgb) => 0.3 * r + 0.59 * g + 0.11 * b

/**
 * An image of a confusion matrix [K, K]: what share of the pixels of each class (row) was taken for which (column),
 * the right ones in blue, the wrong ones in red, and beside it the IoU of each class.
 *
 * @param caption a line below the title
 * @returns the text of an SVG file
 */
export function confusionSvg(
  counts: ArrayLike<number>,
  scores: Scores,
  classNames: readonly string[],
  caption: string,
): string {
  const nclass = classNames.length
  const cell = cellSize(nclass)
  const size = Math.min(15, Math.round(cell * 0.75))
  const names = classNames.map((name) => shorten(name, longestName))
  const nameWidth = Math.max(...names.map((name) => textWidth(name, size)))
  const side = nclass * cell
  const [left, top] = [margin + nameWidth + gap, margin + 96 + nameWidth + gap]
  const barLeft = left + side + 2 * gap
  const svg = new Svg()
  svg.text('Confusion matrix', margin, margin + 12, { size: 22, bold: true })
  svg.text('rows: ground truth, columns: prediction, in percent of the row', margin, margin + 44, { color: faint })
  svg.text(caption, margin, margin + 66, { color: faint })
  for (const [k, name] of names.entries()) {
    const middle = k * cell + cell / 2
    svg.text(name, left - gap, top + middle, { size, anchor: 'end' })
    svg.text(name, left + middle, top - gap, { size, upwards: true })
  }
  drawCells(svg, left, top, cell, counts, scores, classNames)
  svg.text('IoU', barLeft, top - gap - 4, { size: 15, bold: true })
  drawBars(svg, barLeft, top, cell, size, scores)

  const below = top + side + 2 * gap
  drawRange(svg, margin, below, true, 'right, 100 %')
  drawRange(svg, margin + 260, below, false, `taken for another, ${worst} % and more`)
  const means = `mIoU ${scores.miou.toFixed(2)}, over the ${scores.present} classes that occur ${scores.miouPresent.toFixed(2)}`
  svg.text(means, margin, below + 46, { size: 15, bold: true })
  const textWidths = [textWidth(caption, 14), textWidth(means, 15), 620]
  return svg.file(Math.max(barLeft + barLength + 64, margin + Math.max(...textWidths)) + margin, below + 46 + margin)
}

function drawCells(
  svg: Svg,
  left: number,
  top: number,
  cell: number,
  counts: ArrayLike<number>,
  { target }: Scores,
  classNames: readonly string[],
): void {
  const nclass = classNames.length
  const digits = cell >= 48 ? 1 : 0
  const size = Math.round(cell * 0.2 + 5)
  for (let k = 0; k < nclass; k++) {
    const pixels = target[k] ?? 0
    svg.rectangle(left, top + k * cell, nclass * cell - 1, cell - 1, pixels === 0 ? absent : lightest)
    for (let j = 0; j < nclass && pixels > 0; j++) {
      const percent = (100 * (counts[k * nclass + j] ?? 0)) / pixels
      if (percent < least) continue
      const [x, y] = [left + j * cell, top + k * cell]
      const color = shade(percent, k === j)
      const hint = `${classNames[k]}, taken for ${classNames[j]}: ${percent.toFixed(2)} %`
      svg.rectangle(x, y, cell - 1, cell - 1, color, { hint })
      if (cell < 24 || percent < (digits > 0 ? least : 0.5)) continue
      const text = percent >= 99.95 ? '100' : percent.toFixed(digits)
      const textColor = luma(color) < 150 ? white : percent < 5 ? faint : ink
      svg.text(text, x + cell / 2, y + cell / 2, { size, color: textColor, anchor: 'middle' })
    }
  }
}

function drawBars(svg: Svg, left: number, top: number, cell: number, size: number, { iou, union }: Scores): void {
  for (const [k, value] of iou.entries()) {
    const height = Math.max(4, Math.round(cell * 0.4))
    const middle = top + k * cell + cell / 2
    const occurs = (union[k] ?? 0) > 0
    svg.rectangle(left, middle - height / 2, barLength, height, absent, { radius: 2 })
    if (value > 0) svg.rectangle(left, middle - height / 2, (barLength * value) / 100, height, right, { radius: 2 })
    svg.text(occurs ? value.toFixed(1) : '-', left + barLength + gap, middle, { size, color: occurs ? ink : faint })
  }
}

/** What the colours of the cells mean. */
function drawRange(svg: Svg, x: number, y: number, diagonal: boolean, name: string): void {
  const until = diagonal ? 100 : worst
  const colors = Array.from({ length: 11 }, (_, i) => shade((until * i) / 10, diagonal))
  svg.colorRange(x, y, 100, 14, colors)
  svg.text(name, x + 100 + gap, y + 7)
}
