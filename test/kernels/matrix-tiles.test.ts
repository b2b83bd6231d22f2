import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { convMatrixTilings, weightGradMatrixTilings } from '#dist/kernels/conv2d-matrix.js'
import type { Product } from '#dist/kernels/conv2d-tiles.js'
import { nullDevice } from '../support/null-device.js'

const device = nullDevice({ software: false, half: true, matrixUnits: true, subgroupSize: 32 })

const product = (rows: number, columns: number, terms: number, long: boolean): Product => ({
  ...{ rows, columns, terms, long, phases: 1 },
  extents: [64, 64],
  types: ['f16', 'f16'],
})

test('sums are cut into as many slices as give each processor of a large GPU as much to do', () => {
  // 56 tiles of 128 by 256, of which a processor holds one: two slices take one round of 128, three slices two.
  const [conv, ...others] = convMatrixTilings(product(16 * 21 * 21, 256, 9 * 2048, false), false, device.traits)
  assert.equal([conv?.rows, conv?.columns, conv?.slices], [128, 256, 2])
  // The tuner tries one, and three, too.
  const same = others.filter(({ name }) => name.startsWith(`${conv?.name},`))
  assert.equal(
    same.map(({ slices }) => slices),
    [1, 3],
  )
  // 18 tiles.
  const [weights] = weightGradMatrixTilings(product(9 * 256, 256, 32 * 81 * 81, true), device.traits)
  assert.equal([weights?.rows, weights?.columns, weights?.slices], [128, 256, 7])
})

test('smaller tiles are taken where few of the large ones are left for a second round', () => {
  const tilings = weightGradMatrixTilings(product(9 * 2048, 256, 16 * 21 * 21, true), device.traits)
  assert.equal([tilings[0]?.rows, tilings[0]?.columns, tilings[0]?.slices], [128, 64, 1])
  // The tuner still compares them.
  const large = tilings.find(({ rows, columns }) => rows === 128 && columns === 256)
  assert.ok((large?.estimate ?? Infinity) < 1.6 * (tilings[0]?.estimate ?? 0))
})

test.after(() => device.destroy())
test.run()
