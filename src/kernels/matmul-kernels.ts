import type { Expr } from '../engine/expr.js'
import type { Candidate, KernelContext } from '../engine/kernel.js'
import { elements, type Shape, spec } from '../engine/shape.js'
import type { ConvGeometry } from './conv2d-geometry.js'
import { convCandidates, weightGradCandidates } from './conv2d-kernels.js'

export interface MatmulAttrs {
  readonly transposeA: boolean
  readonly transposeB: boolean
  /** What is stored, over the product and the operands that follow the two matrices. */
  readonly epilogue?: Expr
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

/** Kernels of a product of matrices. */
export async function matmulCandidates({
  inputs,
  outputs,
  attrs,
  adapter,
}: KernelContext<MatmulAttrs>): Promise<readonly Candidate[]> {
  const [a = spec([]), b = spec([]), ...operands] = inputs
  const [y = spec([])] = outputs
  const { transposeA, transposeB } = attrs
  const epilogue = attrs.epilogue && { expr: attrs.epilogue, operands, result: y }
  const rows = a.shape.slice(0, -1)
  const [k, n] = [a.shape.at(-1) ?? 0, y.shape.at(-1) ?? 0]
  const tensors = { factors: [a, b], result: y } as const
  if (transposeA) return weightGradCandidates(asConvolution(rows, k, n), tensors, adapter)
  if (transposeB) return convCandidates('inputGrad', asConvolution(rows, n, k), tensors, adapter, epilogue)
  return convCandidates('forward', asConvolution(rows, k, n), tensors, adapter, epilogue)
}
