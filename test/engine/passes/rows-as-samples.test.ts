// What is too large for an adapter in a single sample is computed a few rows at a time, with the same result.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { BindingLimitError, Device } from '#dist/engine/device.js'
import { assign, read } from '#dist/engine/graph.js'
import type { Node, Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { byteLength, type Data, elements, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { flip } from '#dist/kernels/flip.js'
import { crossEntropyMean } from '#dist/kernels/loss.js'
import { concat, slice } from '#dist/kernels/movement.js'
import { add, mul, relu, scale, sum, sumTo } from '#dist/kernels/pointwise.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { softmax, softmaxMax } from '#dist/kernels/softmax.js'
import { messageOf } from '../../support/messages.js'
import { onDevice } from '../../support/on-device.js'

const { deviceTest } = await onDevice()

const [samples, classes] = [3, 7]
const low = [samples, 4, 5, classes]
const size = [13, 17] as const
const high = [samples, ...size, classes]
const highBytes = 4 * elements(high)
const labels = Uint8Array.from({ length: samples * size[0] * size[1] }, (_, i) =>
  i % 11 === 0 ? 255 : (5 * i) % classes,
)
const values = Float32Array.from({ length: elements(low) }, (_, i) => 3 * Math.sin(0.7 * i) + (i % 13) / 5)

interface Run {
  readonly results: readonly Data[]
  /** Bytes of the largest operand of a kernel. */
  readonly largest: number
  readonly calls: readonly string[]
}

/** The results of a program of which kernels bind so many bytes at most. */
async function run(
  { gpu, adapter }: Device,
  limit: number,
  body: (x: Tensor, target: Tensor) => Record<string, Tensor>,
): Promise<Run> {
  const device = new Device(gpu, adapter, undefined, undefined, limit)
  let largest = 0
  const calls: string[] = []
  const inputs = { x: spec(low), target: spec(high.slice(0, 3), 'u8') }
  let names: string[] = []
  const traced = ({ x, target }: { x: Tensor; target: Tensor }) => {
    const outputs = body(x, target)
    names = Object.keys(outputs)
    return outputs
  }
  const program = await compile(device, inputs, traced, {
    selectKernel: ({ op, inputs, outputs }: Node, candidates) => {
      calls.push(op?.name ?? '')
      largest = Math.max(largest, ...[...inputs, ...outputs].map(byteLength))
      return candidates[0]
    },
  })
  program.run({ x: values, target: labels })
  const results: Data[] = []
  for (const name of names) results.push(await program.read(name, name === 'label' ? 'u32' : 'f32'))
  program.destroy()
  return { results, largest, calls }
}

const bodies: Readonly<Record<string, (x: Tensor, target: Tensor) => Record<string, Tensor>>> = {
  'the mean cross entropy of resized logits, and its gradient': (x, target) => {
    const loss = crossEntropyMean(resizeBilinear(x, size), target)
    const [gradient = x] = grad(loss, [x])
    return { loss, gradient }
  },
  'borders that coincide': (x, target) => {
    const loss = crossEntropyMean(resizeBilinear(x, size, { alignCorners: false }), target)
    const [gradient = x] = grad(loss, [x])
    return { loss, gradient }
  },
  'losses of ranges of a batch': (x, target) => {
    const logits = resizeBilinear(x, size)
    const first = sum(softmax(slice(logits, 0, 0, 2)))
    const both = sum(mul(softmax(concat([slice(logits, 0, 1, 2), slice(logits, 0, 0, 1)], 0)), logits))
    const loss = add(add(first, both), crossEntropyMean(logits, target))
    const [gradient = x] = grad(loss, [x])
    return { loss, gradient }
  },
  'convolutions of single pixels, of maps side by side': (x, target) => {
    const logits = resizeBilinear(x, size)
    const both = concat([relu(logits), logits], 3)
    const perClass = scale(sumTo(softmax(x), [classes]), 0.1)
    const square = mul(perClass.reshape(classes, 1), perClass)
    const mixed = conv2d(both, concat([square, square], 0).reshape(1, 1, 2 * classes, classes))
    const loss = crossEntropyMean(mixed, target)
    const [gradient = x] = grad(loss, [x])
    return { loss, gradient }
  },
  'labels and confidences of a flipped mean': (x) => {
    const logits = resizeBilinear(x, size)
    const mean = scale(add(softmax(logits), flip(softmax(flip(logits)))), 0.5)
    const { confidence, label } = softmaxMax(mean)
    return { confidence, label, perClass: sumTo(mean, [classes]) }
  },
}

for (const [name, body] of Object.entries(bodies)) {
  deviceTest(name, async (device) => {
    const whole = await run(device, Number.POSITIVE_INFINITY, body)
    // Less than a sample, which is a third; a sample of which only the columns are resized still fits.
    for (const share of [4, 7, 10]) {
      const limit = Math.floor(highBytes / share)
      const parts = await run(device, limit, body)
      assert.ok(parts.largest <= limit, `${parts.largest} bytes bound of ${limit}`)
      assert.ok(parts.calls.length > whole.calls.length)
      for (const [k, expected] of whole.results.entries()) {
        const found = parts.results[k]
        assert.is(found?.length, expected.length)
        // Sums over rows come in other orders.
        const scale = Math.max(...Array.from(expected, Math.abs))
        const error = Math.max(...Array.from(expected, (value, i) => Math.abs(value - (found?.[i] ?? Number.NaN))))
        assert.ok(error <= 3e-6 * scale, `share ${share}, result ${k}: ${error} of ${scale}`)
      }
    }
  })
}

deviceTest('maps that are resized and read by themselves keep their bits', async (device) => {
  const body = (x: Tensor) => ({ y: softmax(resizeBilinear(x, size)) })
  const whole = await run(device, Number.POSITIVE_INFINITY, body)
  const parts = await run(device, Math.floor(highBytes / 5), body)
  assert.equal(parts.results, whole.results)
})

deviceTest('a variable whose samples are too large is read and assigned by rows', async ({ gpu, adapter }) => {
  const device = new Device(gpu, adapter, undefined, undefined, Math.floor(highBytes / 5))
  const store = new Store(device, 'state')
  const start = Float32Array.from({ length: elements(high) }, (_, i) => i)
  const variable = store.declare('v', spec(high), start)
  const program = await compile(device, {}, () => {
    assign(variable, add(scale(read(variable), 2), read(variable)))
    return {}
  })
  program.run({})
  assert.equal(
    await store.read('v'),
    start.map((value) => 3 * value),
  )
  program.destroy()
  store.destroy()
})

deviceTest('what has no form by rows is refused', async ({ gpu, adapter }) => {
  const device = new Device(gpu, adapter, undefined, undefined, Math.floor(highBytes / 5))
  const perSample = (x: Tensor) => mul(resizeBilinear(x, size), sumTo(x, [samples, 1, 1, classes]))
  const message = await messageOf(
    () => compile(device, { x: spec(low) }, ({ x }) => ({ y: perSample(x) })),
    BindingLimitError,
  )
  assert.match(message, /is too large: this adapter binds at most/)
})

test.run()
