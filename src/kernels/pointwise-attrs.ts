import type { Expr } from '../engine/expr.js'
import type { BatchedCall, Part, Tensor, VjpContext } from '../engine/ir.js'
import type { DType, Shape } from '../engine/shape.js'
import type { View } from './views.js'

/** A call of formulas over the elements of tensors that broadcast. */
export interface PointwiseAttrs {
  readonly label: string
  readonly exprs: readonly Expr[]
  /** Shape of the outputs; inputs broadcast to it. */
  readonly space: Shape
  readonly dtypes: readonly DType[]
  /** Pairs of output and input whose buffers are one. */
  readonly inplace: readonly (readonly [number, number])[]
  readonly vjp?: (context: VjpContext<PointwiseAttrs>) => readonly (Tensor | undefined)[]
  /** Where the output lies in a larger tensor, which may follow the operands of the formula as one more input. */
  readonly part?: Part & { readonly operands: number }
}

/** Pairs of output and input whose buffers are one. */
export const inplaceOf = ({ inplace, part }: PointwiseAttrs): readonly (readonly [number, number])[] =>
  part ? [[0, part.operands]] : inplace

/** Operands that are walked as one row with the elements of the space. */
export const isFlat = (view: View): boolean => view === 'full' || view === 'scalar'

/** Pairs of output and input of a batch whose buffers are one. */
export function inplaceOfBatch(parts: readonly BatchedCall<PointwiseAttrs>[]): [number, number][] {
  let first = 0
  return parts.flatMap(({ attrs, inputs, outputs }) => {
    first += outputs
    return attrs.inplace.map(([out, index]): [number, number] => [first - outputs + out, inputs[index] ?? 0])
  })
}
