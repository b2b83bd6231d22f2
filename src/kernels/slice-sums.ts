import type { Expr } from '../engine/expr.js'
import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  inputBuffer,
  type Operand,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import type { Specialization } from '../engine/shader.js'
import { type Spec, spec } from '../engine/shape.js'
import type { Tiling } from './conv2d-tiles.js'
import { type StoredSums, storeGroups, storeThrough } from './epilogue.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'

/** A formula over a convolution's result and further operands, stored in the result's place. */
export interface Epilogue {
  readonly expr: Expr
  /** Specs of the operator's inputs from 2 on. */
  readonly operands: readonly Spec[]
  readonly result: Spec
}

export const together = (a: Specialization, b: Specialization): Specialization => ({
  ...a,
  ...b,
  constants: { ...a.constants, ...b.constants },
  aliases: { ...a.aliases, ...b.aliases },
  hooks: { ...a.hooks, ...b.hooks },
})

/** What is written, and the formula that it passes through. */
export interface Target {
  readonly extents: readonly [n: number, height: number, width: number, channels: number]
  /** WGSL type of its elements. */
  readonly type: string
  readonly epilogue?: Epilogue | undefined
  /** Sums over rows that a product which is whole and stores eight channels at once also delivers. */
  readonly sums?: TargetSums | undefined
}

/** What is kept of sums over rows, and the buffer that gets it; the operands of the terms follow the epilogue's. */
export interface TargetSums extends StoredSums {
  readonly buffer: Operand
  readonly reads: readonly Operand[]
}

/** What stores a result of type `U` through its epilogue, whose operands are bound from `first` on. */
export const stored = (U: string, epilogue: Epilogue | undefined, first: number): Specialization =>
  together({ aliases: { U } }, epilogue ? storeThrough(epilogue.expr, epilogue.operands, epilogue.result, first) : {})

/** The same of a shader that stores eight channels at once, by 16 bytes where each pixel is a whole number of them. */
export function storedInGroups({ extents, type: U, epilogue, sums }: Target, first: number): Specialization {
  const result = epilogue?.result ?? spec([...extents], U === 'f16' ? 'f16' : 'f32')
  const types = { U, V: U === 'f16' ? 'vec4h' : 'vec4f' }
  if (extents[3] % 8 !== 0) return together({ aliases: { ...types, Y: U } }, stored(U, epilogue, first))
  const wide = storeGroups(epilogue?.expr, epilogue?.operands ?? [], result, first, sums)
  return together({ aliases: { ...types, Y: U === 'f16' ? 'vec4u' : 'vec4f' } }, wide)
}

/**
 * A product, or its slices, each of which is written apart, and then their sum in order.
 * @param call what its speed depends on besides the tiling: see `Candidate.tuned`
 */
export function sliceSums(
  tiling: Pick<
    Tiling,
    'name' | 'usesMatrixUnits' | 'storesGroups' | 'estimate' | 'shader' | 'changes' | 'reads' | 'loading' | 'slices'
  >,
  dispatch: Pick<Dispatch, 'label' | 'uniforms' | 'grid'>,
  target: Target,
  call?: string,
): Candidate {
  const { name, usesMatrixUnits, slices, estimate } = tiling
  const factors = [inputBuffer(0), inputBuffer(1), ...(tiling.reads ?? [])]
  const first = factors.length + 1
  const { epilogue } = target
  const loading = together(tiling.changes, tiling.loading ?? {})
  const product = (changes: Specialization) => shader(tiling.shader, together(loading, changes))
  const storing = (what: Target) =>
    tiling.storesGroups ? storedInGroups(what, first) : stored(what.type, what.epilogue, first)
  // What is stored passes through a formula as often with every tiling, and what is loaded seldom enough.
  const tuned = call === undefined ? undefined : { call, sources: [shader(tiling.shader, tiling.changes)] }
  if (slices === 1) {
    const whole = {
      ...dispatch,
      multiplies: true,
      source: product(storing(target)),
      reads: [...factors, ...operandsOf(epilogue), ...(target.sums?.reads ?? [])],
      writes: [outputBuffer(0), ...(target.sums ? [target.sums.buffer] : [])],
    }
    return { name, usesMatrixUnits, dispatches: [whole], tuned, estimate }
  }
  const parts = {
    ...dispatch,
    multiplies: true,
    source: product(storing({ extents: target.extents, type: 'f32' })),
    reads: factors,
    writes: [temporaryBuffer(0)],
  }
  const sum = sumSlices(dispatch.label, temporaryBuffer(0), slices, target)
  return { name, usesMatrixUnits, temporaries: [slicesOf(target, slices)], dispatches: [parts, sum], tuned, estimate }
}

const sizeOf = ({ extents }: Target): number => extents.reduce((a, b) => a * b)

/** The slices of a product. */
export const slicesOf = (target: Target, slices: number): Spec => spec([slices, sizeOf(target)])

/** Adds up the slices of a product in order. */
export function sumSlices(label: string, parts: Operand, slices: number, target: Target): Dispatch {
  const { extents, type, epilogue } = target
  return {
    label: `${label} sum`,
    source: shader(shaders.sum_slices, stored(type, epilogue, 2)),
    reads: [parts, ...operandsOf(epilogue)],
    writes: [outputBuffer(0)],
    uniforms: [...extents, slices],
    grid: flatGrid(ceilDiv(sizeOf(target), 64)),
  }
}

/** What an epilogue reads: the inputs of the operator behind its factors. */
export const operandsOf = (epilogue: Epilogue | undefined): Operand[] =>
  epilogue?.operands.map((_, k) => inputBuffer(k + 2)) ?? []
