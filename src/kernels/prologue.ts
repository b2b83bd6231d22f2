// Convolutions whose first factor is a formula of what they read: see `PrologueAccess`.

import type { AdapterTraits } from '../engine/adapter.js'
import * as e from '../engine/expr.js'
import { type Candidate, type Dispatch, inputBuffer, type Operand, temporaryBuffer } from '../engine/kernel.js'
import type { Specialization } from '../engine/shader.js'
import { type Spec, spec } from '../engine/shape.js'
import type { Tiling } from './conv2d-tiles.js'
import { pointwiseKernel } from './pointwise-kernels.js'

/** A formula over the first input and those from `first` on, which are per channel. */
export interface LoadedFormula {
  readonly expr: e.Expr
  readonly first: number
}

/** What computes the first factor of a product. */
export interface Loader {
  /** A tiling on matrix units that computes it as it brings it to workgroup memory. */
  through(tiling: Tiling): Tiling
  /** A candidate of the product alone, behind a dispatch that stores the factor. */
  before(candidate: Candidate): Candidate
}

/**
 * @param inputs of the call
 * @param adapter that it runs on
 */
export function loaderOf({ expr, first }: LoadedFormula, inputs: readonly Spec[], adapter: AdapterTraits): Loader {
  const [source = spec([])] = inputs
  const operands = inputs.slice(first)
  const reads = operands.map((_, k) => inputBuffer(first + k))
  const attrs = { label: 'prologue', exprs: [expr], space: source.shape, dtypes: [source.dtype], inplace: [] }
  const { dispatches } = pointwiseKernel({ inputs: [source, ...operands], outputs: [source], attrs, adapter })
  const placed = (read: Operand) => (read.index === 0 ? read : { ...read, index: first + read.index - 1 })
  const storing = dispatches.map((dispatch) => ({ ...dispatch, reads: dispatch.reads.map(placed) }))
  return {
    through: (tiling) => {
      const isWidened = source.dtype === 'f16' && tiling.changes.aliases?.E === 'f32'
      return { ...tiling, reads, loading: loadedThrough(expr, operands.length, isWidened) }
    },
    before: (candidate) => storedBefore(candidate, storing, source),
  }
}

/**
 * The hooks `channel_values_a` and `through` of a shader on matrix units. Operands are bound behind its two factors, and what
 * depends on the channel alone is computed once in a step.
 *
 * @param isWidened whether the units multiply f32 where the factor would be stored as f16
 */
function loadedThrough(expr: e.Expr, operands: number, isWidened: boolean): Specialization {
  const names = Array.from({ length: operands }, (_, k) => `o${k}`)
  const { hoisted, rest } = e.hoist(expr, (index) => index > 0, operands + 1)
  const fixed = e.wgslStatements(hoisted, ['', ...names])
  const each = e.wgslStatements([rest], ['v', ...names, ...hoisted.map((_, k) => `values[${k}]`)])
  const vector = (of: readonly number[]) => {
    const converted = `vec4f(${of.map((k) => `element_of(f32(v${partOf(k)}), values[${k}])`).join(', ')})`
    return `vec4<E>(${isWidened ? `vec4h(${converted})` : converted})`
  }
  const bindings = names.map(
    (_, k) => `@group(0) @binding(${3 + k}) var<storage, read> factor_operand${k}: array<vec4f>;`,
  )
  const loads = names.map((name, k) => {
    const loaded = [0, 1].map((half) => `factor_operand${k}[c / 4 + ${half}]`)
    return `  let ${name} = mat2x4f(${loaded.join(', ')});`
  })
  const ofLane = (k: number) => `values_of(${names.map((name) => name + partOf(k)).join(', ')})`
  const hooks = {
    through: `${bindings.join('\n')}
fn element_of(v: f32, values: array<f32, A_VALUES>) -> f32 {
${each.code}
  return ${each.results[0]};
}
fn through(v: mat2x4<E>, values: array<array<f32, A_VALUES>, 8>) -> mat2x4<E> {
  return mat2x4<E>(${vector(lanes.slice(0, 4))}, ${vector(lanes.slice(4))});
}`,
    channel_values_a: `fn values_of(${names.map((name) => `${name}: f32`).join(', ')}) -> array<f32, A_VALUES> {
${fixed.code}
  return array<f32, A_VALUES>(${fixed.results.join(', ')});
}
fn channel_values_a(c: u32) -> array<array<f32, A_VALUES>, 8> {
${loads.join('\n')}
  return array<array<f32, A_VALUES>, 8>(${lanes.map(ofLane).join(', ')});
}`,
  }
  const constants = { Y_BINDING: 3 + operands, THROUGH: true }
  return hoisted.length > 0
    ? { constants: { ...constants, A_VALUES: hoisted.length }, hooks }
    : { constants, hooks: { through: hooks.through } }
}

const lanes = [0, 1, 2, 3, 4, 5, 6, 7]
const partOf = (lane: number): string => `[${Math.floor(lane / 4)}][${lane % 4}]`

/** A pointwise dispatch, and then the candidate, which reads its result. */
function storedBefore({ temporaries = [], ...candidate }: Candidate, stored: Dispatch[], result: Spec): Candidate {
  const place = temporaryBuffer(temporaries.length)
  const moved = (read: Operand) => (read.role === 'input' && read.index === 0 ? { ...read, ...place } : read)
  return {
    ...candidate,
    temporaries: [...temporaries, result],
    dispatches: [
      ...stored.map((dispatch) => ({ ...dispatch, writes: [place] })),
      ...candidate.dispatches.map((dispatch) => ({ ...dispatch, reads: dispatch.reads.map(moved) })),
    ],
  }
}
