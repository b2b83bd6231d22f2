import { type Canvas, keepLabel, mix, type Rgb } from './canvas.js'
import { Class } from './classes.js'
import { type Light, shade } from './light.js'
import { noise, type Random, wave } from './noise.js'

const hull: Rgb = [0.3, 0.12, 0.36]
const band: Rgb = [0.94, 0.84, 0.94]
const sail: Rgb = [0.86, 0.62, 0.82]
const cabin: Rgb = [0.92, 0.92, 0.9]
const antifouling = mix(hull, [0.2, 0.06, 0.05], 0.6)

/** Paints a boat whose waterline's middle is at (x0, y0); `long` is the hull's length; `depth` 0 far, 1 near. */
export function paintBoat(
  canvas: Canvas,
  random: Random,
  light: Light,
  [x0, y0]: readonly [number, number],
  long: number,
  depth: number,
): void {
  const sailing = random.chance(0.67)
  const way = random.chance(0.5) ? 1 : -1
  const half = long / 2
  const freeboard = long * random.uniform(0.13, 0.22)
  const sheer = random.uniform(0.1, 0.5)
  const rake = random.uniform(0.12, 0.35)
  const mast = sailing ? long * random.uniform(0.8, 1.25) : 0
  const striped = random.chance(0.3)
  const cabinFrom = random.uniform(-0.65, -0.2)
  const cabinTo = cabinFrom + random.uniform(0.45, 0.8)
  const cabinHigh = freeboard * random.uniform(0.8, 1.6)
  const seed = random.bits()
  const swell = random.uniform(0.004, 0.012) * Math.min(1, long * 4)

  const body = (p: number, h: number, out: Float64Array): boolean => {
    const deck = freeboard * (1 + sheer * p * p)
    const bow = 1 - rake * (1 - h / freeboard)
    const stern = 1 - rake * 0.35 * (1 - h / freeboard)
    const grain = (noise(p * 12, h * 80, seed) - 0.5) * 0.3
    if (h >= 0 && h < deck && p < bow && p > -stern) {
      const paint = h > deck * 0.74 ? band : h < deck * 0.18 ? antifouling : hull
      shade(light, paint, 0.45 + 0.3 * light.side * way + 0.25 * p * light.side * way + grain, depth, out)
      return true
    }
    const r = h - freeboard
    if (!sailing) {
      if (r >= 0 && r < cabinHigh && p > cabinFrom && p < cabinTo) {
        const pane = (p - cabinFrom) * 7
        const window = r > cabinHigh * 0.4 && r < cabinHigh * 0.8 && pane - Math.floor(pane) > 0.4
        shade(light, window ? [0.12, 0.16, 0.22] : cabin, 0.6 + grain, depth, out)
        return true
      }
      const stack = (cabinFrom + cabinTo) / 2
      if (r >= cabinHigh && r < cabinHigh * 1.8 && Math.abs(p - stack) < 0.09) {
        shade(light, band, 0.5 + 4 * (p - stack) * light.side * way, depth, out)
        return true
      }
    }
    if (mast > 0 && r >= 0 && r < mast) {
      if (Math.abs(p - 0.05) < 0.022) {
        shade(light, [0.3, 0.22, 0.16], 0.5, depth, out)
        return true
      }
      const t = r / mast
      const main = p < 0.02 && p > -0.82 * (1 - t) + 0.02 && t > 0.1
      const jib = p > 0.09 && p < 0.09 + 0.8 * (0.9 - t) && t > 0.06 && t < 0.88
      if (main || jib) {
        const cloth = striped && wave(t * 3.5) > 0 ? band : sail
        shade(light, cloth, 0.55 + 0.35 * light.side * way * (main ? 1 : -1) * (p + 0.5) + grain * 0.5, depth, out)
        return true
      }
    }
    return false
  }

  const top = mast + freeboard + cabinHigh * 1.9
  const box = [x0 - half, y0 - top, x0 + half, y0] as const
  canvas.paint([box[0], y0, box[2], y0 + top * 0.7], keepLabel, (x, y, out) => {
    if (canvas.labelAt(x, y) !== Class.water) return 0
    const down = y - y0
    const shift = wave(down * 28 + noise(x * 20, down * 30, seed)) * swell * (1 + 14 * down)
    return body(((x + shift - x0) / half) * way, down * 1.3, out) ? 0.3 * (1 - down / top) : 0
  })
  canvas.paint(box, Class.boat, (x, y, out) => (body(((x - x0) / half) * way, y0 - y, out) ? 1 : 0))
}
