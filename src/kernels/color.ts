// Changes of colours of images of floats, as torchvision makes them of float tensors: blends are cut off to 0..1, whatever
// range the images have. None passes a gradient on.

import type { Expr } from '../engine/expr.js'
import * as e from '../engine/expr.js'
import type { Tensor } from '../engine/ir.js'
import { concat, slice } from './movement.js'
import { pointwise, pointwiseAll, scale, sumTo } from './pointwise.js'

const [zero, one] = [e.constant(0), e.constant(1)]

/** Red, green and blue of images [N, H, W, 3]: each [N, H, W, 1]. */
const planesOf = (x: Tensor): Tensor[] => [0, 1, 2].map((channel) => slice(x.detach(), 3, channel, 1))

/** Formulas of the three channels, and of `more` inputs behind them, that give the new channels. */
function changed(label: string, x: Tensor, more: readonly Tensor[], formulas: readonly Expr[]): Tensor {
  if (x.shape.length !== 4 || x.shape[3] !== 3) throw new Error(`${label}: expects images [N, H, W, 3]`)
  return concat(pointwiseAll(label, formulas, [...planesOf(x), ...more]), 3)
}

const [red, green, blue] = [e.input(0), e.input(1), e.input(2)]
const channels = [red, green, blue]

const gray = e.add(
  e.add(e.mul(e.constant(0.2989), red), e.mul(e.constant(0.587), green)),
  e.mul(e.constant(0.114), blue),
)

const clamped = (x: Expr): Expr => e.max(e.where(e.greater(x, one), one, x), zero)

/** factor · x + (1 − factor) · base, cut off to 0..1. */
const blended = (x: Expr, base: Expr, factor: Expr): Expr =>
  clamped(e.add(e.mul(factor, x), e.mul(e.sub(one, factor), base)))

/**
 * @param x [N, H, W, 3]
 * @param factor a scalar: 0 gives black, 1 the same images, cut off to 0..1
 */
export const adjustBrightness = (x: Tensor, factor: Tensor): Tensor =>
  pointwise('adjustBrightness', [clamped(e.mul(e.input(1), e.input(0)))], [x.detach(), factor])

/**
 * @param x [N, H, W, 3]
 * @param factor a scalar: 0 gives each image's mean gray everywhere, 1 the same images, cut off to 0..1
 */
export function adjustContrast(x: Tensor, factor: Tensor): Tensor {
  const [n = 0, height = 0, width = 0] = x.shape
  const levels = pointwise('gray', [gray], planesOf(x))
  const mean = scale(sumTo(levels, [n, 1, 1, 1]), 1 / (height * width))
  const formula = e.formula((value, level, factor) => blended(value, level, factor))
  return pointwise('adjustContrast', [formula], [x.detach(), mean, factor])
}

/**
 * @param x [N, H, W, 3]
 * @param factor a scalar: 0 gives the gray of each pixel, 1 the same images, cut off to 0..1
 */
export const adjustSaturation = (x: Tensor, factor: Tensor): Tensor =>
  changed(
    'adjustSaturation',
    x,
    [factor],
    channels.map((channel) => blended(channel, gray, e.input(3))),
  )

/** Every pixel its gray: 0.2989 R + 0.587 G + 0.114 B. */
export const toGray = (x: Tensor): Tensor => changed('toGray', x, [], [gray, gray, gray])

/**
 * The hue turned, by way of hue, saturation and value. The largest channel stays as it is, the others are cut off to 0..1:
 * where it lies outside of that range, the result jumps with the hue.
 *
 * @param x [N, H, W, 3]
 * @param factor a scalar of -0.5 to 0.5 of the circle
 */
export const adjustHue = (x: Tensor, factor: Tensor): Tensor => changed('adjustHue', x, [factor], hueFormulas)

const hueFormulas: readonly Expr[] = (() => {
  const negative = (x: Expr) => e.mul(e.constant(-1), x)
  const value = e.max(e.max(red, green), blue)
  const least = negative(e.max(e.max(negative(red), negative(green)), negative(blue)))
  const range = e.sub(value, least)
  const isGray = e.equal(value, least)
  const saturation = e.div(range, e.where(isGray, one, value))
  const [fromRed, fromGreen, fromBlue] = channels.map((channel) =>
    e.div(e.sub(value, channel), e.where(isGray, one, range)),
  ) as [Expr, Expr, Expr]
  const behindGreen = e.sub(e.add(e.constant(2), fromRed), fromBlue)
  const behindBlue = e.sub(e.add(e.constant(4), fromGreen), fromRed)
  const sixths = e.where(
    e.equal(value, red),
    e.sub(fromBlue, fromGreen),
    e.where(e.equal(value, green), behindGreen, behindBlue),
  )
  const hue = wrapped(e.add(e.div(sixths, e.constant(6)), one))
  const turned = e.mul(wrapped(e.add(hue, e.input(3))), e.constant(6))
  const isBehind = [1, 2, 3, 4, 5, 6].map((sector) => e.greaterEqual(turned, e.constant(sector)))
  const within = e.sub(turned, isBehind.reduce(e.add))
  const faded = (share: Expr) => clamped(e.mul(value, e.sub(one, share)))
  const low = faded(saturation)
  const falling = faded(e.mul(saturation, within))
  const rising = faded(e.mul(saturation, e.sub(one, within)))
  // The last one is that of a full turn, which rounding may give.
  const inSector = (...sectors: readonly [Expr, Expr, Expr, Expr, Expr, Expr]) =>
    [...sectors, sectors[0]].reduce((found, sector, i) => e.where(isBehind[i - 1] ?? zero, sector, found))
  return [
    inSector(value, falling, low, low, rising, value),
    inSector(rising, value, value, falling, low, low),
    inSector(low, low, rising, value, value, falling),
  ]
})()

/** A number of -1 to 2 modulo 1. */
function wrapped(x: Expr): Expr {
  return e.where(e.greaterEqual(x, one), e.sub(x, one), e.where(e.greater(zero, x), e.add(x, one), x))
}
