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
