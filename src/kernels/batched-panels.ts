import type { AdapterTraits } from '../engine/adapter.js'
import { ceilDiv, type Dispatch, type Operand } from '../engine/kernel.js'
import { mirrorFormat } from '../engine/mirror.js'
import { panelsOf, rowsOf } from './conv2d-panels.js'
import * as shaders from './mirror-shaders.generated.js'
import { shader } from './shaders.js'

/** Terms of a panel. */
export const batchedTermChoices = [112, 96, 80, 64] as const

/** Products of float32 matrices: y [batch, rows, columns] = a [batch, filled, terms] times b [batch, terms, columns]. */
export interface BatchedProduct {
  readonly a: Operand
  readonly b: Operand
  readonly y: Operand
  readonly batch: number
  readonly rows: number
  readonly filled: number
  /** A multiple of four, as columns is. */
  readonly terms: number
  readonly columns: number
  /** Whether it is added to what y holds. */
  readonly added: boolean
}

const mirrored = (operand: Operand): Operand => ({ ...operand, mirror: mirrorFormat({ dtype: 'f32' }) })

/** The dispatch of `batched_matmul_panel.wgsl`, for adapters that read mirrors. */
export function batchedProduct(
  label: string,
  { a, b, y, batch, rows, filled, terms, columns, added }: BatchedProduct,
  adapter: AdapterTraits,
): Dispatch {
  const { constants, rows: most, tiles } = panelsOf(terms, columns, batchedTermChoices, adapter)
  const each = rowsOf(rows, tiles * batch, most)
  return {
    multiplies: true,
    label,
    source: shader(shaders.batched_matmul_panel, { constants }),
    reads: [mirrored(a), mirrored(b)],
    writes: [y],
    uniforms: [rows, filled, terms, columns, each, added ? 1 : 0],
    grid: [ceilDiv(rows, each), tiles, batch],
  }
}
