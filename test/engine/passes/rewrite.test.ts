import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { add, mul, scale, sum } from '#dist/kernels/pointwise.js'
import { onDevice } from '../../support/on-device.js'

const { deviceTest } = await onDevice()

deviceTest('equal calls run once, and what nothing needs does not run', async (device) => {
  const program = await compile(device, { x: spec([5]), w: spec([3, 3]) }, ({ x, w }) => {
    sum(w)
    return { y: add(sum(x), mul(sum(x), sum(x))) }
  })
  assert.equal(program.kernels, ['sum', 'add'])
  const naive = await compile(device, { x: spec([5]) }, ({ x }) => ({ y: add(sum(x), sum(x)) }), { optimize: false })
  assert.equal(naive.kernels, ['sum', 'sum', 'add'])
  const different = await compile(device, { x: spec([4]) }, ({ x }) => ({ a: scale(x, 2), b: scale(x, 3) }))
  assert.is(different.kernels.length, 2)
})

test.run()
