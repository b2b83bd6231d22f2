// Variables: read, assigned and updated in place within a run, copied as snapshots.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assign, read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { add, mul, scale } from '#dist/kernels/pointwise.js'
import { sgd } from '#dist/kernels/update.js'
import { onDevice } from '../support/on-device.js'
import { ramp } from '../support/random-program.js'

const { deviceTest } = await onDevice()

deviceTest('variables are rebound within a run and committed at its end', async (device) => {
  const store = new Store(device, 'state')
  const counter = store.declare('counter', spec([2]), Float32Array.of(1, 10))
  const program = await compile(device, { step: spec([]) }, ({ step }) => {
    const before = read(counter)
    assign(counter, add(before, step))
    const between = read(counter)
    assign(counter, mul(between, between))
    return { before, between, after: read(counter) }
  })
  program.run({ step: Float32Array.of(1) })
  // The outputs are values of the run, whatever has become of the variable.
  assert.equal(await program.read('before'), Float32Array.of(1, 10))
  assert.equal(await program.read('between'), Float32Array.of(2, 11))
  assert.equal(await program.read('after'), Float32Array.of(4, 121))
  assert.equal(await store.read('counter'), Float32Array.of(4, 121))
  program.run({ step: Float32Array.of(-1) })
  assert.equal(await store.read('counter'), Float32Array.of(9, 14400))
})

deviceTest('an update in place of a variable needs no copy, unless the old value is wanted', async (device) => {
  const store = new Store(device, 'state')
  const weight = store.declare('weight', spec([3]), ramp(3))
  const momentum = store.declare('momentum', spec([3]))
  const inputs = { gradient: spec([3]), learningRate: spec([]) }
  const step = (t: { gradient: Tensor; learningRate: Tensor }) => {
    const next = sgd(
      { ...t, parameter: read(weight), momentumBuffer: read(momentum) },
      { momentum: 0.5, weightDecay: 0 },
    )
    assign(weight, next.parameter)
    assign(momentum, next.momentumBuffer)
  }
  const lean = await compile(device, inputs, (t) => {
    step(t)
    return {}
  })
  assert.equal(lean.kernels, ['sgd'])
  assert.is(lean.memory.planned, 0)
  const watched = await compile(device, inputs, (t) => {
    const old = scale(read(weight), 1)
    const before = read(weight)
    step(t)
    return { old, before }
  })
  assert.ok(watched.kernels.includes('copy'))
  const data = { gradient: new Float32Array(3).fill(1), learningRate: Float32Array.of(0.5) }
  lean.run(data)
  assert.equal(await store.read('weight'), Float32Array.of(0.5, 1.5, 2.5))
  watched.run(data)
  assert.equal(await watched.read('old'), Float32Array.of(0.5, 1.5, 2.5))
  assert.equal(await watched.read('before'), Float32Array.of(0.5, 1.5, 2.5))
  assert.equal(await store.read('weight'), Float32Array.of(-0.25, 0.75, 1.75))
  assert.equal(await store.read('momentum'), new Float32Array(3).fill(1.5))
})

deviceTest('a variable may take the old value of another one that changes in the same run', async (device) => {
  const store = new Store(device, 'state')
  const current = store.declare('current', spec([2]), ramp(2))
  const previous = store.declare('previous', spec([2]))
  const program = await compile(device, {}, () => {
    assign(previous, read(current))
    assign(current, scale(read(current), 2))
    return {}
  })
  for (let k = 0; k < 2; k++) program.run({})
  assert.equal(await store.read('current'), Float32Array.of(4, 8))
  assert.equal(await store.read('previous'), Float32Array.of(2, 4))
})

deviceTest(
  'a snapshot keeps the values of its moment, and a program runs on it in place of the store',
  async (device) => {
    const store = new Store(device, 'model')
    const weight = store.declare('weight', spec([2]), Float32Array.of(1, 2))
    const forward = await compile(device, { x: spec([2]) }, ({ x }) => ({ y: mul(x, read(weight)), w: read(weight) }))
    const update = await compile(device, {}, () => {
      assign(weight, scale(read(weight), 10))
      return {}
    })
    const snapshot = store.snapshot('previous')
    update.run({})
    const x = Float32Array.of(1, 1)
    forward.run({ x })
    assert.equal(await forward.read('y'), Float32Array.of(10, 20))
    forward.run({ x }, { stores: new Map([[store, snapshot]]) })
    assert.equal(await forward.read('y'), Float32Array.of(1, 2))
    assert.equal(await forward.read('w'), Float32Array.of(1, 2))
    update.run({}, { stores: new Map([[store, snapshot]]) })
    assert.equal(await snapshot.read('weight'), Float32Array.of(10, 20))
    assert.equal(await store.read('weight'), Float32Array.of(10, 20))
    forward.run({ x })
    assert.equal(await forward.read('y'), Float32Array.of(10, 20))
    const part = store.snapshot('nothing', ({ name }) => name !== 'weight')
    assert.equal(part.all(), [])
  },
)

test.run()
