import * as e from '../engine/expr.js'
import type { Candidate, KernelContext } from '../engine/kernel.js'
import { pointwiseKernel } from './pointwise-kernels.js'

/** Adds two tensors of one shape. */
export function addKernel(context: KernelContext<unknown>): Candidate {
  const { shape: space = [], dtype = 'f32' } = context.outputs[0] ?? {}
  const exprs = [e.add(e.input(0), e.input(1))]
  return pointwiseKernel({ ...context, attrs: { label: 'add', exprs, space, dtypes: [dtype], inplace: [] } })
}
