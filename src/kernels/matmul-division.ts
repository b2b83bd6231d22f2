import type { DivideAccess } from '../engine/ir.js'
import { spec } from '../engine/shape.js'
import { arrangement, joinedDivision, usesIn } from './arrangement.js'
import type { MatmulAttrs } from './matmul-kernels.js'

/** A product of matrices a few rows of its first factor at a time, or as a sum of products where that is transposed. */
export const matmulDivision: DivideAccess<MatmulAttrs> = {
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
      }
    }
    const operands = usesIn(product.shape, inputs.slice(2))
    return operands && joinedDivision(call, ['divided', 'whole', ...operands])
  },
}
