// Where a product begins the sums for which its result would be read again. What it computes is tested on matrix units:
// test/kernels/matrix-sums.test.ts.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { add, castCall, relu, sum } from '#dist/kernels/pointwise.js'
import { type NullAdapter, nullDevice } from '../../support/null-device.js'

const gpu: NullAdapter = { software: false, half: true, matrixUnits: true, subgroupSize: 32 }

interface Map {
  readonly size?: number
  readonly channels?: number
}

/** Names of the nodes of a convolution, what `before` makes of its result, and batch norm, and labels of their dispatches. */
async function programOf(
  adapter: NullAdapter,
  { size = 129, channels = 64 }: Map = {},
  before: (map: Tensor) => { read?: Tensor; normalized: Tensor } = (map) => ({ normalized: map }),
  half = true,
) {
  const device = nullDevice(adapter)
  const vector = spec([channels])
  const specs = { x: spec([4, size, size, 32]), w: spec([1, 1, 32, channels]), zeros: vector, ones: vector }
  const program = await compile(
    device,
    specs,
    ({ x, w, zeros, ones }) => {
      const { read, normalized } = before(conv2d(x, w))
      const parameters = { weight: ones, bias: zeros, runningMean: zeros, runningVar: ones }
      const { y, runningMean, runningVar } = batchNormTraining(normalized, parameters)
      return { y: relu(y), runningMean, runningVar, ...(read ? { read } : {}) }
    },
    half ? { autocast: castCall } : {},
  )
  const names = program.nodes.flatMap(({ op, name }) => (op && name !== 'cast' ? [name] : []))
  const kernels = program.kernels
  program.destroy()
  device.destroy()
  return { names, kernels }
}

test('statistics of what a convolution stores are begun by it', async () => {
  const { names } = await programOf(gpu)
  assert.equal(names, ['conv2d+batchNormStatistics', 'batchNorm+relu'])
  const added = await programOf(gpu, {}, (map) => ({ normalized: add(map, map) }))
  assert.equal(added.names, ['conv2d+add+batchNormStatistics', 'batchNorm+relu'])
})

test('not by kernels that cannot: of adapters without matrix units, of a CPU, of float32, of odd channels', async () => {
  const apart = ['conv2d', 'batchNormStatistics', 'batchNorm+relu']
  for (const [adapter, map, half] of [
    [{ ...gpu, matrixUnits: false }],
    [{ ...gpu, software: true }],
    [{ software: true, half: true, subgroupSize: 8 }],
    [gpu, {}, false],
    [gpu, { channels: 60 }],
  ] as const) {
    const { names } = await programOf(adapter, map, undefined, half)
    assert.equal(names, apart, JSON.stringify([adapter, map]))
  }
})

test('a result that is needed before its statistics is stored before', async () => {
  const { names } = await programOf(gpu, {}, (map) => {
    const read = sum(map)
    return { read, normalized: map }
  })
  assert.ok(names.includes('conv2d') && names.includes('batchNormStatistics'), names.join())
  const behind = await programOf(gpu, {}, (map) => ({ read: map, normalized: map }))
  assert.ok(behind.names.includes('conv2d+batchNormStatistics'), behind.names.join())
})

test('sums of an input gradient that batch norm takes are begun by it, where its pixels are of one phase', async () => {
  const device = nullDevice(gpu)
  const channels = 64
  const vector = spec([channels])
  for (const [stride, fused] of [
    [1, true],
    [2, false],
  ] as const) {
    const specs = { x: spec([4, 129, 129, channels]), w: spec([3, 3, channels, 64]), ones: vector, zeros: vector }
    const program = await compile(
      device,
      specs,
      ({ x, w, ones, zeros }) => {
        const { y } = batchNormTraining(x, { weight: ones, bias: zeros, runningMean: zeros, runningVar: ones })
        const [dx] = grad(sum(conv2d(relu(y), w, { stride, padding: 1 })), [x])
        return { dx: dx as Tensor }
      },
      { autocast: castCall },
    )
    const names = program.nodes.map(({ name }) => name)
    assert.is(names.includes('conv2dInputGrad+batchNorm+relu+reluGrad+sum'), fused, names.join())
    program.destroy()
  }
  device.destroy()
})

test('of two input gradients that are added up, the one that can sum does both', async () => {
  const device = nullDevice(gpu)
  const channels = 64
  const vector = spec([channels])
  for (const strides of [
    [1, 2],
    [2, 1],
  ]) {
    const specs = { x: spec([4, 129, 129, channels]), w: spec([1, 1, channels, 64]), ones: vector, zeros: vector }
    const program = await compile(
      device,
      specs,
      ({ x, w, ones, zeros }) => {
        const { y } = batchNormTraining(x, { weight: ones, bias: zeros, runningMean: zeros, runningVar: ones })
        const map = relu(y)
        const [first, second] = strides.map((stride) => sum(conv2d(map, w, { stride }))) as [Tensor, Tensor]
        const [dx] = grad(add(first, second), [x])
        return { dx: dx as Tensor }
      },
      { autocast: castCall },
    )
    const names = program.nodes.map(({ name }) => name).filter((name) => /InputGrad/.test(name))
    assert.is(names.length, 2)
    assert.match(names[1] ?? '', /^conv2dInputGrad\+.*\+sum$/)
    program.destroy()
  }
  device.destroy()
})

test('sums of both branches of a block are begun by one product, where it can bind all that they read', async () => {
  const channels = 64
  const vector = spec([channels])
  const map = spec([4, 129, 129, channels])
  for (const [maxStorageBuffers, name] of [
    [16, /^conv2dInputGrad\+[a-zA-Z+]*sum\+[a-zA-Z+]*sum$/],
    [10, /^conv2dInputGrad\+[a-zA-Z]*\+reluGrad\+addGrad\+sum$/],
  ] as const) {
    const device = nullDevice({ ...gpu, maxStorageBuffers })
    const program = await compile(
      device,
      { a: map, b: map, w: spec([3, 3, channels, 64]), ones: vector, zeros: vector },
      ({ a, b, w, ones, zeros }) => {
        const parameters = { weight: ones, bias: zeros, runningMean: zeros, runningVar: ones }
        const branches = [a, b].map((branch) => batchNormTraining(branch, parameters).y) as [Tensor, Tensor]
        const loss = sum(conv2d(relu(add(...branches)), w, { padding: 1 }))
        const [da, db] = grad(loss, [a, b]) as [Tensor, Tensor]
        return { da, db }
      },
      { autocast: castCall },
    )
    const names = program.nodes.map((node) => node.name)
    assert.ok(
      names.some((each) => name.test(each)),
      `${maxStorageBuffers}: ${names.join()}`,
    )
    program.destroy()
    device.destroy()
  }
})

test.run()
