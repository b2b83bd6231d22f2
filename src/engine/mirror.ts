import { elements, type Spec } from './shape.js'

/**
 * A mirror is a tensor's elements in a texture that kernels bind for reading only: on a CPU driver a lane reads four
 * elements of it in less time than one element of a buffer. Texel t holds the elements from 4 t on and lies in row
 * 1 + t / 4096 at t % 4096. Row 0 is zeros, so that texel 0 of the texture stands for whatever lies outside the tensor.
 */
export interface Mirror {
  readonly format: MirrorFormat
  /** Rows of the texture, the zeros included. */
  readonly rows: number
}

export type MirrorFormat = 'rgba32float' | 'rgba16float'

/** Texels of a row. */
export const mirrorWidth = 4096

export const mirrorFormat = ({ dtype }: Pick<Spec, 'dtype'>): MirrorFormat =>
  dtype === 'f16' ? 'rgba16float' : 'rgba32float'

const texelBytes: Readonly<Record<MirrorFormat, number>> = { rgba32float: 16, rgba16float: 8 }

export const rowBytes = (format: MirrorFormat): number => mirrorWidth * texelBytes[format]

export const mirrorBytes = ({ format, rows }: Mirror): number => rows * rowBytes(format)

/** The mirror of a tensor of f32 or f16 whose elements are a multiple of four. */
export const mirrorOf = (spec: Spec): Mirror => ({
  format: mirrorFormat(spec),
  rows: 1 + Math.ceil(elements(spec.shape) / 4 / mirrorWidth),
})

/** Where the texels of a tensor lie in its mirror: whole rows, and what is left. */
export function mirrorExtent(bytes: number, format: MirrorFormat): { readonly rows: number; readonly rest: number } {
  const texels = bytes / texelBytes[format]
  return { rows: Math.floor(texels / mirrorWidth), rest: texels % mirrorWidth }
}
