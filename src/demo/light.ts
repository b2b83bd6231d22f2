import { mix, type Rgb } from './canvas.js'
import type { Random } from './noise.js'

/** The light of one scene: everything painted goes through {@link Light.shade}. */
export interface Light {
  /** Where the sun stands: -1 left, 1 right. */
  side: number
  sun: Rgb
  ambient: Rgb
  skyTop: Rgb
  skyLow: Rgb
  /** Opacity of cast shadows. */
  shadow: number
  /** Opacity of the haze at the horizon. */
  haze: number
}

type Mood = Omit<Light, 'side' | 'haze'>

const moods: readonly [Mood, ...Mood[]] = [
  // noon
  {
    sun: [0.72, 0.7, 0.64],
    ambient: [0.42, 0.46, 0.52],
    skyTop: [0.22, 0.45, 0.82],
    skyLow: [0.66, 0.82, 0.95],
    shadow: 0.45,
  },
  // overcast
  {
    sun: [0.22, 0.22, 0.22],
    ambient: [0.62, 0.64, 0.67],
    skyTop: [0.56, 0.6, 0.65],
    skyLow: [0.8, 0.82, 0.83],
    shadow: 0.14,
  },
  // late afternoon
  {
    sun: [0.8, 0.62, 0.42],
    ambient: [0.42, 0.4, 0.43],
    skyTop: [0.42, 0.54, 0.78],
    skyLow: [0.98, 0.82, 0.62],
    shadow: 0.42,
  },
  // dusk
  {
    sun: [0.62, 0.44, 0.4],
    ambient: [0.42, 0.38, 0.47],
    skyTop: [0.4, 0.36, 0.6],
    skyLow: [0.98, 0.68, 0.58],
    shadow: 0.3,
  },
  // clear morning
  {
    sun: [0.78, 0.74, 0.58],
    ambient: [0.4, 0.45, 0.5],
    skyTop: [0.35, 0.62, 0.86],
    skyLow: [0.92, 0.92, 0.84],
    shadow: 0.4,
  },
]

export function drawLight(random: Random): Light {
  const a = random.pick(moods)
  const b = random.pick(moods)
  const t = random.chance(0.4) ? random.uniform(0, 0.5) : 0
  return {
    side: random.uniform(0.45, 1) * (random.chance(0.5) ? 1 : -1),
    sun: mix(a.sun, b.sun, t),
    ambient: mix(a.ambient, b.ambient, t),
    skyTop: mix(a.skyTop, b.skyTop, t),
    skyLow: mix(a.skyLow, b.skyLow, t),
    shadow: a.shadow + (b.shadow - a.shadow) * t,
    haze: random.uniform(0, 0.3),
  }
}

/**
 * Writes a surface of colour `base` into `out`: `sun` is the share of sunlight it gets, `depth` 0 at the horizon, 1 near.
 */
export function shade(light: Light, base: Rgb, sun: number, depth: number, out: Float64Array): void {
  const near = 1 - Math.min(1, Math.max(0, depth))
  const haze = light.haze * near * near
  for (let c = 0; c < 3; c++) {
    const lit = (base[c] ?? 0) * ((light.ambient[c] ?? 0) + (light.sun[c] ?? 0) * sun)
    out[c] = lit + ((light.skyLow[c] ?? 0) - lit) * haze
  }
}
