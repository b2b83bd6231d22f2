// node build/test/soak/properties.soak.js [--count N] [--seed S] [--only NAME]
//
// Operators and graphs on thousands of random shapes, against the reference in double precision.
import { parseArgs } from 'node:util'
import { open } from '#dist/engine/node.js'
import { compositions } from '../support/properties/graphs.js'
import { operators } from '../support/properties/operators.js'
import { tryOut } from '../support/properties/property.js'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '500' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
  },
})
const chosen = [...operators, ...compositions].filter(({ name }) => values.only === undefined || name === values.only)
if (chosen.length === 0) throw new Error(`--only ${values.only}: there is no such property`)
const device = await open()
for (const property of chosen) {
  const started = performance.now()
  await tryOut(device, property, Number(values.count), Number(values.seed))
  const seconds = (performance.now() - started) / 1000
  console.log(`${property.name.padEnd(20)} ${values.count} cases of seed ${values.seed} hold  ${seconds.toFixed(1)} s`)
}
device.destroy()
