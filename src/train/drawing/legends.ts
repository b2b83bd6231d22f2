import type { Rgb } from '../data/classes.js'
import { textSize } from './font.js'
import { Page, plain } from './page.js'

const ink: Rgb = [34, 38, 44]
const outline: Rgb = [200, 204, 210]
const margin = 20
const swatch = 24
const line = 34
const rows = 24

/** The colours of the classes with their indices and names, in columns: the bytes of an RGB PNG. */
export function legendPng(classNames: readonly string[], palette: readonly Rgb[]): Promise<Buffer> {
  const texts = classNames.map((name, k) => (name === `${k}` ? name : `${k} ${plain(name, 40)}`))
  const column = swatch + 12 + Math.max(...texts.map((text) => textSize(text, 2).width)) + 32
  const height = Math.min(rows, texts.length)
  const page = new Page(2 * margin + Math.ceil(texts.length / rows) * column - 32, 2 * margin + height * line - 10)
  for (const [k, text] of texts.entries()) {
    const [x, y] = [margin + Math.floor(k / rows) * column, margin + (k % rows) * line]
    page.rectangle(x, y, swatch, swatch, outline)
    page.rectangle(x + 1, y + 1, swatch - 2, swatch - 2, palette[k] ?? outline)
    page.text(text, x + swatch + 12, y + 5, ink)
  }
  return page.png()
}
