// What the pixels of an image and its label tell of their use for training, at a glance: on a grid of some thousand points.

import { createHash } from 'node:crypto'
import type { Image } from './pixels.js'

/** What was seen of an image. */
export interface ImageFacts {
  /** Luma, 0 to 255, below which 1 % and 99 % of the image lie. */
  readonly dark: number
  readonly bright: number
  /**
   * For each of `directions` that keeps the label's sides: how much stronger the image's edges are at the borders within
   * the label than elsewhere, 1 where they have nothing to do with one another. Empty where there are no borders or edges.
   */
  readonly edges: readonly number[]
  /** The same for images of the same pixels. */
  readonly hash: string
}

/** Moves a point of a grid of so many columns and rows. */
type Move = (x: number, y: number, columns: number, rows: number) => readonly [x: number, y: number]

interface Direction {
  readonly name: string
  /** Whether columns and rows change places. */
  readonly turns: boolean
  readonly move: Move
}

/** Ways to lay a label over its image; the first one is as it is. */
export const directions: readonly [Direction, ...Direction[]] = [
  { name: 'as it is', turns: false, move: (x, y) => [x, y] },
  { name: 'mirrored left to right', turns: false, move: (x, y, columns) => [columns - 1 - x, y] },
  { name: 'mirrored upside down', turns: false, move: (x, y, _, rows) => [x, rows - 1 - y] },
  { name: 'turned by 180°', turns: false, move: (x, y, columns, rows) => [columns - 1 - x, rows - 1 - y] },
  { name: 'turned by 90° to the right', turns: true, move: (x, y, _, rows) => [rows - 1 - y, x] },
  { name: 'turned by 90° to the left', turns: true, move: (x, y, columns) => [y, columns - 1 - x] },
  { name: 'with rows and columns exchanged', turns: true, move: (x, y) => [y, x] },
  {
    name: 'with rows and columns exchanged and turned by 180°',
    turns: true,
    move: (x, y, columns, rows) => [rows - 1 - y, columns - 1 - x],
  },
]

/** Points along the longer side of the grid. */
const gridSide = 128
/** Pixels of a point's part, along a side, that are looked at. */
const samplesPerSide = 2
/** Fewer points of borders than these show nothing. */
const leastBorder = 40
/** An image whose neighbouring points differ less than this, in levels of 255, has no edges. */
const leastGradient = 0.5

/** An image on the grid. */
interface Grid {
  readonly columns: number
  readonly rows: number
  /** [rows, columns, 3]: the mean of pixels of each point's part of the image */
  readonly colors: Float32Array
}

/** Where the intervals of a side begin that its points stand for, and where the last one ends. */
function startsOf(extent: number, points: number): Uint32Array {
  return Uint32Array.from({ length: points + 1 }, (_, i) => Math.floor((i * extent) / points))
}

function gridOf({ data, width, height }: Image): Grid {
  const scale = Math.min(1, gridSide / Math.max(width, height))
  const columns = Math.max(1, Math.round(width * scale))
  const rows = Math.max(1, Math.round(height * scale))
  const [xs, ys] = [startsOf(width, columns), startsOf(height, rows)]
  const step = Math.max(1, Math.floor(Math.min(width / columns, height / rows) / samplesPerSide))
  const colors = new Float32Array(columns * rows * 3)
  for (let row = 0, point = 0; row < rows; row++) {
    const [top, bottom] = [ys[row] as number, ys[row + 1] as number]
    for (let column = 0; column < columns; column++, point += 3) {
      const [left, right] = [xs[column] as number, xs[column + 1] as number]
      let red = 0
      let green = 0
      let blue = 0
      let pixels = 0
      for (let y = top; y < bottom; y += step) {
        for (let x = left; x < right; x += step, pixels++) {
          const at = 3 * (y * width + x)
          red += data[at] as number
          green += data[at + 1] as number
          blue += data[at + 2] as number
        }
      }
      colors[point] = red / pixels
      colors[point + 1] = green / pixels
      colors[point + 2] = blue / pixels
    }
  }
  return { columns, rows, colors }
}

/** The levels of luma below which these shares of the points lie. */
function levelsAt({ colors }: Grid, shares: readonly number[]): number[] {
  const points = colors.length / 3
  const counts = new Uint32Array(256)
  for (let at = 0; at < colors.length; at += 3) {
    const [red, green, blue] = [colors[at] as number, colors[at + 1] as number, colors[at + 2] as number]
    const level = Math.floor(0.299 * red + 0.587 * green + 0.114 * blue)
    counts[level] = (counts[level] as number) + 1
  }
  return shares.map((share) => {
    let below = 0
    return counts.findIndex((count) => {
      below += count
      return below >= share * points
    })
  })
}

const mean = (values: Float32Array): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** Size of the colours' gradient at each point, at most four times its mean, so that a few strong edges do not decide. */
function gradientOf({ columns, rows, colors }: Grid): Float32Array {
  const sizes = new Float32Array(columns * rows)
  for (let y = 0, point = 0; y < rows; y++) {
    const [up, down] = [y > 0 ? 3 * columns : 0, y < rows - 1 ? 3 * columns : 0]
    for (let x = 0; x < columns; x++, point++) {
      const [before, behind] = [x > 0 ? 3 : 0, x < columns - 1 ? 3 : 0]
      let square = 0
      for (let at = 3 * point; at < 3 * point + 3; at++) {
        const across = (colors[at + behind] as number) - (colors[at - before] as number)
        const along = (colors[at + down] as number) - (colors[at - up] as number)
        square += across * across + along * along
      }
      sizes[point] = Math.sqrt(square)
    }
  }
  const most = 4 * mean(sizes)
  return sizes.map((size) => Math.min(size, most))
}

/** The points at which a label differs from the point to the left or above, as places in the grid. */
function borderOf({ data, width, height }: Image, { columns, rows }: Grid): number[] {
  const middles = (extent: number, points: number) =>
    Uint32Array.from({ length: points }, (_, i) => Math.floor(((i + 0.5) * extent) / points))
  const [xs, ys] = [middles(width, columns), middles(height, rows)]
  const values = new Uint8Array(columns * rows)
  for (let y = 0, point = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, point++) {
      values[point] = data[(ys[y] as number) * width + (xs[x] as number)] as number
    }
  }
  const border: number[] = []
  for (let y = 1; y < rows; y++) {
    for (let point = y * columns + 1; point < (y + 1) * columns; point++) {
      const here = values[point]
      if (here !== values[point - 1] || here !== values[point - columns]) border.push(point)
    }
  }
  return border
}

function edgesAlong(grid: Grid, label: Image): number[] {
  const { columns, rows } = grid
  const border = borderOf(label, grid)
  const gradient = gradientOf(grid)
  const average = mean(gradient)
  if (border.length < leastBorder || average < leastGradient) return []
  const possible = directions.filter(({ turns }) => !turns || label.width === label.height)
  return possible.map(({ move }) => {
    let sum = 0
    for (const point of border) {
      const [x, y] = move(point % columns, Math.floor(point / columns), columns, rows)
      sum += gradient[y * columns + x] as number
    }
    return sum / border.length / average
  })
}

/**
 * Looks at an image and its label.
 * @param image data [H, W, 3]
 * @param label data [H, W], of the same sides; null where there is none
 */
export function factsOf(image: Image, label: Image | null): ImageFacts {
  const grid = gridOf(image)
  const [dark = 0, bright = 0] = levelsAt(grid, [0.01, 0.99])
  const hash = createHash('sha1').update(`${image.width}x${image.height} `).update(grid.colors).digest('base64')
  return { dark, bright, edges: label === null ? [] : edgesAlong(grid, label), hash }
}
