import type { Expr } from '../engine/expr.js'
import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { elements, type Shape, spec } from '../engine/shape.js'
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

/** Rows and columns of a matrix after an optional transposition. */
const extents = ([rows = 0, columns = 0]: Shape, transposed: boolean): [number, number] =>
  transposed ? [columns, rows] : [rows, columns]

/** A product of matrices is a 1×1 convolution of a map of one row. */
const asConvolution = (pixels: number, xChannels: number, yChannels: number): ConvGeometry => ({
  n: 1,
  xHeight: 1,
  xWidth: pixels,
  xChannels,
  yHeight: 1,
  yWidth: pixels,
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
    if (a.shape.length !== 2 || b.shape.length !== 2) throw new Error('expects two matrices')
    if (transposeA && transposeB) throw new Error('transposes one factor at most')
    const [m, k] = extents(a.shape, transposeA)
    const [k2, n] = extents(b.shape, transposeB)
    if (k !== k2) throw new Error(`${k} columns meet ${k2} rows`)
    return [spec([m, n])]
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
    const [m = 0, n = 0] = y.shape
    const [, k] = extents(a.shape, transposeA)
    const tensors = { factors: [a, b], result: y } as const
    if (transposeA) return weightGradCandidates(asConvolution(k, m, n), tensors, adapter)
    if (transposeB) return convCandidates('inputGrad', asConvolution(m, n, k), tensors, adapter, epilogue)
    return convCandidates('forward', asConvolution(m, k, n), tensors, adapter, epilogue)
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
 * The product of two matrices.
 *
 * @param a [M, K], or [K, M] with `transposeA`
 * @param b [K, N], or [N, K] with `transposeB`
 * @returns [M, N]
 */
export const matmul = (
  a: Tensor,
  b: Tensor,
  { transposeA = false, transposeB = false }: { transposeA?: boolean; transposeB?: boolean } = {},
): Tensor => applyOne(matmulOp, [a, b], { transposeA, transposeB })
