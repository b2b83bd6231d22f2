// node build/test/adapters/operators.js [--first] [--precision single|half]
//
// Rows of the table of operators with the kernels that the adapter takes by rule, in float32, in half precision, or both:
// values against the reference, gradients against its finite differences. With --first, one row of each operator.
import { parseArgs } from 'node:util'
import { test } from 'uvu'
import { cases } from '../../cases/index.js'
import { compareGradients, compareOutputs, fitsHalf, prepare, runCase } from '../support/check.js'
import { onDevice } from '../support/on-device.js'
import { skipUnless } from '../support/skip.js'

const { device } = await onDevice()
const { values } = parseArgs({ options: { first: { type: 'boolean' }, precision: { type: 'string' } } })
const seen = new Set<string>()
const rows = cases.filter(({ op }) => !values.first || (!seen.has(op) && seen.add(op)))
const precisions = (['single', 'half'] as const).filter((each) => (values.precision ?? each) === each)

for (const precision of precisions) {
  const isHalf = precision === 'half'
  const register = isHalf ? skipUnless(device?.traits.half === true, 'the adapter has no shader-f16') : test
  for (const row of rows.filter((each) => !isHalf || fitsHalf(each))) {
    register(`${row.op}: ${row.name}, ${precision} precision`, async () => {
      if (!device) throw new Error('there is no WebGPU adapter')
      const prepared = prepare(row, precision)
      const results = await runCase(device, prepared)
      compareOutputs(prepared, results, 'first kernels')
      compareGradients(prepared, results)
    })
  }
}

test.run()
