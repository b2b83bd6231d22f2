import { matmul } from '#dist/kernels/matmul.js'
import { add, relu } from '#dist/kernels/pointwise.js'
import { body, type Case, normal } from '../../cases/case.js'
import * as reference from '../../cases/reference/index.js'

/** A product of [rows, k] by [k, 20] that the kernel passes through a formula as it stores it. */
export const withFormula = (rows: number, k: number): Case => ({
  ...body({
    inputs: { a: normal([rows, k]), b: normal([k, 20]), bias: normal([20]) },
    run: (t) => ({ out: relu(add(matmul(t.a, t.b), t.bias)) }),
    reference: ({ a, b, bias }) => {
      const { shape, data } = reference.matmul(a, b)
      return { out: { shape, data: data.map((value, i) => Math.max(0, value + (bias.data[i % 20] ?? 0))) } }
    },
    terms: k,
  }),
  op: 'matmul',
  name: `with bias and relu, sums of ${k}`,
})
