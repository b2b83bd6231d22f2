// A formula behind a convolution or a matrix product is computed by its kernel, with the same result.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '#dist/engine/device.js'
import type { Tensor } from '#dist/engine/ir.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { elements, type Spec, spec } from '#dist/engine/shape.js'
import { batchNormEvaluation } from '#dist/kernels/batchnorm.js'
import { conv2d, conv2dInputGrad, conv2dWeightGrad } from '#dist/kernels/conv2d.js'
import { matmul } from '#dist/kernels/matmul.js'
import { add, gelu, mul, relu, scale } from '#dist/kernels/pointwise.js'
import { softmax } from '#dist/kernels/softmax.js'
import { Random } from '../../../cases/case.js'
import { skipUnless } from '../../support/skip.js'

const available = (await findAdapters()).length > 0
const opened = available ? await open() : undefined
const register = skipUnless(available, 'there is no WebGPU adapter')
const deviceTest = (name: string, body: (device: Device) => Promise<void>): void =>
  register(name, async () => {
    if (!opened) throw new Error('unreachable: the test is skipped without a device')
    await body(opened)
  })

type Body = (tensors: Record<string, Tensor>) => Tensor

/** Runs `body` fused, with some of the candidate kernels, and not fused: all must agree. */
async function agree(
  gpu: Device,
  specs: Record<string, Spec>,
  body: Body,
  { operators = 1, kernels = [0] } = {},
): Promise<void> {
  const random = new Random('epilogue')
  const data = Object.fromEntries(
    Object.entries(specs).map(([name, { shape }]) => [
      name,
      new Float32Array(elements(shape)).map(() => 0.1 + random.uniform()),
    ]),
  )
  const run = async (optimize: boolean, choice: number) => {
    const program = await compile(gpu, specs, (tensors) => ({ y: body(tensors) }), {
      optimize,
      selectKernel: (_, candidates) => candidates[choice] ?? candidates[0],
    })
    program.run(data)
    const y = await program.read('y')
    const count = program.nodes.filter(({ op }) => op).length
    program.destroy()
    return { y, count }
  }
  const plain = await run(false, 0)
  for (const choice of kernels) {
    const fused = await run(true, choice)
    assert.is(fused.count, operators)
    for (const [i, value] of fused.y.entries()) {
      const expected = plain.y[i] ?? Number.NaN
      assert.ok(Math.abs(value - expected) <= 1e-5 * Math.max(1, Math.abs(expected)), `${i}: ${value}, not ${expected}`)
    }
  }
}

const map = { x: spec([2, 5, 6, 3]), w: spec([3, 3, 3, 10]) }
const result = [2, 5, 6, 10]
const convolved: Body = ({ x, w }) => conv2d(x as Tensor, w as Tensor, { padding: 1 })
const at = (tensors: Record<string, Tensor>, name: string): Tensor => tensors[name] as Tensor

deviceTest('bias, residual and relu', (gpu) => {
  const specs = { ...map, bias: spec([10]), residual: spec(result) }
  const body: Body = (t) => relu(add(add(convolved(t), at(t, 'bias')), scale(at(t, 'residual'), -1)))
  return agree(gpu, specs, body, { kernels: [0, 1] })
})

deviceTest('batch norm in evaluation, folded', (gpu) => {
  const channels = { weight: spec([10]), bias: spec([10]), runningMean: spec([10]), runningVar: spec([10]) }
  return agree(gpu, { ...map, ...channels }, (t) =>
    relu(
      batchNormEvaluation(convolved(t), {
        weight: at(t, 'weight'),
        bias: at(t, 'bias'),
        runningMean: at(t, 'runningMean'),
        runningVar: at(t, 'runningVar'),
      }),
    ),
  )
})

for (const [name, shape] of Object.entries({
  row: [2, 5, 6, 1],
  sample: [2, 1, 1, 1],
  'sample and channel': [2, 1, 1, 10],
  scalar: [],
})) {
  deviceTest(`an operand per ${name}`, (gpu) =>
    agree(gpu, { ...map, factor: spec(shape) }, (t) => mul(convolved(t), at(t, 'factor'))),
  )
}

deviceTest('an input gradient with a stride', (gpu) => {
  const specs = { dy: spec([2, 3, 3, 10]), w: spec([3, 3, 3, 10]), other: spec([2, 5, 6, 3]) }
  return agree(gpu, specs, (t) => {
    const gradient = conv2dInputGrad(at(t, 'dy'), at(t, 'w'), { stride: 2, padding: 1, size: [2, 5, 6, 3] })
    return add(gradient, at(t, 'other'))
  })
})

for (const [name, kernel, channels] of [
  ['3x3', 3, 12],
  // Whose kernel in panels exchanges the two maps.
  ['1x1, few input channels', 1, 4],
] as const) {
  deviceTest(`gradients of a weight that are added up: ${name}`, async (gpu) => {
    const [x, dy] = [spec([2, 5, 6, channels]), spec([2, 5, 6, 24])]
    const size = [kernel, kernel, channels, 24]
    const specs = { x, dy, x2: x, dy2: dy, factor: spec([24]) }
    const gradient = (t: Record<string, Tensor>, number: string) =>
      conv2dWeightGrad(at(t, `x${number}`), at(t, `dy${number}`), { padding: (kernel - 1) / 2, size })
    const options = { operators: 2, kernels: [0, 1, 2] }
    await agree(gpu, specs, (t) => add(gradient(t, ''), gradient(t, '2')), options)
    await agree(gpu, specs, (t) => mul(gradient(t, ''), at(t, 'factor')), { ...options, operators: 1 })
  })
}

deviceTest('a matrix product', (gpu) =>
  agree(gpu, { a: spec([9, 12]), b: spec([12, 7]), bias: spec([7]) }, (t) =>
    relu(add(matmul(at(t, 'a'), at(t, 'b')), at(t, 'bias'))),
  ),
)

deviceTest('patches with a bias', (gpu) =>
  agree(gpu, { x: spec([2, 9, 8, 3]), w: spec([4, 4, 3, 10]), bias: spec([10]) }, (t) =>
    add(conv2d(at(t, 'x'), at(t, 'w'), { stride: 4 }), at(t, 'bias')),
  ),
)

deviceTest('a linear layer with GELU', (gpu) =>
  agree(gpu, { a: spec([9, 12]), b: spec([7, 12]), bias: spec([7]) }, (t) =>
    gelu(add(matmul(at(t, 'a'), at(t, 'b'), { transposeB: true }), at(t, 'bias'))),
  ),
)

deviceTest('a grouped convolution, and one with two readers, store their results', async (gpu) => {
  const grouped = { x: spec([1, 4, 4, 4]), w: spec([3, 3, 1, 4]) }
  await agree(gpu, grouped, (t) => relu(conv2d(at(t, 'x'), at(t, 'w'), { groups: 4 })), { operators: 2 })
  await agree(gpu, map, (t) => add(softmax(convolved(t)), convolved(t)), { operators: 3 })
})

test.after(() => opened?.destroy())
test.run()
