import type { Expr } from '../engine/expr.js'
import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { elements, type Shape, sameShape, spec } from '../engine/shape.js'
import { arrangement, joinedDivision, usesIn } from './arrangement.js'
import type { ConvGeometry } from './conv2d-geometry.js'
import { convCandidates, weightGradCandidates } from './conv2d-kernels.js'
import { addCall } from './pointwise.js'

export interface MatmulAttrs {
  readonly transposeA: boolean
  readonly transposeB: boolean
  /** What is stored, over the product and the operands that follow the two matrices. */
  readonly epilogue?: Expr
}

/** Rows and columns of a matrix, whose rows may have several axes, after an optional transposition. */
function extents(shape: Shape, transposed: boolean): [number, number] {
  const columns = shape.at(-1) ?? 0
  const rows = elements(shape.slice(0, -1))
  return transposed ? [columns, rows] : [rows, columns]
}

/** A product of matrices is a 1×1 convolution of maps of one row: one map, or one for each sample of rows [N, ..., C]. */
const asConvolution = (rows: Shape, xChannels: number, yChannels: number): ConvGeometry => ({
  n: rows.length > 1 ? (rows[0] ?? 1) : 1,
  xHeight: 1,
  xWidth: elements(rows.slice(rows.length > 1 ? 1 : 0)),
  xChannels,
  yHeight: 1,
  yWidth: elements(rows.slice(rows.length > 1 ? 1 : 0)),
  yChannels,
  kh: 1,
  kw: 1,
  stride: 1,
  padding: 0,
  dilation: 1,
  groups: 1,
})

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
  kernel: ({ inputs: [a = spec([]), b = spec([]), ...operands], outputs: [y = spec([])], attrs, adapter }) => {
    const { transposeA, transposeB } = attrs
    const epilogue = attrs.epilogue && { expr: attrs.epilogue, operands, result: y }
    const rows = a.shape.slice(0, -1)
    const [k, n] = [a.shape.at(-1) ?? 0, y.shape.at(-1) ?? 0]
    const tensors = { factors: [a, b], result: y } as const
    if (transposeA) return weightGradCandidates(asConvolution(rows, k, n), tensors, adapter)
    if (transposeB) return convCandidates('inputGrad', asConvolution(rows, n, k), tensors, adapter, epilogue)
    return convCandidates('forward', asConvolution(rows, k, n), tensors, adapter, epilogue)
  },
  divide: {
    arrangement,
    division: (call) => {
      const { inputs, outputs, attrs } = call
      const [product = spec([])] = outputs
      if (attrs.transposeA) {
        const samples = inputs[0]?.shape[0] ?? 1
        return {
          samples,
          inputs: ['divided', 'divided'],
          outputs: ['summed'],
          piece: () => ({ attrs, outputs }),
          add: addCall,
        }
      }
      const operands = usesIn(product.shape, inputs.slice(2))
      return operands && joinedDivision(call, ['divided', 'whole', ...operands])
    },
  },
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
