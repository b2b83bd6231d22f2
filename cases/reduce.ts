import * as e from '#dist/engine/expr.js'
import { elements, type Shape } from '#dist/engine/shape.js'
import * as kernels from '#dist/kernels/pointwise.js'
import { body, type Family, family, mapSizes, normal } from './case.js'
import * as reference from './reference/index.js'

type Pair = readonly [from: Shape, to: Shape]

export const sum = family(
  'sum',
  (shape: Shape) =>
    body({
      inputs: { x: normal(shape, { offset: 0.5 }) },
      run: (t) => ({ out: kernels.sum(t.x) }),
      reference: (v) => ({ out: reference.sum(v.x) }),
      differentiable: ['x'],
      terms: elements(shape),
    }),
  {
    scalar: [],
    'one element': [1, 1, 1, 1],
    'fewer than a workgroup': [3, 7],
    'one more than a workgroup': [65],
    'in parts': [2, 67, 31, 5],
    long: [1, 257, 129, 3],
  },
  ({ crop, batch }) => ({
    'per-pixel loss': [batch, crop, crop],
    features: [batch, mapSizes(crop).s4, mapSizes(crop).s4, 256],
  }),
)

export const sumTo = family(
  'sumTo',
  ([from, to]: Pair) =>
    body({
      inputs: { x: normal(from, { offset: 0.5 }) },
      run: (t) => ({ out: kernels.sumTo(t.x, to) }),
      reference: (v) => ({ out: reference.sumTo(v.x, to) }),
      differentiable: ['x'],
      terms: elements(from),
    }),
  {
    channels: [[2, 5, 7, 17], [17]],
    'few channels': [[2, 5, 7, 3], [3]],
    'few channels, many rows': [[2, 67, 31, 5], [5]],
    'many channels, many rows': [
      [1, 33, 31, 65],
      [1, 1, 1, 65],
    ],
    'one row': [[1, 1, 1, 33], [33]],
    samples: [
      [3, 5, 7, 5],
      [3, 1, 1, 1],
    ],
    'samples, many pixels': [
      [2, 67, 31],
      [2, 1, 1],
    ],
    'samples and channels': [
      [3, 5, 7, 33],
      [3, 1, 1, 33],
    ],
    'samples and channels, many pixels': [
      [2, 41, 43, 7],
      [2, 1, 1, 7],
    ],
    rows: [
      [2, 3, 5, 7],
      [2, 3, 5, 1],
    ],
    'long rows': [
      [3, 65],
      [3, 1],
    ],
    'same shape': [
      [3, 5],
      [3, 5],
    ],
    'unit axes': [[1, 1, 3], [3]],
  },
  ({ crop, batch }): Record<string, Pair> => {
    const { s4 } = mapSizes(crop)
    return { 'bias gradient': [[batch, s4, s4, 256], [256]] }
  },
)

/** Covariance and variance of elements that are summed into one result. */
const covariance = {
  terms: e.formula((x, y) => [x, y, e.mul(x, y), e.mul(x, x)]),
  finish: (count: number) =>
    e.formula((x, y, xy, xx) => {
      const meanOf = (total: e.Expr) => e.mul(total, e.constant(1 / count))
      return [e.sub(meanOf(xy), e.mul(meanOf(x), meanOf(y))), e.sub(meanOf(xx), e.mul(meanOf(x), meanOf(x)))]
    }),
}

export const formulasOfSums = family(
  'formulasOfSums',
  ([from, to]: Pair) => {
    const count = elements(from) / elements(to)
    return body({
      inputs: { x: normal(from, { offset: 0.5 }), y: normal(from, { offset: 0.5 }) },
      run: ({ x, y }) => {
        const [xy, xx] = kernels.formulasOfSums(covariance.terms, covariance.finish(count), [x, y], to)
        if (!xy || !xx) throw new Error('two formulas were asked for')
        return { xy, xx }
      },
      reference: ({ x, y }) => {
        const meanOf = (v: reference.Values) => reference.scale(reference.sumTo(v, to), 1 / count)
        const about = (a: reference.Values, b: reference.Values) =>
          reference.sub(meanOf(reference.mul(a, b)), reference.mul(meanOf(a), meanOf(b)))
        return { xy: about(x, y), xx: about(x, x) }
      },
      terms: count,
      // The mean product, of which that of the means is taken off.
      outputScale: 1,
    })
  },
  {
    channels: [[2, 5, 7, 17], [17]],
    'channels, four at once': [[2, 9, 11, 12], [12]],
    'channels, in parts': [[2, 67, 61, 5], [5]],
    'channels in parts, four at once': [[2, 67, 61, 4], [4]],
    'to a scalar': [[2, 5, 7, 3], []],
    'to a scalar, in parts': [[2, 67, 61, 4], []],
    samples: [
      [3, 5, 7, 5],
      [3, 1, 1, 1],
    ],
    'samples and channels': [
      [3, 5, 7, 32],
      [3, 1, 1, 32],
    ],
    rows: [
      [2, 3, 5, 8],
      [2, 3, 5, 1],
    ],
  },
)

export const reduceFamilies: Family[] = [sum, sumTo, formulasOfSums]
