// Pointwise operators and sums.
import { broadcastAt, commonSpace, get, scalar, type Values, values } from './values.js'

/** A function of the elements at each place. */
export function elementwise(fn: (...elements: number[]) => number, ...tensors: Values[]): Values {
  const space = commonSpace(tensors)
  const result = values(space)
  for (let i = 0; i < result.data.length; i++) result.data[i] = fn(...tensors.map((x) => broadcastAt(x, space, i)))
  return result
}

export const add = (x: Values, y: Values): Values => elementwise((a, b) => a + b, x, y)
export const sub = (x: Values, y: Values): Values => elementwise((a, b) => a - b, x, y)
export const mul = (x: Values, y: Values): Values => elementwise((a, b) => a * b, x, y)
export const div = (x: Values, y: Values): Values => elementwise((a, b) => a / b, x, y)
export const scale = (x: Values, factor: number): Values => elementwise((a) => a * factor, x)
export const relu = (x: Values, at: Values = x): Values => elementwise((a, chosen) => (chosen > 0 ? a : 0), x, at)
/** By Simpson's rule: the integrand's odd derivatives vanish at 0 and beyond 6, so that 400 steps leave 1e-12. */
function erf(x: number): number {
  const end = Math.min(6, Math.abs(x))
  const steps = 400
  let sum = 0
  for (let k = 0; k <= steps; k++) {
    const weight = k === 0 || k === steps ? 1 : k % 2 === 1 ? 4 : 2
    sum += weight * Math.exp(-(((end * k) / steps) ** 2))
  }
  return (Math.sign(x) * 2 * sum * end) / (3 * steps * Math.sqrt(Math.PI))
}

export const gelu = (x: Values): Values => elementwise((a) => 0.5 * a * (1 + erf(a / Math.SQRT2)), x)
export const where = (condition: Values, yes: Values, no: Values): Values =>
  elementwise((c, a, b) => (c !== 0 ? a : b), condition, yes, no)
export const equals = (x: Values, value: number): Values => elementwise((a) => (a === value ? 1 : 0), x)
export const atLeast = (x: Values, value: number): Values => elementwise((a) => (a >= Math.fround(value) ? 1 : 0), x)
export const truncate = (x: Values): Values => elementwise((a) => Math.trunc(a), x)
export const broadcastTo = (x: Values, shape: readonly number[]): Values => add(x, values(shape))
export const fill = (shape: readonly number[], value: number): Values => elementwise(() => value, values(shape))

export const sum = (x: Values): Values => scalar(x.data.reduce((total, value) => total + value, 0))

/** Sums over the axes that broadcasting `shape` to the shape of `x` would stretch. */
export function sumTo(x: Values, shape: readonly number[]): Values {
  const result = values(shape)
  // Which element of the result a place belongs to: broadcast the indices of the result.
  const indices = values(
    shape,
    result.data.map((_, i) => i),
  )
  for (let i = 0; i < x.data.length; i++) {
    const target = broadcastAt(indices, x.shape, i)
    result.data[target] = get(result, target) + get(x, i)
  }
  return result
}
