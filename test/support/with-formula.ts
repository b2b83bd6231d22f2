import { matmul } from '#dist/kernels/matmul.js'
import { add, relu } from '#dist/kernels/pointwise.js'
import { body, type Case, normal } from '../../cases/case.js'
import * as reference from '../../cases/reference/index.js'

/**
 * A product of [rows, k] by [k, columns] that the kernel passes through a formula as it stores it: of 8, 16, … columns,
 * which are stored eight at a time, one that also reads a tensor like the result.
 */
export const withFormula = (rows: number, k: number, columns = 20): Case => {
  const wide = columns % 8 === 0
  return {
    ...body({
      inputs: { a: normal([rows, k]), b: normal([k, columns]), bias: normal([columns]), more: normal([rows, columns]) },
      run: (t) => {
        const sum = add(matmul(t.a, t.b), t.bias)
        return { out: relu(wide ? add(sum, t.more) : sum) }
      },
      reference: ({ a, b, bias, more }) => {
        const { shape, data } = reference.matmul(a, b)
        const further = (i: number) => (bias.data[i % columns] ?? 0) + (wide ? (more.data[i] ?? 0) : 0)
        return { out: { shape, data: data.map((value, i) => Math.max(0, value + further(i))) } }
      },
      terms: k,
    }),
    op: 'matmul',
    name: `with bias and relu, sums of ${k}${wide ? ', eight columns at a time' : ''}`,
  }
}
