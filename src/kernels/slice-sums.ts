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
import { storeThrough } from './epilogue.js'
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
}

/** What stores a result of type `U` through its epilogue, whose operands are bound from `first` on. */
export const stored = (U: string, epilogue: Epilogue | undefined, first: number): Specialization =>
  together({ aliases: { U } }, epilogue ? storeThrough(epilogue.expr, epilogue.operands, epilogue.result, first) : {})

/** A product, or its slices, each of which is written apart, and then their sum in order. */
export function sliceSums(
  tiling: Pick<Tiling, 'name' | 'usesMatrixUnits' | 'shader' | 'changes' | 'slices'>,
  dispatch: Pick<Dispatch, 'label' | 'uniforms' | 'grid'>,
  target: Target,
): Candidate {
  const { name, usesMatrixUnits, slices } = tiling
  const factors = [inputBuffer(0), inputBuffer(1)]
  const { type, epilogue } = target
  const product = (changes: Specialization) => shader(tiling.shader, together(tiling.changes, changes))
  if (slices === 1) {
    const whole = {
      ...dispatch,
      source: product(stored(type, epilogue, 3)),
      reads: [...factors, ...operandsOf(epilogue)],
      writes: [outputBuffer(0)],
    }
    return { name, usesMatrixUnits, dispatches: [whole] }
  }
  const parts = { ...dispatch, source: product({}), reads: factors, writes: [temporaryBuffer(0)] }
  const sum = sumSlices(dispatch.label, temporaryBuffer(0), slices, target)
  return { name, usesMatrixUnits, temporaries: [slicesOf(target, slices)], dispatches: [parts, sum] }
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
