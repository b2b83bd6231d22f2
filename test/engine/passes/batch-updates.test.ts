import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assign, read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store, type Variable } from '#dist/engine/store.js'
import { scale } from '#dist/kernels/pointwise.js'
import { sgd } from '#dist/kernels/update.js'
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
      assert.ok(optimize ? updates < sizes.length / 2 : updates === sizes.length + 2, `${updates} dispatches`)
      const gradients = Object.fromEntries(sizes.map((size, i) => [`g${i}`, ramp(size, i / 2)]))
      for (let k = 0; k < 2; k++) program.run({ rate: Float32Array.of(0.5), ...gradients })
      results.push([...(await store.readAll()).values()].map((data) => [...data]))
      program.destroy()
      store.destroy()
    }
    assert.equal(results[0], results[1])
  },
)

test.run()
