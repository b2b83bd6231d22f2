import type { Rgb } from '../data/classes.js'
import { textSize } from '../drawing/font.js'
import { Page, plain } from '../drawing/page.js'
import type { Scores } from './metrics.js'

/** A confusion matrix [K, K] as CSV: a row per true class, a column per predicted one, in pixels. */
export function confusionCsv(counts: ArrayLike<number>, classNames: readonly string[]): string {
  const nclass = classNames.length
  const quote = (text: string) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  const header = ['truth \\ prediction', ...classNames].map(quote).join(',')
  const rows = classNames.map((name, k) =>
    [quote(name), ...Array.from({ length: nclass }, (_, j) => counts[k * nclass + j] ?? 0)].join(','),
  )
  return `${[header, ...rows].join('\n')}\n`
}

const ink: Rgb = [34, 38, 44]
const faint: Rgb = [124, 130, 140]
const absent: Rgb = [236, 238, 241]
const grid: Rgb = [255, 255, 255]
const right: Rgb = [22, 92, 148]
const wrong: Rgb = [196, 58, 42]
/** From white. */
const lightest: Rgb = [246, 248, 250]
const margin = 32
const gap = 12
const barLength = 160
const longestName = 22
/** A share of wrong pixels from which on the colour is the darkest, in percent. */
const worst = 50

/** Side of a cell for so many classes. */
function cellSize(nclass: number): number {
  if (nclass <= 8) return 64
  if (nclass <= 14) return 48
  return nclass <= 24 ? 40 : nclass <= 40 ? 24 : 12
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
 * @returns the bytes of an RGB PNG
 */
export function confusionPng(
  counts: ArrayLike<number>,
  scores: Scores,
  classNames: readonly string[],
  caption: string,
): Promise<Buffer> {
  const nclass = classNames.length
  const cell = cellSize(nclass)
  const nameScale = cell >= 20 ? 2 : 1
  const names = classNames.map((name) => plain(name, longestName))
  const nameWidth = Math.max(...names.map((name) => textSize(name, nameScale).width))
  const line = 28
  const left = margin + nameWidth + gap
  const side = nclass * cell
  const barLeft = left + side + 3 * gap
  const top = margin + 3 * line + nameWidth + 2 * gap
  const legendTop = top + side + 2 * gap
  const title = 'Confusion matrix'
  const subtitle = 'rows: truth, columns: prediction, in percent of the row'
  const below = plain(caption, 120)
  const textWidth = Math.max(...[title, subtitle, below].map((text) => textSize(text, 2).width), 620)
  const page = new Page(
    Math.max(barLeft + barLength + 80 + margin, 2 * margin + textWidth),
    legendTop + 24 + 2 * line + margin,
  )
  page.text(title, margin, margin, ink, 3)
  page.text(subtitle, margin, margin + line + 4, faint)
  page.text(below, margin, margin + 2 * line, faint)

  for (const [k, name] of names.entries()) {
    const middle = Math.floor(k * cell + cell / 2 - 3.5 * nameScale)
    page.text(name, left - gap, top + middle, ink, nameScale, 'right')
    page.upwards(name, left + middle, top - gap, ink, nameScale)
  }
  for (let k = 0; k < nclass; k++) {
    const pixels = scores.target[k] ?? 0
    for (let j = 0; j < nclass; j++) {
      const [x, y] = [left + j * cell, top + k * cell]
      if (pixels === 0) {
        page.rectangle(x, y, cell, cell, absent)
        continue
      }
      const percent = (100 * (counts[k * nclass + j] ?? 0)) / pixels
      const color = shade(percent, k === j)
      page.rectangle(x, y, cell, cell, color)
      const text = percent >= 99.95 ? '100' : percent.toFixed(cell >= 48 ? 1 : 0)
      const scale = cell >= 40 ? 2 : 1
      if (cell >= 24 && percent >= (cell >= 48 ? 0.05 : 0.5)) {
        const textColor = luma(color) < 150 ? grid : percent < 5 ? faint : ink
        page.text(text, x + cell / 2 + 1, Math.floor(y + cell / 2 - 3.5 * scale), textColor, scale, 'middle')
      }
    }
  }
  for (let k = 0; k <= nclass; k++) {
    page.rectangle(left + k * cell, top, 1, side, grid)
    page.rectangle(left, top + k * cell, side, 1, grid)
  }

  page.text('IoU', barLeft, top - gap - 14, ink)
  for (let k = 0; k < nclass; k++) {
    const height = Math.max(4, Math.round(cell * 0.5))
    const y = top + k * cell + Math.floor((cell - height) / 2)
    const occurs = (scores.union[k] ?? 0) > 0
    const iou = scores.iou[k] ?? 0
    page.rectangle(barLeft, y, barLength, height, absent)
    if (occurs) page.rectangle(barLeft, y, Math.round((barLength * iou) / 100), height, right)
    const textTop = Math.floor(top + k * cell + cell / 2 - 3.5 * nameScale)
    page.text(occurs ? iou.toFixed(1) : '-', barLeft + barLength + gap, textTop, occurs ? ink : faint, nameScale)
  }

  gradient(page, margin, legendTop, true, 'right', '100 %')
  gradient(page, margin + 320, legendTop, false, 'taken for another', `${worst} % and more`)
  const means = `mIoU ${scores.miou.toFixed(2)}   over the ${scores.present} classes that occur ${scores.miouPresent.toFixed(2)}`
  page.text(means, margin, legendTop + 24 + line, ink)
  return page.png()
}

function gradient(page: Page, x: number, y: number, diagonal: boolean, name: string, end: string): void {
  const length = 100
  const until = diagonal ? 100 : worst
  for (let i = 0; i < length; i++) page.rectangle(x + i, y, 1, 14, shade((until * i) / length, diagonal))
  page.text(`${name}, ${end}`, x + length + gap, y, ink)
}
