import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Graph, scoped } from '#dist/engine/graph.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { concat } from '#dist/kernels/movement.js'
import { add, sum } from '#dist/kernels/pointwise.js'
import { messageOf } from '../support/messages.js'
import { onDevice } from '../support/on-device.js'

const { deviceTest } = await onDevice()

deviceTest('a shape error names the operator, the shapes and the line of the caller', async (device) => {
  const inputs = { x: spec([1, 5, 5, 3]), w: spec([3, 3, 4, 8]) }
  const message = await messageOf(() => compile(device, inputs, ({ x, w }) => ({ y: conv2d(x, w) })))
  assert.match(message, 'conv2d(f32[1, 5, 5, 3], f32[3, 3, 4, 8])')
  assert.match(message, /x has 3 channels, w takes 4/)
  assert.match(message, /graph\.test\.js:\d+/)
  const broadcast = await messageOf(() =>
    compile(device, { x: spec([2, 3]), y: spec([4, 3]) }, ({ x, y }) => ({ z: add(x, y) })),
  )
  assert.match(broadcast, /add: shapes \[2, 3\], \[4, 3\] do not broadcast/)
  const concatenated = await messageOf(() =>
    compile(device, { x: spec([2, 3]), y: spec([4, 5]) }, ({ x, y }) => ({ z: concat([x, y], 0) })),
  )
  assert.match(concatenated, /concat\(f32\[2, 3\], f32\[4, 5\]\): shapes differ .*graph\.test\.js:\d+/)
})

test('operators outside a trace say so', async () => {
  const graph = new Graph()
  const x = graph.input('x', spec([2]))
  assert.match(await messageOf(() => add(x, x)), /outside compile\(\)/)
})

deviceTest('an error in the middle of a trace leaves no trace open', async (device) => {
  await messageOf(() => compile(device, { x: spec([2]) }, ({ x }) => scoped('layer', () => ({ y: x.reshape(3) }))))
  const graph = new Graph()
  assert.match(await messageOf(() => sum(graph.input('x', spec([2])))), /outside compile\(\)/)
})

test.run()
