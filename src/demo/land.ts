import { type Canvas, keepLabel, mix, type Rgb } from './canvas.js'
import { Class } from './classes.js'
import { type Light, shade } from './light.js'
import { noise, noise2, type Random, wave } from './noise.js'

/** Where things are: everything above `horizon` is sky, below it `isWater` decides. */
export interface Land {
  /** Fraction of the image's height. */
  horizon: number
  /** 0 at the horizon, 1 at the lower edge. */
  depth(y: number): number
  isWater(x: number, y: number): boolean
}

export function drawLand(random: Random): Land {
  const horizon = random.uniform(0.26, 0.46)
  const kind = random.integer(0, 5)
  const seed = random.bits()
  const a = random.uniform(0.25, 0.55)
  const b = random.uniform(-0.3, 0.3)
  const c = random.uniform(0.25, 0.75)
  const d = random.uniform(-0.5, 0.5)
  const sign = random.chance(0.5) ? 1 : -1
  const rough = random.uniform(0.05, 0.2)
  const depth = (y: number): number => (y - horizon) / (1 - horizon)
  const isWater = (x: number, y: number): boolean => {
    const z = depth(y)
    const warp = (noise2(x * 5, z * 6, seed) - 0.5) * rough
    if (kind === 0) return z + warp + b * (x - 0.5) < a + 0.1
    if (kind === 1) return z + warp + b * (x - 0.5) > a - 0.05
    if (kind === 2) return sign * (x - 0.5 - d * 0.5 * z + warp) > 0.05 - 0.2 * z
    if (kind === 3) return Math.abs(x - c - d * z * (1 - z) * 2 + warp) < 0.1 + 0.32 * z
    if (kind === 4) {
      const u = (x - c) / (0.35 + a * 0.4)
      const v = (z - a) / 0.27
      return u * u + v * v + warp * 4 < 1
    }
    return z + warp < 0.1
  }
  return { horizon, depth, isWater }
}

export function paintSky(canvas: Canvas, random: Random, light: Light, land: Land): void {
  const seed = random.bits()
  const cover = random.uniform(0, 0.65)
  const scale = random.uniform(2, 6)
  const flat = random.uniform(1.5, 4)
  const soft = random.uniform(2, 7)
  const bright = mix(light.skyLow, [1, 1, 1], random.uniform(0, 0.6))
  const cloud = mix(bright, light.skyTop, random.chance(0.3) ? 0.6 : 0.1)
  const discX = 0.5 + light.side * random.uniform(0.2, 0.45)
  const discY = land.horizon * random.uniform(0.15, 0.85)
  const discR = random.chance(0.45) ? random.uniform(0.02, 0.05) : 0
  const { skyTop, skyLow } = light
  canvas.paint([0, 0, 1, land.horizon + 0.02], Class.sky, (x, y, out) => {
    const t = Math.min(1, y / land.horizon)
    const n = noise2(x * scale, y * scale * flat, seed)
    const puff = Math.min(1, Math.max(0, (n - 1 + cover) * soft)) * (1 - 0.4 * t)
    const dx = x - discX
    const dy = y - discY
    const disc = dx * dx + dy * dy < discR * discR ? 1 - 0.7 * puff : 0
    for (let c = 0; c < 3; c++) {
      const top = skyTop[c] ?? 0
      const clear = top + ((skyLow[c] ?? 0) - top) * t
      const sky = clear + ((cloud[c] ?? 0) - clear) * puff
      out[c] = sky + (1 - sky) * disc
    }
    return 1
  })
  for (let i = random.chance(0.35) ? random.integer(2, 7) : 0; i > 0; i--) paintBird(canvas, random, land)
  if (random.chance(0.15)) paintBalloon(canvas, random, light, land)
}

function paintBird(canvas: Canvas, random: Random, land: Land): void {
  const x0 = random.uniform(0.05, 0.95)
  const y0 = random.uniform(0.05, 0.8) * land.horizon
  const r = random.uniform(0.012, 0.03)
  canvas.paint([x0 - r, y0 - r, x0 + r, y0 + r], Class.sky, (x, y, out) => {
    const u = Math.abs(x - x0) / r
    const wing = (u - u * u) * 1.6 - 0.2
    out.fill(0.12)
    return Math.abs((y0 - y) / r - wing) < 0.22 * (1.1 - u) ? 0.85 : 0
  })
}

/** Clutter that looks like anything but sky, and counts as sky. */
function paintBalloon(canvas: Canvas, random: Random, light: Light, land: Land): void {
  const x0 = random.uniform(0.1, 0.9)
  const y0 = random.uniform(0.2, 0.6) * land.horizon
  const r = random.uniform(0.03, 0.06)
  const a = drawColour(random, 0.9)
  const b = drawColour(random, 0.9)
  canvas.paint([x0 - r, y0 - r, x0 + r, y0 + 1.6 * r], Class.sky, (x, y, out) => {
    const u = (x - x0) / r
    const v = (y - y0) / r
    const basket = Math.abs(u) < 0.18 && v > 1.2 && v < 1.55
    if (u * u + v * v * (v > 0 ? 0.7 : 1) > 1 && !basket) return 0
    shade(light, wave(u * 1.3) > 0 ? a : b, 0.5 + 0.5 * u * light.side, 1, out)
    return 1
  })
}

/** A colour of any hue; `vivid` 0 is grey, 1 saturated. */
function drawColour(random: Random, vivid: number): Rgb {
  const hue = random.uniform(0, 6)
  const value = random.uniform(0.3, 0.95)
  const channel = (shift: number): number => {
    const h = (hue + shift) % 6
    const t = Math.min(1, Math.max(0, Math.abs(h - 3) - 1))
    return value * (1 - vivid * (1 - t))
  }
  return [channel(0), channel(4), channel(2)]
}

const soils: readonly [Rgb, ...Rgb[]] = [
  [0.8, 0.72, 0.36], // dry grass
  [0.9, 0.8, 0.56], // sand
]

const seas: readonly [Rgb, ...Rgb[]] = [
  [0.06, 0.3, 0.62],
  [0.05, 0.4, 0.56],
  [0.1, 0.24, 0.5],
]

export function paintHills(canvas: Canvas, random: Random, light: Light, land: Land): void {
  for (let ridge = random.chance(0.4) ? 1 : 0; ridge > 0; ridge--) {
    const seed = random.bits()
    const high = random.uniform(0.05, 0.16)
    const scale = random.uniform(1.5, 6)
    const soil = jitter(random, random.pick(soils), 0.1)
    const rugged = random.uniform(0, 0.25)
    const pale = 0.1
    canvas.paint([0, land.horizon - high, 1, land.horizon + 0.01], Class.ground, (x, y, out) => {
      const rise = noise2(x * scale, 0.5, seed) + (noise(x * scale * 7, 1.5, seed) - 0.5) * rugged
      const v = (land.horizon - y) / high
      if (v > rise) return 0
      const slope = noise2(x * scale + 0.04, 0.5, seed) - noise2(x * scale - 0.04, 0.5, seed)
      const grain = noise2(x * 30, y * 40, seed + 5)
      const lit = 0.55 - slope * light.side * 5 + (grain - 0.5) * 0.5
      shade(light, soil, lit, 0.25 - pale, out)
      return 1
    })
  }
}

export function paintGround(canvas: Canvas, random: Random, light: Light, land: Land): void {
  const seed = random.bits()
  const soil = jitter(random, random.pick(soils), 0.08)
  const other = jitter(random, random.pick(soils), 0.08)
  const patches = random.chance(0.5) ? random.uniform(0.35, 0.6) : 2
  const contrast = random.uniform(0.15, 0.4)
  const fine = random.uniform(3, 16)
  const stripes = random.chance(0.3) ? random.uniform(0.2, 0.4) : 0
  const turn = random.uniform(-0.6, 0.6)
  const rows = random.uniform(2, 7)
  const flowers = random.chance(0.1) ? random.uniform(0.8, 0.9) : 2
  const flower = drawColour(random, random.uniform(0.2, 1))
  canvas.paint([0, land.horizon, 1, 1], Class.ground, (x, y, out) => {
    const z = land.depth(y)
    const far = 1 / (z + 0.16)
    const u = (x - 0.5) * far * 1.6
    const grain = noise2(u * fine, far * fine * 1.5, seed)
    const patch = noise2(u * 1.7, far * 2.3, seed + 3)
    const furrow = stripes === 0 ? 0 : wave((u + far * turn) * rows) * stripes
    const bloom = noise(u * 22, far * 30, seed + 9) > flowers
    const base = bloom ? flower : patch > patches ? other : soil
    shade(light, base, 0.85 + (grain - 0.5) * contrast * 2 + furrow * 0.5, z + 0.1, out)
    return 1
  })
}

export function paintWater(canvas: Canvas, random: Random, light: Light, land: Land): void {
  const seed = random.bits()
  const deep = jitter(random, random.pick(seas), 0.08)
  const mirror = random.uniform(0, 0.15)
  const ripple = random.uniform(0.3, 0.6)
  const long = random.uniform(1.2, 5)
  const fine = random.uniform(4, 14)
  const foam = random.chance(0.3) ? random.uniform(0.74, 0.88) : 2
  const glitterX = 0.5 + light.side * 0.3
  const glitter = random.chance(0.4) ? random.uniform(0.3, 0.9) : 0
  canvas.paint([0, land.horizon, 1, 1], Class.water, (x, y, out) => {
    if (!land.isWater(x, y)) return 0
    const z = land.depth(y)
    const far = 1 / (z + 0.1)
    const n = noise2((x - 0.5) * far * long, far * fine, seed)
    const crest = (n - 0.5) * ripple * 2
    const blend = Math.min(1, Math.max(0, mirror * (1.1 - z * 0.7) + crest * 0.5))
    shade(light, deep, 0.7 + crest, z + 0.1, out)
    const off = (x - glitterX) * 4
    const spark = glitter > 0 && n > 0.62 ? glitter / (1 + off * off * 4) : 0
    const white = n > foam ? 0.6 : 0
    for (let c = 0; c < 3; c++) {
      const low = light.skyLow[c] ?? 0
      const sky = low + ((light.skyTop[c] ?? 0) - low) * z
      const sea = (out[c] ?? 0) * (1 - blend) + sky * blend * (0.85 + crest * 0.6)
      out[c] = sea + (low + 0.15 - sea) * Math.max(spark, white)
    }
    return 1
  })
}

/** Darkens ground and water along a cast shadow; colours only. */
export function paintShadow(canvas: Canvas, light: Light, x0: number, y0: number, wide: number, long: number): void {
  const dx = -light.side * long
  const thick = wide * 0.28
  const left = Math.min(x0, x0 + dx) - wide
  canvas.paint([left, y0 - thick, x0 + Math.max(0, dx) + wide, y0 + thick + 0.02], keepLabel, (x, y, out) => {
    const t = Math.min(1, Math.max(0, (x - x0) / dx))
    const u = (x - x0 - dx * t) / wide
    const v = (y - y0 - 0.3 * thick) / thick
    const edge = u * u + v * v
    out.fill(0)
    return edge < 1 ? light.shadow * Math.min(1, (1 - edge) * 3) : 0
  })
}

/** Rocks, bales and posts on land and buoys on water: things without a class of their own. */
export function paintClutter(canvas: Canvas, random: Random, light: Light, x0: number, y0: number, size: number): void {
  const wet = canvas.labelAt(x0, y0) === Class.water
  const kind = wet ? 3 : random.integer(0, 2)
  const seed = random.bits()
  const colour =
    kind === 0
      ? jitter(random, random.pick(soils), 0.1)
      : kind === 1
        ? jitter(random, [0.78, 0.64, 0.32], 0.08)
        : drawColour(random, kind === 2 ? 0.3 : 0.95)
  const w = kind === 2 ? size * 1.8 : size * random.uniform(0.35, 0.6)
  const h = kind === 2 ? size * 0.5 : size * random.uniform(0.35, 0.6)
  paintShadow(canvas, light, x0, y0, w * 0.8, w * 0.5)
  canvas.paint([x0 - w, y0 - h, x0 + w, y0], wet ? Class.water : Class.ground, (x, y, out) => {
    const u = (x - x0) / w
    const v = (y0 - y) / h
    const grain = noise2(x * 60, y * 60, seed)
    if (kind === 2) {
      const post = Math.abs(wave(u * 2.5)) < 0.28
      const rail = v > 0.55 && v < 0.75
      if (!post && !rail) return 0
    } else if (kind === 3) {
      if (u * u + (v > 0.4 ? v - 0.4 : 0) * (v > 0.4 ? v - 0.4 : 0) * 3 > (v > 0.4 ? 0.9 - v : 0.5)) return 0
    } else if (u * u + v * v + (grain - 0.5) * (kind === 0 ? 0.7 : 0.1) > 0.9) return 0
    shade(light, colour, 0.5 + 0.5 * u * light.side + 0.2 * v + (grain - 0.5) * 0.6, 0.7, out)
    return 1
  })
}

export function jitter(random: Random, colour: Rgb, amount: number): Rgb {
  const all = random.uniform(-amount, amount)
  const one = (c: number): number => Math.min(1, Math.max(0.02, c + all + random.uniform(-amount, amount) * 0.6))
  return [one(colour[0]), one(colour[1]), one(colour[2])]
}
