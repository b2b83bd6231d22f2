// Where a convolution and its weight gradient compute what they read as they load it. What they compute is tested on matrix
// units: test/kernels/matrix-prologues.test.ts.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { add, castCall, relu, sum } from '#dist/kernels/pointwise.js'
import { maxPool2d } from '#dist/kernels/pool.js'
import { type NullAdapter, nullDevice } from '../../support/null-device.js'

const gpu: NullAdapter = { software: false, half: true, matrixUnits: true, subgroupSize: 32 }

interface Layer {
  readonly channels?: number
  readonly columns?: number
  readonly side?: number
  readonly half?: boolean
  /** What is made of the normalised map and another one, and what else is delivered. */
  readonly read?: (normalized: Tensor, other: Tensor) => { y: Tensor; also?: Tensor }
}

/** Names of the nodes of batch norm, relu, a convolution and its weight gradient, and the labels of their dispatches. */
async function programOf(adapter: NullAdapter, layer: Layer = {}) {
  const { channels = 64, columns = 64, side = 3, half = true } = layer
  const read: NonNullable<Layer['read']> = layer.read ?? ((normalized) => ({ y: relu(normalized) }))
  const device = nullDevice(adapter)
  const vector = spec([channels])
  const specs = {
    x: spec([4, 129, 129, channels]),
    w: spec([side, side, channels, columns]),
    ...{ weight: vector, bias: vector, zeros: vector, ones: vector },
  }
  const program = await compile(
    device,
    specs,
    ({ x, w, weight, bias, zeros, ones }) => {
      // Behind products, which store f16.
      const product = (weights: Tensor) => conv2d(x, weights.reshape(1, 1, 1, channels), { groups: channels })
      const [map, other] = [product(ones), product(bias)]
      const normalized = batchNormTraining(map, { weight, bias, runningMean: zeros, runningVar: ones })
      const { y, also } = read(normalized.y, other)
      const out = maxPool2d(conv2d(y, w, { padding: (side - 1) / 2 }))
      const [dw] = grad(sum(out), [w])
      return { out, dw: dw as Tensor, ...(also ? { also } : {}) }
    },
    half ? { autocast: castCall } : {},
  )
  const names = program.nodes.flatMap(({ op, name }) => (op ? [name] : []))
  const { planned } = program.memory
  program.destroy()
  device.destroy()
  return { names, planned }
}

const fused = ['batchNorm+relu+conv2d', 'batchNorm+relu+conv2dWeightGrad']
const apart = ['batchNorm+relu', 'conv2d', 'conv2dWeightGrad']
const has = (names: readonly string[], wanted: readonly string[]) =>
  assert.ok(
    wanted.every((name) => names.includes(name)),
    `${wanted} in ${names}`,
  )

test('what a convolution and its weight gradient alone read is computed where they load it', async () => {
  const { names, planned } = await programOf(gpu)
  has(names, fused)
  assert.not(names.includes('batchNorm+relu'))
  const stored = await programOf({ ...gpu, maxStorageBuffers: 6 })
  assert.ok(planned < stored.planned, `${planned} bytes, ${stored.planned} where it is stored`)
})

test('not by kernels that cannot: of adapters without matrix units, of a CPU, of float32, of odd channels', async () => {
  for (const [adapter, layer] of [
    [{ ...gpu, matrixUnits: false }],
    [{ ...gpu, software: true }],
    [{ software: true, half: true, subgroupSize: 8 }],
    [gpu, { half: false }],
    [gpu, { channels: 60 }],
  ] as const) {
    const { names } = await programOf(adapter, layer)
    has(names, apart)
  }
})

test('not where it would be computed too often: by many taps and tiles of columns', async () => {
  for (const [layer, expected] of [
    [{ side: 1, columns: 512 }, fused],
    [{ side: 3, columns: 512 }, apart],
    [{ side: 7 }, apart],
  ] as const) {
    const { names } = await programOf(gpu, layer)
    has(names, expected)
  }
})

test('a value that something else reads, or that two maps make, is stored', async () => {
  const pooled = await programOf(gpu, {
    read: (normalized) => ({ y: relu(normalized), also: maxPool2d(relu(normalized)) }),
  })
  has(pooled.names, apart)
  const residual = await programOf(gpu, { read: (normalized, other) => ({ y: relu(add(normalized, other)) }) })
  has(residual.names, ['batchNorm+add+relu', 'conv2d', 'conv2dWeightGrad'])
})

test('a kernel binds no more buffers than it may', async () => {
  // Beside the factors and the result, the four operands of batch norm.
  for (const [maxStorageBuffers, expected] of [
    [7, fused],
    [6, apart],
  ] as const) {
    const { names } = await programOf({ ...gpu, maxStorageBuffers })
    has(names, expected)
  }
})

test.run()
