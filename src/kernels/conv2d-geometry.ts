import { ceilDiv } from '../engine/kernel.js'
import type { Spec } from '../engine/shape.js'
import { storedType } from './views.js'

/** A convolution's sizes: x [n, xHeight, xWidth, xChannels] → y [n, yHeight, yWidth, yChannels]. */
export interface ConvGeometry {
  readonly n: number
  readonly xHeight: number
  readonly xWidth: number
  readonly xChannels: number
  readonly yHeight: number
  readonly yWidth: number
  readonly yChannels: number
  readonly kh: number
  readonly kw: number
  readonly stride: number
  readonly padding: number
  readonly dilation: number
  readonly groups: number
}

/** What a product reads and writes: their element types. */
export interface ConvTensors {
  readonly factors: readonly [Spec, Spec]
  readonly result: Spec
}

export const factorTypes = ({ factors }: ConvTensors): [string, string] => [
  storedType(factors[0]),
  storedType(factors[1]),
]

export type Extents = readonly [height: number, width: number, channels: number]

export const xExtents = (g: ConvGeometry): Extents => [g.xHeight, g.xWidth, g.xChannels]
export const yExtents = (g: ConvGeometry): Extents => [g.yHeight, g.yWidth, g.yChannels]

/** A convolution, which reads x and writes y, or its input gradient, which reads dy and writes dx. */
export type ConvKind = 'forward' | 'inputGrad'

/** What the kernels of a convolution, or of its input gradient, read and write. */
export interface ConvPass {
  readonly inputGrad: boolean
  readonly label: string
  readonly read: Extents
  readonly written: Extents
  /** Phases along each axis: the written pixels of one phase of the stride are reached by the same taps. */
  readonly step: number
  /** Written pixels of a phase, at most. */
  readonly pixels: number
}

/** @param kind of the two that a geometry describes */
export function passOf(kind: ConvKind, g: ConvGeometry): ConvPass {
  const inputGrad = kind === 'inputGrad'
  const [read, written] = inputGrad ? [yExtents(g), xExtents(g)] : [xExtents(g), yExtents(g)]
  const [height, width] = written
  const step = inputGrad ? g.stride : 1
  const pixels = g.n * ceilDiv(height, step) * ceilDiv(width, step)
  return { inputGrad, label: inputGrad ? 'conv2dInputGrad' : 'conv2d', read, written, step, pixels }
}

/** The uniform struct `Shape` that all convolution shaders share, and what else a shader has in its own. */
export const shapeUniforms = (
  g: ConvGeometry,
  read: Extents,
  written: Extents,
  others: readonly number[],
): number[] => [
  ...[g.n, ...read, ...written, g.kh, g.kw, g.stride, g.stride],
  ...[g.padding, g.padding, g.dilation, g.dilation, ...others],
]
