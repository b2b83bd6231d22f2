import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assign, read } from '#dist/engine/graph.js'
import type { Tensor, Trace } from '#dist/engine/ir.js'
import { batchSmall } from '#dist/engine/passes/batch-small.js'
import { compile } from '#dist/engine/program.js'
import { type Data, spec } from '#dist/engine/shape.js'
import { Store, type Variable } from '#dist/engine/store.js'
import { add, scale } from '#dist/kernels/pointwise.js'
import { adamw, sgd } from '#dist/kernels/update.js'
import { onDevice } from '../../support/on-device.js'
import { ramp } from '../../support/random-program.js'

const { deviceTest } = await onDevice()

deviceTest(
  'small updates are done in a few dispatches, which keep the order of those that share a value',
  async (device) => {
    const sizes = [4, 7, 12, 1, 64, 8, 20]
    const results: (readonly number[])[][] = []
    for (const optimize of [true, false]) {
      const store = new Store(device, 'parameters')
      const parameters = sizes.map((size, i) => store.declare(`p${i}`, spec([size]), ramp(size, i)))
      const momentumBuffers = sizes.map((size, i) => store.declare(`v${i}`, spec([size]), ramp(size, -i)))
      const inputs = { rate: spec([]), ...Object.fromEntries(sizes.map((size, i) => [`g${i}`, spec([size])])) }
      const body = (tensors: Record<string, Tensor>) => {
        const rate = tensors.rate as Tensor
        for (const [i, variable] of [...parameters, ...parameters.slice(0, 2)].entries()) {
          const momentumBuffer = momentumBuffers[i % sizes.length] as Variable
          const gradient = scale(tensors[`g${i % sizes.length}`] as Tensor, 2)
          const next = sgd({
            parameter: read(variable),
            momentumBuffer: read(momentumBuffer),
            gradient,
            learningRate: rate,
          })
          assign(variable, next.parameter)
          assign(momentumBuffer, next.momentumBuffer)
        }
        return {}
      }
      const program = await compile(device, inputs, body, { optimize })
      const updates = program.kernels.filter((label) => label === 'sgd').length
      // An update binds three buffers beside the rate; those of one value follow one another.
      const together = Math.floor((device.traits.maxStorageBuffers - 1) / 3)
      const most = 1 + Math.ceil((sizes.length + 2) / together)
      assert.ok(optimize ? updates <= most : updates === sizes.length + 2, `${updates} dispatches`)
      const gradients = Object.fromEntries(sizes.map((size, i) => [`g${i}`, ramp(size, i / 2)]))
      for (let k = 0; k < 2; k++) program.run({ rate: Float32Array.of(0.5), ...gradients })
      results.push([...(await store.readAll()).values()].map((data) => [...data]))
      program.destroy()
      store.destroy()
    }
    assert.equal(results[0], results[1])
  },
)

deviceTest('updates of AdamW share dispatches', async (device) => {
  const sizes = [4, 7, 12, 1, 64, 8, 20]
  const results: (readonly number[])[][] = []
  for (const optimize of [true, false]) {
    const store = new Store(device, 'parameters')
    const variables = sizes.map((size, i) =>
      [1, 2, 3].map((k) => store.declare(`${'pmv'[k - 1]}${i}`, spec([size]), ramp(size, i / k).map(Math.abs))),
    )
    const scalars = { rate: spec([]), first: spec([]), second: spec([]) }
    const inputs = { ...scalars, ...Object.fromEntries(sizes.map((size, i) => [`g${i}`, spec([size])])) }
    const body = (t: Record<string, Tensor>) => {
      const { rate, first, second } = t as Record<keyof typeof scalars, Tensor>
      for (const [i, own] of variables.entries()) {
        const [parameter, average, squareAverage] = own.map(read) as [Tensor, Tensor, Tensor]
        const rest = { gradient: t[`g${i}`] as Tensor, learningRate: rate, corrections: [first, second] as const }
        const next = adamw({ parameter, average, squareAverage, ...rest })
        for (const [k, value] of Object.values(next).entries()) assign(own[k] as Variable, value)
      }
      return {}
    }
    const program = await compile(device, inputs, body, { optimize })
    const updates = program.kernels.filter((label) => label === 'adamw').length
    // An update binds four buffers beside the rate and the corrections.
    const together = Math.floor((device.traits.maxStorageBuffers - 3) / 4)
    assert.is(updates, optimize ? Math.ceil(sizes.length / together) : sizes.length)
    const gradients = Object.fromEntries(sizes.map((size, i) => [`g${i}`, ramp(size, i / 2)]))
    const [rate, first, second] = [0.5, 0.1, 0.001].map((value) => Float32Array.of(value))
    program.run({ rate: rate as Data, first: first as Data, second: second as Data, ...gradients })
    results.push([...(await store.readAll()).values()].map((data) => [...data]))
    program.destroy()
    store.destroy()
  }
  assert.equal(results[0], results[1])
})

deviceTest('small formulas share a dispatch on GPUs, and those that read one another do not', async (device) => {
  const sizes = [4, 7, 12, 1, 64]
  const inputs = Object.fromEntries(sizes.flatMap((size, i) => ['a', 'b'].map((name) => [`${name}${i}`, spec([size])])))
  const body = (t: Record<string, Tensor>) => {
    const sums = sizes.map((_, i) => add(t[`a${i}`] as Tensor, t[`b${i}`] as Tensor))
    // Returned, so that the formula behind is no part of the last sum's.
    const behind = scale(sums.at(-1) as Tensor, 3)
    return Object.fromEntries([...sums, behind].map((value, i) => [`y${i}`, value]))
  }
  const data = Object.fromEntries(Object.entries(inputs).map(([name, { shape }], i) => [name, ramp(shape[0] ?? 1, i)]))
  const { maxStorageBuffers } = device.traits
  const results: Float32Array[][] = []
  for (const software of [true, false]) {
    const pass = (trace: Trace) => batchSmall(trace, { maxStorageBuffers, software })
    const program = await compile(device, inputs, body, { pass })
    // A sum binds three buffers.
    const together = Math.floor(maxStorageBuffers / 3)
    if (!software) assert.is(program.kernels.length, Math.ceil(sizes.length / together) + 1, program.kernels.join())
    program.run(data)
    results.push(await Promise.all([...sizes, 64].map((_, i) => program.read(`y${i}`))))
    program.destroy()
  }
  assert.equal(results[0], results[1])
})

test.run()
