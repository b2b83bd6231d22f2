// What is computed of the parts is tested on matrix units: test/kernels/matrix-sums.test.ts.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { concat, slice } from '#dist/kernels/movement.js'
import { castCall, relu, sum } from '#dist/kernels/pointwise.js'
import { type NullAdapter, nullDevice } from '../../support/null-device.js'

const gpu: NullAdapter = { software: false, half: true, matrixUnits: true, subgroupSize: 32 }

/** Names and channels of what is computed for the gradients of two maps side by side. */
async function gradientsOf(adapter: NullAdapter, isReadWhole = false): Promise<string[]> {
  const device = nullDevice(adapter)
  const specs = { a: spec([2, 65, 65, 48]), b: spec([2, 65, 65, 64]), w: spec([3, 3, 112, 64]) }
  const program = await compile(
    device,
    specs,
    ({ a, b, w }) => {
      const joined = concat([relu(a), relu(b)], 3)
      const loss = sum(conv2d(joined, w, { padding: 1 }))
      if (isReadWhole) {
        const [whole] = grad(loss, [joined]) as [Tensor]
        return { whole, part: relu(slice(whole, 3, 0, 48)) }
      }
      const [da, db] = grad(loss, [a, b]) as [Tensor, Tensor]
      return { da, db }
    },
    { autocast: castCall },
  )
  const names = program.nodes.flatMap(({ op, name, outputs }) =>
    op && /InputGrad|slice/.test(name) ? [`${name} ${outputs[0]?.shape.at(-1)}`] : [],
  )
  program.destroy()
  device.destroy()
  return names
}

test('a gradient of which slices alone are read is computed slice by slice, on matrix units', async () => {
  const names = await gradientsOf(gpu)
  // Of weights, which have their output channels last, slices are copied.
  const products = [48, 64].map((channels) => `conv2dInputGrad+relu+reluGrad ${channels}`)
  assert.equal(names.sort(), [...products, 'slice 64', 'slice 64'])
})

test('as a whole elsewhere, and where it is read as a whole', async () => {
  assert.ok((await gradientsOf({ ...gpu, matrixUnits: false })).includes('conv2dInputGrad 112'))
  assert.ok((await gradientsOf({ ...gpu, software: true })).includes('conv2dInputGrad 112'))
  const read = await gradientsOf(gpu, true)
  assert.equal(read, ['conv2dInputGrad 112', 'slice 48'])
})

test.run()
