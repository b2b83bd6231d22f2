import { ceilDiv, type Dispatch, type Operand } from '../engine/kernel.js'
import type { Spec } from '../engine/shape.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { storedType } from './views.js'

/** Columns that a thread copies of its row. */
const perThread = 16

/** [planes, rows, columns] to [planes, columns, rows], of at most 65535 planes. */
export const exchangeAxes = (
  label: string,
  [x, y]: readonly [Spec, Spec],
  [planes, rows, columns]: readonly [number, number, number],
  from: Operand,
  to: Operand,
): Dispatch => ({
  label,
  source: shader(shaders.transpose, {
    constants: { PER_THREAD: perThread },
    aliases: { T: storedType(x), U: storedType(y) },
  }),
  reads: [from],
  writes: [to],
  uniforms: [rows, columns],
  grid: [ceilDiv(rows, 64), ceilDiv(columns, perThread), planes],
})
