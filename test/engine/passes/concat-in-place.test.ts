import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { elements, spec } from '#dist/engine/shape.js'
import { concat } from '#dist/kernels/movement.js'
import { add, castCall, relu, scale } from '#dist/kernels/pointwise.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { softmax } from '#dist/kernels/softmax.js'
import { onDevice } from '../../support/on-device.js'
import { ramp } from '../../support/random-program.js'

const { deviceTest } = await onDevice()

deviceTest('producers write into a concatenation, and what is read elsewhere too is copied there', async (device) => {
  for (const [axis, shapes] of [
    [
      2,
      [
        [2, 3, 4],
        [2, 3, 8],
        [2, 3, 5],
      ],
    ],
    [
      0,
      [
        // Parts that begin where no binding may.
        [1, 3, 5],
        [2, 3, 5],
        [3, 3, 5],
      ],
    ],
  ] as const) {
    const inputs = Object.fromEntries(shapes.map((shape, i) => [`x${i}`, spec(shape)]))
    const body = (tensors: Record<string, Tensor>) => {
      const [a, b, c] = [tensors.x0 as Tensor, tensors.x1 as Tensor, tensors.x2 as Tensor]
      const shared = scale(b, 3)
      return { y: concat([relu(a), shared, add(c, c)], axis), shared: softmax(shared) }
    }
    const data = Object.fromEntries(shapes.map((shape, i) => [`x${i}`, ramp(elements(shape), -2 - i)]))
    const results: Float32Array[] = []
    for (const optimize of [true, false]) {
      const program = await compile(device, inputs, body, { optimize })
      if (optimize) assert.is(program.kernels.length, 5, program.kernels.join())
      program.run(data)
      results.push(await program.read('y'))
      program.destroy()
    }
    assert.equal(results[0], results[1])
  }
})

deviceTest('a resized map is written beside others, with the same bits', async (device) => {
  for (const [first, second] of [
    [3, 5],
    [4, 8],
    [6, 4],
  ] as const) {
    const specs = { x: spec([2, 3, 4, first]), small: spec([2, 2, 3, second]) }
    const body = ({ x, small }: Record<string, Tensor>) => {
      const [a, b] = [x as Tensor, small as Tensor]
      return { y: concat([relu(a), resizeBilinear(b, [3, 4]), resizeBilinear(b, [3, 4], { alignCorners: false })], 3) }
    }
    const data = { x: ramp(2 * 3 * 4 * first, -2), small: ramp(2 * 2 * 3 * second, 1) }
    for (const options of device.traits.half ? [{}, { autocast: castCall }] : [{}]) {
      const results: Float32Array[] = []
      for (const optimize of [true, false]) {
        const program = await compile(device, specs, body, { optimize, ...options })
        if (optimize) assert.is(program.kernels.length, 3, program.kernels.join())
        program.run(data)
        results.push(await program.read('y'))
        program.destroy()
      }
      assert.equal(results[0], results[1])
    }
  }
})

test.run()
