// Operators and graphs on random shapes, against the reference in double precision; `npm run soak` tries thousands.

import { test } from 'uvu'
import { findAdapters, open } from '#dist/engine/node.js'
import { compositions } from '../support/properties/graphs.js'
import { operators } from '../support/properties/operators.js'
import { tryOut } from '../support/properties/property.js'
import { skipUnless } from '../support/skip.js'

const available = (await findAdapters()).length > 0
const device = available ? await open() : undefined
const deviceTest = skipUnless(available, 'there is no WebGPU adapter')

const properties = [
  ...operators.map((property) => ({ property, count: 20 })),
  ...compositions.map((property) => ({ property, count: 50 })),
]
for (const { property, count } of properties) {
  deviceTest(`${property.name}, any shape`, async () => {
    if (!device) throw new Error('unreachable: the test is skipped without a device')
    await tryOut(device, property, count, 1)
  })
}

test.after(() => device?.destroy())
test.run()
