import { type Rgb, showColor } from '../data/classes.js'

export const ink: Rgb = [34, 38, 44]
export const faint: Rgb = [112, 118, 128]

/** Of the viewer's fonts: a plain one that has the letters. */
const fonts =
  "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', 'DejaVu Sans', sans-serif"
const wide = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Extended_Pictographic}]/u

/** About the width of a text in the viewer's font, which is not known: rather too wide. */
export function textWidth(text: string, size: number): number {
  let width = 0
  for (const letter of text.replace(/\p{M}/gu, '')) width += wide.test(letter) ? 1.05 : 0.62
  return Math.ceil(width * size)
}

/** At most `length` letters of a text. */
export function shorten(text: string, length: number): string {
  const letters = [...text]
  return letters.length <= length ? text : `${letters.slice(0, length - 1).join('')}…`
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

/** A text as it may stand in HTML, also within an attribute's double quotes. */
export const escapeMarkup = (text: string): string => text.replace(/[&<>"]/g, (sign) => entities[sign] ?? sign)

/** A text as it may stand in XML, which has no control characters. */
const escapeXml = (text: string): string => escapeMarkup(text.replace(/[\p{Cc}\uFFFE\uFFFF]/gu, '\uFFFD'))

const attributes = (values: Readonly<Record<string, string | number | undefined>>): string =>
  Object.entries(values)
    .flatMap(([name, value]) => {
      const shown = typeof value === 'number' ? Number(value.toFixed(2)) : value
      return shown === undefined ? [] : [` ${name}="${shown}"`]
    })
    .join('')

export interface RectangleStyle {
  /** Radius of the corners. */
  readonly radius?: number
  readonly outline?: Rgb
  /** Shown where the mouse rests on it. */
  readonly hint?: string
}

export interface TextStyle {
  /** Default: 14 */
  readonly size?: number
  /** Default: `ink` */
  readonly color?: Rgb
  readonly bold?: boolean
  /** What of the text is at x. Default: its start. */
  readonly anchor?: 'start' | 'middle' | 'end'
  /** Reads upwards, from (x, y). */
  readonly upwards?: boolean
}

/** An SVG file on white; what is drawn later lies over what was drawn before. Places and sizes are in pixels. */
export class Svg {
  private readonly parts: string[] = []
  private colorRanges = 0

  rectangle(x: number, y: number, width: number, height: number, fill: Rgb | string, style: RectangleStyle = {}): void {
    const { radius: rx, outline, hint } = style
    const color = typeof fill === 'string' ? fill : showColor(fill)
    const shape = attributes({ x, y, width, height, rx, fill: color, stroke: outline && showColor(outline) })
    this.parts.push(hint === undefined ? `<rect${shape}/>` : `<rect${shape}><title>${escapeXml(hint)}</title></rect>`)
  }

  /** A line of text whose letters are centred on the height y. */
  text(text: string, x: number, y: number, style: TextStyle = {}): void {
    const { size = 14, color = ink, bold = false, anchor, upwards = false } = style
    // Digits reach from the line to about 0.72 of the size.
    const down = 0.36 * size
    const place = upwards ? { transform: `translate(${x + down} ${y}) rotate(-90)` } : { x, y: y + down }
    const look = {
      'font-size': size,
      fill: showColor(color),
      'font-weight': bold ? 600 : undefined,
      'text-anchor': anchor === 'start' ? undefined : anchor,
    }
    this.parts.push(`<text${attributes({ ...place, ...look })}>${escapeXml(text)}</text>`)
  }

  /** A picture, in square pixels where it is enlarged. */
  png(bytes: Buffer, x: number, y: number, width: number, height: number): void {
    const href = `data:image/png;base64,${bytes.toString('base64')}`
    const style = 'image-rendering: pixelated'
    this.parts.push(`<image${attributes({ x, y, width, height, style, href })}/>`)
  }

  /** A rectangle whose colours go from left to right. */
  colorRange(x: number, y: number, width: number, height: number, colors: readonly Rgb[]): void {
    const id = `range${this.colorRanges++}`
    const stops = colors.map(
      (color, i) => `<stop offset="${i / (colors.length - 1)}" stop-color="${showColor(color)}"/>`,
    )
    this.parts.push(`<linearGradient id="${id}">${stops.join('')}</linearGradient>`)
    this.rectangle(x, y, width, height, `url(#${id})`, { radius: 2 })
  }

  /** The text of the file. */
  file(width: number, height: number): string {
    const [w, h] = [Math.ceil(width), Math.ceil(height)]
    const root = { xmlns: 'http://www.w3.org/2000/svg', width: w, height: h, viewBox: `0 0 ${w} ${h}` }
    const head = `<svg${attributes({ ...root, 'font-family': fonts })}>`
    return `${[head, `<rect${attributes({ width: w, height: h, fill: '#ffffff' })}/>`, ...this.parts, '</svg>'].join('\n')}\n`
  }
}
