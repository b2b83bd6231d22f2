import { type Canvas, mix, type Rgb } from './canvas.js'
import { Class } from './classes.js'
import { jitter, paintShadow } from './land.js'
import { type Light, shade } from './light.js'
import { noise, type Random } from './noise.js'

const walls: readonly [Rgb, ...Rgb[]] = [
  [0.76, 0.24, 0.16],
  [0.84, 0.34, 0.24],
  [0.66, 0.18, 0.16],
]

const roofs: readonly [Rgb, ...Rgb[]] = [
  [0.7, 0.18, 0.12],
  [0.5, 0.16, 0.14],
  [0.42, 0.2, 0.2],
]

/** Paints a house whose front's lower middle is at (x0, y0); `tall` is its height with the roof; `depth` 0 far, 1 near. */
export function paintHouse(
  canvas: Canvas,
  random: Random,
  light: Light,
  [x0, y0]: readonly [number, number],
  tall: number,
  depth: number,
): void {
  const flat = random.chance(0.1)
  const wall = jitter(random, random.pick(walls), 0.08)
  const roof = jitter(random, random.pick(roofs), 0.08)
  const trim = random.chance(0.5) ? ([0.95, 0.95, 0.92] as const) : mix(wall, [0.1, 0.08, 0.06], 0.7)
  const glass: Rgb = random.chance(0.3) ? [1, 0.86, 0.5] : [0.16, 0.2, 0.26]
  const glow = glass[0] > 0.5
  const pattern = random.integer(0, 3)
  const wide = tall * (flat ? random.uniform(0.35, 0.8) : random.uniform(0.5, 0.85))
  const deep = random.chance(0.75) ? wide * random.uniform(0.5, 1.5) : 0
  const way = random.chance(0.5) ? 1 : -1
  const eaves = flat ? 1 : random.uniform(0.48, 0.66)
  const drift = 0.06 * tall
  const floors = flat ? random.integer(2, 5) : random.integer(1, 2)
  const columns = random.integer(2, 3)
  const chimney = !flat && random.chance(0.5)
  const brick = mix(wall, [0.56, 0.2, 0.16], 0.6)
  const seed = random.bits()
  const half = wide / 2
  const overhang = flat ? 0 : 0.06
  const texture = (u: number, v: number): number => {
    if (pattern === 1) return v * 9 - Math.floor(v * 9) < 0.25 ? -0.25 : 0.05
    if (pattern === 2) return u * 8 - Math.floor(u * 8) < 0.22 ? -0.25 : 0.05
    if (pattern === 3) return (noise(u * 14, v * 14, seed) - 0.5) * 0.5
    return 0
  }
  const windows = (u: number, v: number, across: number): number => {
    const a = u * across
    const b = (v / eaves) * floors
    const fu = a - Math.floor(a)
    const fv = b - Math.floor(b)
    if (fu > 0.28 && fu < 0.72 && fv > 0.32 && fv < 0.8) return fu > 0.34 && fu < 0.66 && fv > 0.38 && fv < 0.74 ? 2 : 1
    return 0
  }
  const door = random.uniform(0.2, 0.8)
  paintShadow(canvas, light, x0 + (way * deep) / 2, y0, half + deep / 2, tall * 0.4)
  const reach = half + deep + wide * overhang * 2
  canvas.paint([x0 - reach, y0 - tall * 1.1, x0 + reach, y0], Class.house, (x, y, out) => {
    const p = (x - x0) * way
    const v = (y0 - y) / tall
    const frontLight = 0.5 + 0.35 * light.side * -way
    const sideLight = 0.5 + 0.45 * light.side * way
    const grain = (noise(x * 70, y * 70, seed) - 0.5) * 0.25
    if (chimney && v > 0.75 && v < 1.08 && Math.abs(p - deep * 0.5 - half * 0.2) < wide * 0.07) {
      shade(light, brick, frontLight + grain, depth, out)
      return 1
    }
    if (p >= -half && p <= half) {
      const u = (p + half) / wide
      const gable = flat ? 1 : 1 - (1 - eaves) * Math.abs(2 * u - 1)
      if (v < gable - overhang) {
        const w = v < eaves ? windows(u, v, columns) : 0
        const atDoor = Math.abs(u - door) < 0.09 && v < 0.26 * (flat ? 0.6 : 1)
        if (w === 2 && !atDoor) {
          shade(light, glass, glow ? 1 : 0.4, depth, out)
          if (glow) for (let c = 0; c < 3; c++) out[c] = Math.max(out[c] ?? 0, (glass[c] ?? 0) * 0.8)
        } else shade(light, w === 1 || atDoor ? trim : wall, frontLight + texture(u, v) + grain, depth, out)
        return 1
      }
    }
    if (deep > 0 && p > half) {
      const u = (p - half) / deep
      const lift = drift * u
      if (u <= 1 && v >= lift && v < eaves - overhang + lift * 0.3) {
        const w = windows(u, v, columns)
        shade(
          light,
          w === 2 ? glass : w === 1 ? trim : wall,
          sideLight * (w === 2 ? 0.6 : 1) + texture(u, v) + grain,
          depth,
          out,
        )
        return 1
      }
    }
    if (flat) return 0
    const tile = v * 22 - Math.floor(v * 22) < 0.3 ? -0.2 : 0
    const u = (p + half) / wide
    if (u > -overhang && u < 1 + overhang) {
      const line = 1 - (1 - eaves) * Math.abs(2 * u - 1)
      if (v >= line - overhang && v < line + 0.03) {
        shade(light, roof, frontLight + 0.1, depth, out)
        return 1
      }
    }
    if (deep > 0) {
      const t = (v - eaves + overhang) / (1 - eaves + overhang)
      const from = half * (1 - t)
      if (t >= 0 && t <= 1.03 && p > from && p < from + deep + wide * overhang) {
        shade(light, roof, sideLight + 0.25 + tile + grain, depth, out)
        return 1
      }
    }
    return 0
  })
}
