import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { add, mul, relu, scale, sub, sum } from '#dist/kernels/pointwise.js'
import { softmax } from '#dist/kernels/softmax.js'
import { sgd } from '#dist/kernels/update.js'
import { kernelsOf } from '../../support/kernels.js'
import { onDevice } from '../../support/on-device.js'
import { ramp } from '../../support/random-program.js'

const { deviceTest } = await onDevice()

/** Elements that are too many for calls to share a dispatch. */
const many = 3 * 2 ** 16

deviceTest('a chain of pointwise operators is one dispatch', async (device) => {
  const inputs = { x: spec([2, 3, 5, 7]), b: spec([7]) }
  const program = await compile(device, inputs, ({ x, b }) => ({ y: relu(add(mul(x, b), scale(x, 0.5))) }))
  assert.is(program.kernels.length, 1)
  program.run({ x: new Float32Array(210).fill(2), b: new Float32Array(7).fill(3) })
  assert.equal(await program.read('y'), new Float32Array(210).fill(7))
})

deviceTest('a sum computes the chain before it', async (device) => {
  const inputs = { x: spec([3, 5]), y: spec([3, 5]) }
  const program = await compile(device, inputs, ({ x, y }) => ({ total: sum(relu(mul(x, y))) }))
  assert.equal(kernelsOf(program), ['sum'])
  program.run({ x: ramp(15), y: new Float32Array(15).fill(2) })
  assert.equal(await program.read('total'), Float32Array.of(240))
})

deviceTest('a value is computed in each of its readers where that moves fewer bytes', async (device) => {
  const cheap = await compile(device, { x: spec([5]) }, ({ x }) => {
    const y = scale(x, 2)
    return { a: sum(y), b: mul(y, y) }
  })
  assert.is(kernelsOf(cheap).length, 2)
  const inputs = { x: spec([many]), y: spec([many]), z: spec([many]) }
  // Three readers would load nine tensors; stored, the value costs three loads, a store and three loads.
  const dear = await compile(device, inputs, ({ x, y, z }) => {
    const product = mul(mul(x, y), z)
    return { a: scale(product, 2), b: relu(product), c: sum(product) }
  })
  assert.equal(kernelsOf(dear), ['mul', 'scale', 'relu', 'sum'])
  const padded = (values: Float32Array) => Float32Array.from({ length: many }, (_, i) => values[i] ?? 0)
  dear.run({ x: padded(ramp(5, -2)), y: padded(ramp(5)), z: padded(ramp(5, 1)) })
  assert.equal((await dear.read('a')).slice(0, 6), Float32Array.of(-4, -8, 0, 32, 100, 0))
  assert.equal(await dear.read('c'), Float32Array.of(60))
})

deviceTest('a value that is stored is computed again only where nothing more is loaded for it', async (device) => {
  const program = await compile(device, { x: spec([many / 3, 3]) }, ({ x }) => {
    const y = scale(x, 2)
    return { probability: softmax(y), difference: sub(y, x), positive: relu(y) }
  })
  const loads = program.nodes.flatMap(({ op, inputs }) => (op ? [inputs.map(({ node }) => node.name)] : []))
  assert.equal(loads, [['input x'], ['scale'], ['input x'], ['scale']])
  program.run({ x: ramp(many, -2) })
  assert.equal(await program.read('difference'), ramp(many, -2))
  assert.equal((await program.read('positive')).slice(0, 6), Float32Array.of(0, 0, 0, 2, 4, 6))
})

deviceTest('a value with a name of its own is stored', async (device) => {
  const named = await compile(device, { x: spec([5]) }, ({ x }) => {
    const y = scale(x, 2)
    return { y, z: relu(y) }
  })
  assert.is(named.kernels.length, 2)
  named.run({ x: ramp(5, -2) })
  assert.equal(await named.read('y'), Float32Array.of(-4, -2, 0, 2, 4))
  assert.equal(await named.read('z'), Float32Array.of(0, 0, 0, 2, 4))
})

deviceTest('an absorbed operand of an update in place leaves the other operands where they were', async (device) => {
  // More than one workgroup, so that one which starts late finds what the others have written.
  const count = 50000
  const shape = spec([count])
  for (const which of [['parameter'], ['momentumBuffer'], ['gradient'], ['parameter', 'momentumBuffer']] as const) {
    const program = await compile(
      device,
      { parameter: shape, momentumBuffer: shape, gradient: shape, learningRate: spec([]) },
      (t) => {
        const scaled = Object.fromEntries(which.map((name) => [name, scale(t[name], 2)]))
        return { ...sgd({ ...t, ...scaled }, { momentum: 0.5, weightDecay: 0 }) }
      },
    )
    const data = { parameter: 100, momentumBuffer: 10, gradient: 1 }
    program.run({
      parameter: new Float32Array(count).fill(data.parameter),
      momentumBuffer: new Float32Array(count).fill(data.momentumBuffer),
      gradient: new Float32Array(count).fill(data.gradient),
      learningRate: Float32Array.of(1),
    })
    const scaled = { ...data, ...Object.fromEntries(which.map((name) => [name, data[name] * 2])) }
    const momentumBuffer = 0.5 * scaled.momentumBuffer + scaled.gradient
    assert.equal([...new Set(await program.read('momentumBuffer'))], [momentumBuffer], which.join())
    assert.equal([...new Set(await program.read('parameter'))], [scaled.parameter - momentumBuffer], which.join())
  }
})

test.run()
