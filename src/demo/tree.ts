import { type Canvas, mix, type Rgb } from './canvas.js'
import { Class } from './classes.js'
import { jitter, paintShadow } from './land.js'
import { type Light, shade } from './light.js'
import { noise, noise2, type Random } from './noise.js'

const leaves: readonly [Rgb, ...Rgb[]] = [
  [0.2, 0.5, 0.14],
  [0.1, 0.34, 0.14],
  [0.3, 0.46, 0.1],
]

/** What the trees of one scene have in common. */
export interface Grove {
  conifer: boolean
  leaf: Rgb
  bark: Rgb
  grain: number
}

export function drawGrove(random: Random): Grove {
  return {
    conifer: random.chance(0.4),
    leaf: random.pick(leaves),
    bark: mix([0.34, 0.24, 0.16], [0.85, 0.84, 0.8], random.chance(0.2) ? 1 : random.uniform(0, 0.4)),
    grain: random.uniform(0.6, 1.1),
  }
}

/** Paints a tree that stands at (x0, y0) and is `tall` high (fractions of the side); `depth` 0 far, 1 near. */
export function paintTree(
  canvas: Canvas,
  random: Random,
  light: Light,
  grove: Grove,
  [x0, y0]: readonly [number, number],
  tall: number,
  depth: number,
): void {
  const leaf = jitter(random, grove.leaf, 0.07)
  const seed = random.bits()
  const half = tall * (grove.conifer ? 0.28 : 0.42) * random.uniform(0.85, 1.2)
  const inside = crown(grove.conifer, random, seed)
  const lean = random.uniform(-0.06, 0.06)
  const trunk = 0.035 * random.uniform(0.8, 1.4) * tall
  const fine = 9 / tall
  paintShadow(canvas, light, x0, y0, half * 0.8, tall * 0.45)
  canvas.paint([x0 - half * 1.5, y0 - tall * 1.05, x0 + half * 1.5, y0], Class.tree, (x, y, out) => {
    const v = (y0 - y) / tall
    const bend = lean * v * v * tall * 0.5
    const u = (x - x0 - bend) / half
    const crownLight = inside(u, v)
    if (crownLight > 0) {
      const clump = noise2(x * fine, y * fine, seed)
      const leafy = noise(x * fine * 3.1, y * fine * 3.1, seed + 2)
      const lit = 0.35 + (crownLight - 0.5) * 0.5 + u * light.side * 0.45 + (clump + leafy - 1) * grove.grain
      shade(light, leaf, lit, depth, out)
      return 1
    }
    const side = (x - x0 - bend) / (trunk * (1.25 - v))
    if (side * side < 1 && v < 0.5) {
      shade(light, grove.bark, 0.45 + 0.5 * side * light.side + (noise(x * 90, y * 25, seed) - 0.5) * 0.6, depth, out)
      return 1
    }
    return 0
  })
}

/** The crown as a function of (u, v), u across in -1..1 and v up in 0..1: 0 outside, else the light from above. */
function crown(conifer: boolean, random: Random, seed: number): (u: number, v: number) => number {
  if (conifer) {
    const tiers = random.integer(3, 6)
    return (u, v) => {
      if (v < 0.13) return 0
      const t = (v - 0.13) * tiers * 1.15
      const f = t - Math.floor(t)
      const width = (1 - v) * (1.25 - 0.5 * f) + (noise(u * 5, v * 18, seed) - 0.5) * 0.22
      return Math.abs(u) < width ? 0.3 + 0.6 * f : 0
    }
  }
  const balls = Array.from({ length: random.integer(5, 9) }, (_, i) => ({
    x: i === 0 ? 0 : random.uniform(-0.6, 0.6),
    y: random.uniform(0.45, 0.78),
    r: random.uniform(0.16, 0.26),
  }))
  return (u, v) => {
    const ragged = (noise(u * 7, v * 14, seed) - 0.5) * 0.6
    let best = 0
    for (const { x, y, r } of balls) {
      const dx = ((u - x) * 0.4) / r
      const dy = (v - y) / r
      if (dx * dx + dy * dy + ragged < 1) best = Math.max(best, 0.55 + 0.4 * dy)
    }
    return best
  }
}
