// The photometric distortion of MMSegmentation (`PhotoMetricDistortion`), in the bytes and the 8-bit hue, saturation and
// value of OpenCV.

import type { Random } from '../random.js'
import { lookUp } from './lookup-tables.js'

/** What is drawn for one image; null where the operation is left out. */
export interface DistortionDraws {
  /** Added to every level. */
  readonly brightness: number | null
  readonly contrast: number | null
  /** Whether the contrast changes before saturation and hue, or after them. */
  readonly contrastFirst: boolean
  readonly saturation: number | null
  /** Added to the hue, whose circle has 180 steps. */
  readonly hue: number | null
}

/**
 * Order of draws: brightness (0.5; −32 to 32), whether the contrast comes first (0.5), then in the order of the operations
 * contrast (0.5; factor 0.5 to 1.5), saturation (likewise) and hue (0.5; −18 to 17 steps).
 */
export function drawDistortion(random: Random): DistortionDraws {
  const isDrawn = () => random.integer(0, 2) === 1
  const brightness = isDrawn() ? random.uniform(-32, 32) : null
  const contrastFirst = isDrawn()
  const factor = () => (isDrawn() ? random.uniform(0.5, 1.5) : null)
  const before = contrastFirst ? factor() : null
  const saturation = factor()
  const hue = isDrawn() ? random.integer(-18, 18) : null
  return { brightness, contrast: contrastFirst ? before : factor(), contrastFirst, saturation, hue }
}

const { fround } = Math

/** Levels times a factor, or moved, in float32; cut off at 0 and 255 and truncated. */
const levels = (factor: number, offset: number): Uint8Array =>
  Uint8Array.from({ length: 256 }, (_, level) =>
    Math.trunc(Math.min(255, Math.max(0, fround(fround(level * fround(factor)) + fround(offset))))),
  )

/** Changes RGB pixels, in place. */
type Change = (pixels: Uint8Array) => void

function changeLevels(factor: number, offset: number): Change {
  const table = levels(factor, offset)
  return (pixels) => lookUp(pixels, table)
}

/** The change of RGB pixels that was drawn, with its tables, which are made once however often it is called. */
export function distortionOf({ brightness, contrast, contrastFirst, saturation, hue }: DistortionDraws): Change {
  const ofContrast = contrast === null ? [] : [changeLevels(contrast, 0)]
  const changes = [
    ...(brightness === null ? [] : [changeLevels(1, brightness)]),
    ...(contrastFirst ? ofContrast : []),
    // The two are separate in the reference, with a rounding to bytes between them.
    ...(saturation === null ? [] : [changeHueAndSaturation(0, saturation)]),
    ...(hue === null ? [] : [changeHueAndSaturation(hue, 1)]),
    ...(contrastFirst ? [] : ofContrast),
  ]
  return (pixels) => {
    for (const change of changes) change(pixels)
  }
}

/** Fixed-point reciprocals with 12 bits behind the point: of the value, and of a sixth of the hue's circle. */
const fixedPoint = (numerator: number) =>
  Int32Array.from({ length: 256 }, (_, i) => (i === 0 ? 0 : Math.round((numerator * 4096) / i)))
const bySaturation = fixedPoint(255)
const byHue = fixedPoint(30)

/** Bytes of the three levels of red, green and blue in each sixth of the circle: places in the four levels below. */
const sectors = [
  [0, 3, 1],
  [2, 0, 1],
  [1, 0, 3],
  [1, 2, 0],
  [3, 1, 0],
  [0, 1, 2],
] as const

const one255th = fround(1 / 255)
const sixth = fround(6 / 180)

/** @param turn steps of the hue's circle, 180 of them; `factor` is that of the saturation */
function changeHueAndSaturation(turn: number, factor: number): Change {
  const saturations = levels(factor, 0)
  return (pixels) => {
    const tints = new Float32Array(4)
    for (let at = 0; at < pixels.length; at += 3) {
      const [r, g, b] = [pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number]
      const value = Math.max(r, g, b)
      const range = value - Math.min(r, g, b)
      const distance = value === r ? g - b : value === g ? b - r + 2 * range : r - g + 4 * range
      const hue = (distance * (byHue[range] as number) + 2048) >> 12
      const saturation = (range * (bySaturation[value] as number) + 2048) >> 12

      const turned = fround(((hue + turn + 360) % 180) * sixth)
      const sector = Math.floor(turned)
      const part = fround(turned - sector)
      const s = fround((saturations[saturation] as number) * one255th)
      const v = fround(value * one255th)
      tints[0] = v
      tints[1] = v * fround(1 - s)
      tints[2] = v * fround(1 - fround(s * part))
      tints[3] = v * fround(1 - fround(s * fround(1 - part)))
      const places = sectors[sector] ?? sectors[0]
      for (let c = 0; c < 3; c++) pixels[at + c] = roundHalfEven(fround((tints[places[c] as number] as number) * 255))
    }
  }
}

function roundHalfEven(x: number): number {
  const down = Math.floor(x)
  return x - down === 0.5 ? down + (down & 1) : Math.round(x)
}
