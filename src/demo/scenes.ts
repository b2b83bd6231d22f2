/**
 * Synthetic scenes with dense labels: a small world of sky, ground, water, trees, houses and boats. Each class has
 * paints of its own, but shapes, light, exposure, white balance and contrast vary widely from scene to scene, so that a
 * few scenes do not show what a class can look like.
 */
import { paintBoat } from './boat.js'
import { Canvas } from './canvas.js'
import { paintHouse } from './house.js'
import { drawLand, type Land, paintClutter, paintGround, paintHills, paintSky, paintWater } from './land.js'
import { drawLight } from './light.js'
import { hash, Random } from './noise.js'
import { drawGrove, paintTree } from './tree.js'

export { classNames, palette } from './classes.js'

export interface Scene {
  /** [size, size, 3], RGB */
  image: Uint8Array
  /** [size, size], class indices */
  label: Uint8Array
}

/** Samples per pixel and axis. */
const oversampling = 2

/**
 * Scene `index` of the world `seed`: the same bytes on every machine.
 *
 * @param size side of the square image in pixels
 * @throws RangeError if `size` is not a positive integer
 */
export function scene(seed: number, index: number, size: number): Scene {
  if (!Number.isInteger(size) || size < 1) throw new RangeError(`scene size must be a positive integer, not ${size}`)
  const random = new Random(seed, index)
  const canvas = new Canvas(size * oversampling)
  const light = drawLight(random)
  const land = drawLand(random)
  paintSky(canvas, random, light, land)
  paintHills(canvas, random, light, land)
  paintGround(canvas, random, light, land)
  paintWater(canvas, random, light, land)

  const zoom = random.uniform(0.85, 1.25)
  const groves = [drawGrove(random), drawGrove(random)] as const
  const forest = random.integer(1, 3)
  const things: { x: number; y: number; kind: 'tree' | 'house' | 'boat' | 'clutter' }[] = []
  const add = (
    kind: (typeof things)[number]['kind'],
    count: number,
    wet: boolean | undefined,
    margin: number,
  ): void => {
    for (let i = 0; i < count; i++) {
      const spot = findSpot(random, land, wet, margin, things)
      if (spot !== undefined) things.push({ ...spot, kind })
    }
  }
  add('tree', forest, false, 0)
  add('house', random.integer(1, 2), false, 0.04)
  add('boat', random.integer(1, 2), true, 0.06)
  add('clutter', random.integer(0, 2), undefined, 0)
  things.sort((a, b) => a.y - b.y)

  for (const { x, y, kind } of things) {
    const depth = Math.max(0, land.depth(y))
    const size = (0.34 + 0.24 * depth) * zoom * random.uniform(0.8, 1.2)
    const spot = [x, y] as const
    if (kind === 'tree') paintTree(canvas, random, light, groves[random.chance(0.7) ? 0 : 1], spot, size * 1.1, depth)
    else if (kind === 'house') paintHouse(canvas, random, light, spot, size * 0.8, depth)
    else if (kind === 'boat') paintBoat(canvas, random, light, spot, size * 1.2, depth)
    else paintClutter(canvas, random, light, x, y, size * 0.2)
  }
  return photograph(canvas, random, size)
}

/**
 * A random place on water (`wet`), on land or on either, beside what is there already; `margin` is kept free of the other to
 * both sides.
 */
function findSpot(
  random: Random,
  land: Land,
  wet: boolean | undefined,
  margin: number,
  taken: readonly { x: number; y: number }[],
): { x: number; y: number } | undefined {
  for (let attempt = 0; attempt < 12; attempt++) {
    const t = random.uniform()
    const x = random.uniform(0.02, 0.98)
    const y = land.horizon + (1 - land.horizon) * (0.02 + 1.08 * t * (wet === true ? 0.85 : 1))
    if (wet === undefined) return { x, y }
    const clear = [x - margin, x, x + margin].every((at) => land.isWater(at, y) === wet)
    const apart = taken.every((at) => Math.abs(at.x - x) > 0.16)
    if (clear && apart) return { x, y }
  }
  return undefined
}

/** What the camera makes of the canvas: exposure, contrast, white balance, saturation, vignetting, blur, sensor noise, 8 bits. */
function photograph(canvas: Canvas, random: Random, size: number): Scene {
  const gain = random.uniform(0.7, 1.25)
  const contrast = random.uniform(0.7, 1.2)
  const balance = [random.uniform(0.84, 1.16), random.uniform(0.92, 1.08), random.uniform(0.84, 1.16)] as const
  const saturation = random.uniform(0.65, 1.3)
  const vignette = random.uniform(0, 0.4)
  const grain = random.uniform(0.005, 0.03)
  const blur = random.chance(0.3)
  const key = random.bits()
  const film = new Float64Array(size * size * 3) // [size, size, 3]
  const label = new Uint8Array(size * size) // [size, size]
  const n = oversampling
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const at = row * size + column
      for (let c = 0; c < 3; c++) {
        let sum = 0
        for (let i = 0; i < n; i++)
          for (let j = 0; j < n; j++) sum += canvas.rgb[((row * n + i) * canvas.side + column * n + j) * 3 + c] ?? 0
        film[at * 3 + c] = sum / (n * n)
      }
      label[at] = majority(canvas, row * n, column * n)
    }
  }
  const image = new Uint8Array(size * size * 3)
  const colour = new Float64Array(3)
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const at = (row * size + column) * 3
      const u = (column + 0.5) / size - 0.5
      const v = (row + 0.5) / size - 0.5
      const exposure = gain * (1 - vignette * 1.6 * (u * u + v * v))
      for (let c = 0; c < 3; c++) {
        colour[c] = (blur ? soften(film, row, column, c, size) : (film[at + c] ?? 0)) * (balance[c] ?? 1)
      }
      const grey = 0.3 * (colour[0] ?? 0) + 0.59 * (colour[1] ?? 0) + 0.11 * (colour[2] ?? 0)
      for (let c = 0; c < 3; c++) {
        // The sum of two uniform numbers stands in for a normal one.
        const bits = hash(key, at + c, 0x68bc21eb)
        const speck = ((bits & 0xffff) + (bits >>> 16)) / 65535 - 1
        const developed = 0.5 + (grey + ((colour[c] ?? 0) - grey) * saturation - 0.5) * contrast
        const seen = developed * exposure + speck * grain * 2
        image[at + c] = Math.floor(Math.min(1, Math.max(0, seen)) * 255 + 0.5)
      }
    }
  }
  return { image, label }
}

/** The most frequent label of a 2x2 block, the first of equals. */
function majority(canvas: Canvas, row: number, column: number): number {
  const { label, side } = canvas
  const a = label[row * side + column] ?? 0
  const b = label[row * side + column + 1] ?? 0
  const c = label[(row + 1) * side + column] ?? 0
  const d = label[(row + 1) * side + column + 1] ?? 0
  if (a === b || a === c || a === d) return a
  if (b === c || b === d) return b
  return c === d ? c : a
}

/** Binomial 3x3 blur of channel `c` at one pixel, edges repeated. */
function soften(film: Float64Array, row: number, column: number, c: number, size: number): number {
  let sum = 0
  for (let i = -1; i <= 1; i++) {
    const r = Math.min(size - 1, Math.max(0, row + i))
    for (let j = -1; j <= 1; j++) {
      const k = Math.min(size - 1, Math.max(0, column + j))
      sum += (film[(r * size + k) * 3 + c] ?? 0) * (i === 0 ? 2 : 1) * (j === 0 ? 2 : 1)
    }
  }
  return sum / 16
}
