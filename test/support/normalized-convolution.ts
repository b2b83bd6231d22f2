import type { Shape } from '#dist/engine/shape.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { type Conv2dOptions, conv2d } from '#dist/kernels/conv2d.js'
import { add, mul, relu } from '#dist/kernels/pointwise.js'
import { body, type Case, normal, uniform } from '../../cases/case.js'
import * as reference from '../../cases/reference/index.js'

export interface Layer {
  readonly x: Shape
  readonly w: Shape
  readonly options?: Conv2dOptions
  /** The statistics are computed by themselves: the best kernel cannot sum. */
  readonly apart?: boolean
}

export const layers: Readonly<Record<string, Layer>> = {
  '1x1, tiles and a part of one': { x: [3, 13, 11, 16], w: [1, 1, 16, 72] },
  '3x3, odd': { x: [2, 13, 11, 9], w: [3, 3, 9, 24], options: { padding: 1 } },
  'stride 2': { x: [2, 15, 13, 8], w: [3, 3, 8, 40], options: { stride: 2, padding: 1 } },
  'dilation 2, fewer rows than a tile': { x: [1, 5, 5, 8], w: [3, 3, 8, 8], options: { padding: 2, dilation: 2 } },
  'channels that are not whole groups': { x: [2, 7, 7, 8], w: [1, 1, 8, 20], apart: true },
  'sums in slices': { x: [2, 5, 5, 1024], w: [1, 1, 1024, 16], apart: true },
}

/** What is done before and after the normalisation. */
export const formulas = ['', 'bias', 'residual', 'relu'] as const

/** A convolution and batch norm in training. */
export function normalizedConvolution(
  name: string,
  { x, w, options = {} }: Layer,
  formula: (typeof formulas)[number],
): Case {
  const channels = w.at(-1) ?? 1
  const terms = w.slice(0, -1).reduce((a, b) => a * b)
  const [n = 1, height = 1, width = 1] = x
  const [kh = 1] = w
  const { stride = 1, padding = 0, dilation = 1 } = options
  const extent = (size: number) => Math.floor((size + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1
  const map = [n, extent(height), extent(width), channels]
  return {
    ...body({
      inputs: {
        x: normal(x),
        w: normal(w, { scale: terms ** -0.5 }),
        shift: normal([channels]),
        residual: normal(map),
        weight: normal([channels], { scale: 0.3, offset: 1 }),
        bias: normal([channels], { scale: 0.3 }),
        runningMean: normal([channels], { scale: 0.5 }),
        runningVar: uniform([channels], 0.5, 1.5),
      },
      run: ({ x, w, shift, residual, ...rest }) => {
        const product = conv2d(x, w, options)
        const { y, ...updated } = batchNormTraining(formula === 'bias' ? add(product, shift) : product, rest)
        const out = formula === 'residual' ? add(y, residual) : y
        return { out: formula === 'relu' ? relu(out) : out, ...updated }
      },
      reference: ({ x, w, shift, residual, ...rest }) => {
        const product = reference.conv2d(x, w, options)
        const normalized = formula === 'bias' ? reference.add(product, shift) : product
        const { y, ...updated } = reference.batchNormTraining(normalized, rest)
        const out = formula === 'residual' ? reference.add(y, residual) : y
        return { out: formula === 'relu' ? reference.relu(out) : out, ...updated }
      },
      differentiable: ['x', 'w', 'weight', 'bias'],
      passing: ['out'],
      full: ['runningMean', 'runningVar'],
      terms: terms + map.slice(0, -1).reduce((a, b) => a * b),
      // The factors, the products and their sums with the bias or residual; the last of two runs are up to two steps apart.
      halfRoundings: 8,
    }),
    op: 'conv2d and batchNormTraining',
    name: `${name}, ${formula}`,
  }
}

/** The convolution behind a batch norm: taps along each axis, channels of its result. */
export interface Reading {
  readonly side: number
  readonly columns: number
  readonly options: Conv2dOptions
}

/** Batch norm in training and what reads it: a convolution, whose input gradient is that of what was normalised. */
export function normalizedBefore(
  name: string,
  [n, height, width, channels]: readonly [number, number, number, number],
  formula: (typeof formulas)[number],
  { side, columns, options }: Reading = { side: 3, columns: 24, options: { padding: 1 } },
): Case {
  const map = [n, height, width, channels]
  const taps = side ** 2 * channels
  return {
    ...body({
      inputs: {
        x: normal(map, { offset: 0.5 }),
        w: normal([side, side, channels, columns], { scale: taps ** -0.5 }),
        shift: normal([channels]),
        residual: normal(map),
        weight: normal([channels], { scale: 0.3, offset: 1 }),
        bias: normal([channels], { scale: 0.3 }),
        runningMean: normal([channels], { scale: 0.5 }),
        runningVar: uniform([channels], 0.5, 1.5),
      },
      run: ({ x, w, shift, residual, ...rest }) => {
        const { y } = batchNormTraining(x, rest)
        const read = formula === 'relu' ? relu(y) : formula === 'bias' ? add(y, shift) : y
        const out = conv2d(read, w, options)
        return formula === 'residual' ? { out, also: mul(y, residual) } : { out }
      },
      reference: ({ x, w, shift, residual, ...rest }) => {
        const { y } = reference.batchNormTraining(x, rest)
        const read = formula === 'relu' ? reference.relu(y) : formula === 'bias' ? reference.add(y, shift) : y
        const out = reference.conv2d(read, w, options)
        return formula === 'residual' ? { out, also: reference.mul(y, residual) } : { out }
      },
      differentiable: ['x', 'w', 'weight', 'bias'],
      full: ['weight', 'bias', 'runningMean', 'runningVar'],
      terms: taps + n * height * width,
      halfRoundings: 8,
    }),
    op: 'batchNormTraining and conv2d',
    name: `${name}, ${formula}`,
  }
}
