import type { Rgb } from '../data/classes.js'
import { drawText, textSize } from './font.js'
import { rgbPng } from './masks.js'

const white = 255

/** White RGB pixels to draw on. */
export class Page {
  readonly width: number
  readonly height: number
  private readonly data: Uint8Array

  constructor(width: number, height: number) {
    this.width = Math.ceil(width)
    this.height = Math.ceil(height)
    this.data = new Uint8Array(this.width * this.height * 3).fill(white)
  }

  rectangle(left: number, top: number, width: number, height: number, color: Rgb): void {
    for (let y = top; y < top + height; y++) for (let x = left; x < left + width; x++) this.set(x, y, color)
  }

  /** A square picture of `size` pixels, each `zoom` wide, given their colours by index. */
  picture(left: number, top: number, size: number, zoom: number, color: (at: number) => Rgb): void {
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        this.rectangle(left + x * zoom, top + y * zoom, zoom, zoom, color(y * size + x))
      }
    }
  }

  /** Text whose left, middle or right is at `x`, and whose top is at `y`. */
  text(text: string, x: number, y: number, color: Rgb, scale = 2, align: 'left' | 'middle' | 'right' = 'left'): void {
    const { width } = textSize(text, scale)
    const left = x - (align === 'left' ? 0 : align === 'middle' ? width / 2 : width)
    drawText(text, Math.round(left), y, scale, (i, j) => this.set(i, j, color))
  }

  /** Text that reads upwards, from (x, bottom). */
  upwards(text: string, x: number, bottom: number, color: Rgb, scale = 2): void {
    drawText(text, 0, 0, scale, (i, j) => this.set(x + j, bottom - i, color))
  }

  png(): Promise<Buffer> {
    return rgbPng({ data: this.data, width: this.width, height: this.height })
  }

  private set(x: number, y: number, color: Rgb): void {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return
    this.data.set(color, (y * this.width + x) * 3)
  }
}

/** A text in letters that the font has, shortened to `length`. */
export function plain(text: string, length: number): string {
  const letters = text
    .normalize('NFD')
    .replace(/\p{M}+/gu, '')
    .replaceAll(';', ',')
  return letters.length <= length ? letters : `${letters.slice(0, length - 1)}.`
}
