import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { mul, scale, sum } from '#dist/kernels/pointwise.js'
import { onDevice } from '../support/on-device.js'
import { ramp } from '../support/random-program.js'

const { deviceTest } = await onDevice()

deviceTest('gradients that nobody asked for are not computed', async (device) => {
  const inputs = { x: spec([1, 5, 5, 3]), w: spec([3, 3, 3, 4]) }
  const program = await compile(device, inputs, ({ x, w }) => {
    const [gradient] = grad(sum(conv2d(x, w)), [w])
    if (!gradient) throw new Error('grad gave nothing')
    return { gradient }
  })
  const names = program.nodes.map(({ name }) => name)
  assert.ok(names.includes('conv2dWeightGrad'))
  assert.not(names.includes('conv2dInputGrad'))
  assert.not(names.includes('conv2d'))
})

deviceTest(
  'no gradient passes a detached value; a target that the loss does not depend on gets zeros',
  async (device) => {
    const inputs = { x: spec([3]), z: spec([3]) }
    const program = await compile(device, inputs, ({ x, z }) => {
      const [dx, dz] = grad(sum(mul(x, scale(x, 3).detach())), [x, z])
      if (!dx || !dz) throw new Error('grad gave nothing')
      return { dx, dz }
    })
    program.run({ x: ramp(3), z: ramp(3) })
    assert.equal(await program.read('dx'), Float32Array.of(3, 6, 9))
    assert.equal(await program.read('dz'), new Float32Array(3))
  },
)

test.run()
