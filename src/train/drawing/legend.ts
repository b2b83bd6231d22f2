import type { Rgb } from '../data/classes.js'
import { faint, Svg, shorten, textWidth } from './svg.js'

const outline: Rgb = [200, 204, 210]
const margin = 20
const swatch = 22
const gap = 10
const line = 32
const size = 15
const rows = 24
const longestName = 40

/** The colours of the classes with their indices and names, in columns: the text of an SVG file. */
export function legendSvg(classNames: readonly string[], palette: readonly Rgb[]): string {
  // A class without a name has its index for one.
  const names = classNames.map((name, k) => (name === `${k}` ? '' : shorten(name, longestName)))
  const indexWidth = textWidth(`${classNames.length - 1}`, size)
  const column = swatch + gap + indexWidth + gap + Math.max(...names.map((name) => textWidth(name, size))) + 2 * gap
  const svg = new Svg()
  for (const [k, name] of names.entries()) {
    const [x, y] = [margin + Math.floor(k / rows) * column, margin + (k % rows) * line]
    svg.rectangle(x + 0.5, y + 0.5, swatch - 1, swatch - 1, palette[k] ?? outline, { radius: 4, outline })
    const end = x + swatch + gap + indexWidth
    svg.text(`${k}`, end, y + swatch / 2, { size, color: faint, anchor: 'end' })
    svg.text(name, end + gap, y + swatch / 2, { size })
  }
  const columns = Math.ceil(names.length / rows)
  return svg.file(2 * margin + columns * column - 2 * gap, 2 * margin + Math.min(rows, names.length) * line - gap)
}
