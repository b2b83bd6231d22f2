import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { elements, type Shape, sameShape, spec } from '../engine/shape.js'
import type { MatmulAttrs } from './matmul-kernels.js'

/** Rows and columns of a matrix, whose rows may have several axes, after an optional transposition. */
function extents(shape: Shape, transposed: boolean): [number, number] {
  const columns = shape.at(-1) ?? 0
  const rows = elements(shape.slice(0, -1))
  return transposed ? [columns, rows] : [rows, columns]
}

const matmulOp = defineOp<MatmulAttrs>('matmul', {
  precision: 'half',
  multiplyAdds: ({ inputs: [a = spec([])], outputs: [y = spec([])], attrs: { transposeA } }) =>
    extents(a.shape, transposeA)[1] * elements(y.shape),
  shape: ([a = spec([]), b = spec([])], { transposeA, transposeB }) => {
    if (transposeA && transposeB) throw new Error('transposes one factor at most')
    const rows = a.shape.slice(0, -1)
    if (Math.min(a.shape.length, b.shape.length) < 2 || (!transposeA && b.shape.length > 2)) {
      throw new Error('expects two matrices, of which the first one may have several axes of rows')
    }
    const [m, k] = extents(a.shape, transposeA)
    const [k2, n] = extents(b.shape, transposeB)
    if (k !== k2 || (transposeA && !sameShape(rows, b.shape.slice(0, -1)))) {
      throw new Error(`${k} columns meet ${k2} rows`)
    }
    return [spec(transposeA ? [m, n] : [...rows, n])]
  },
  vjp: ({ inputs: [a, b], attrs: { transposeA, transposeB }, grads: [dy], wanted }) => {
    if (!a || !b || !dy) return []
    const da = () => (transposeA ? matmul(b, dy, { transposeB: true }) : matmul(dy, b, { transposeB: !transposeB }))
    const db = () => (transposeB ? matmul(dy, a, { transposeA: true }) : matmul(a, dy, { transposeA: !transposeA }))
    return [wanted[0] ? da() : undefined, wanted[1] ? db() : undefined]
  },
  kernel: async (context) => (await import('./matmul-kernels.js')).matmulCandidates(context),
  divide: async () => (await import('./matmul-division.js')).matmulDivision,
  // The kernels of a transposed first factor write parts of sums.
  epilogue: { set: (attrs, epilogue) => (attrs.transposeA || attrs.epilogue ? undefined : { ...attrs, epilogue }) },
})

/**
 * The product of two matrices. In place of rows M, or K of transposed factors, there may be several axes, such as samples and
 * tokens.
 *
 * @param a [M, K], or [K, M] with `transposeA`; K is then as it is in b
 * @param b [K, N], or [N, K] with `transposeB`
 * @returns [M, N]
 */
export const matmul = (
  a: Tensor,
  b: Tensor,
  { transposeA = false, transposeB = false }: { transposeA?: boolean; transposeB?: boolean } = {},
): Tensor => applyOne(matmulOp, [a, b], { transposeA, transposeB })
