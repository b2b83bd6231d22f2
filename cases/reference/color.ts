// Changes of colours of images [N, H, W, 3] of floats, pixel by pixel.
import { get, type Values, values } from './values.js'

type Color = readonly [number, number, number]

const clamp = (x: number): number => Math.min(Math.max(x, 0), 1)

const gray = ([r, g, b]: Color): number => 0.2989 * r + 0.587 * g + 0.114 * b

const colorAt = (x: Values, pixel: number): Color => [get(x, 3 * pixel), get(x, 3 * pixel + 1), get(x, 3 * pixel + 2)]

function changed(x: Values, change: (color: Color, pixel: number) => readonly number[]): Values {
  const pixels = x.data.length / 3
  return values(x.shape, Array.from({ length: pixels }, (_, pixel) => change(colorAt(x, pixel), pixel)).flat())
}

/** factor · x + (1 − factor) · base of each pixel, cut off to 0..1. */
const blended = (x: Values, factor: Values, base: (color: Color, pixel: number) => number): Values => {
  const share = get(factor, 0)
  return changed(x, (color, pixel) => color.map((value) => clamp(share * value + (1 - share) * base(color, pixel))))
}

export const adjustBrightness = (x: Values, factor: Values): Values => blended(x, factor, () => 0)

export function adjustContrast(x: Values, factor: Values): Values {
  const [images = 1] = x.shape
  const pixels = x.data.length / 3 / images
  const means = Array.from({ length: images }, (_, image) => {
    let sum = 0
    for (let pixel = image * pixels; pixel < (image + 1) * pixels; pixel++) sum += gray(colorAt(x, pixel))
    return sum / pixels
  })
  return blended(x, factor, (_, pixel) => means[Math.floor(pixel / pixels)] ?? 0)
}

export const adjustSaturation = (x: Values, factor: Values): Values => blended(x, factor, gray)

export const toGray = (x: Values): Values => changed(x, (color) => [gray(color), gray(color), gray(color)])

const modulo = (x: number): number => x - Math.floor(x)

export const adjustHue = (x: Values, factor: Values): Values =>
  changed(x, ([r, g, b]) => {
    const [max, min] = [Math.max(r, g, b), Math.min(r, g, b)]
    const range = max - min
    const saturation = range === 0 ? 0 : range / max
    const from = (channel: number) => (range === 0 ? 0 : (max - channel) / range)
    const sixths = max === r ? from(b) - from(g) : max === g ? 2 + from(r) - from(b) : 4 + from(g) - from(r)
    const turned = 6 * modulo(modulo(sixths / 6) + get(factor, 0))
    const sector = Math.floor(turned)
    const within = turned - sector
    const low = clamp(max * (1 - saturation))
    const falling = clamp(max * (1 - saturation * within))
    const rising = clamp(max * (1 - saturation * (1 - within)))
    const sectors = [
      [max, rising, low],
      [falling, max, low],
      [low, max, rising],
      [low, falling, max],
      [rising, low, max],
      [max, low, falling],
    ]
    return sectors[sector % 6] ?? []
  })
