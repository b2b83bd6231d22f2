// What a program does, by which times are expected.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { matmul } from '#dist/kernels/matmul.js'
import { add, sum } from '#dist/kernels/pointwise.js'
import { nullDevice } from '../support/null-device.js'

const device = nullDevice()

test('a convolution takes a product per weight of a channel and element, and each of its gradients as many', async () => {
  const specs = { x: spec([2, 9, 7, 6]), w: spec([3, 3, 3, 8]) }
  const convolved = ({ x, w }: { x: Tensor; w: Tensor }) => conv2d(x, w, { stride: 2, padding: 1, groups: 2 })
  const products = 2 * 5 * 4 * 8 * 9 * 3
  const forward = await compile(device, specs, (t) => ({ y: convolved(t) }))
  assert.is(forward.work.multiplyAdds, products)
  const backward = await compile(device, specs, (t) => {
    const y = convolved(t)
    const [dx, dw] = grad(sum(y), [t.x, t.w]) as [Tensor, Tensor]
    return { y, dx, dw }
  })
  assert.is(backward.work.multiplyAdds, 3 * products)
})

test('a product of matrices takes rows by columns by what is added up, transposed or not', async () => {
  const shapes = {
    plain: [spec([5, 7]), spec([7, 3])],
    a: [spec([7, 5]), spec([7, 3])],
    b: [spec([5, 7]), spec([3, 7])],
  }
  for (const [transposed, [a = spec([]), b = spec([])]] of Object.entries(shapes)) {
    const options = { transposeA: transposed === 'a', transposeB: transposed === 'b' }
    const program = await compile(device, { a, b }, (t) => ({ y: matmul(t.a, t.b, options) }))
    assert.is(program.work.multiplyAdds, 5 * 7 * 3, transposed)
  }
})

test('what is read and written counts, and nothing else', async () => {
  const program = await compile(device, { a: spec([100]), b: spec([100]) }, ({ a, b }) => ({ y: add(a, b) }))
  assert.equal(program.work, { bytes: 3 * 400, multiplyAdds: 0 })
})

test.run()
