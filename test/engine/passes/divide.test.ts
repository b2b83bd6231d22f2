// What an adapter cannot bind at once is computed a few samples at a time, with the same result.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { BindingLimitError, Device } from '#dist/engine/device.js'
import { assign, Graph, read, traceOf, tracing } from '#dist/engine/graph.js'
import type { Node, Tensor } from '#dist/engine/ir.js'
import { divide } from '#dist/engine/passes/divide.js'
import { compile } from '#dist/engine/program.js'
import { byteLength, type Data, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { conv2dWeightGrad } from '#dist/kernels/conv2d.js'
import { crossEntropyMean } from '#dist/kernels/loss.js'
import { concat, slice } from '#dist/kernels/movement.js'
import { add, mul, relu, scale, sum, sumTo } from '#dist/kernels/pointwise.js'
import { kthSmallest } from '#dist/kernels/select.js'
import { softmax } from '#dist/kernels/softmax.js'
import { cases } from '../../../cases/index.js'
import { compareGradients, compareOutputs, type Prepared, prepare, runCase } from '../../support/check.js'
import { messageOf } from '../../support/messages.js'
import { onDevice } from '../../support/on-device.js'
import { ramp } from '../../support/random-program.js'

const { deviceTest } = await onDevice()

/** The same device, of which kernels bind so many bytes at most. */
const binding = ({ gpu, adapter, traits }: Device, limit: number, software = adapter.software): Device =>
  new Device(gpu, { ...adapter, software }, undefined, { matrixConfigs: traits.matrixConfigs, bindingLimit: limit })

/** How often each operator is called in a run, and bytes of the largest tensor. */
async function callsOf(device: Device, prepared: Prepared, optimize: boolean) {
  const counts = new Map<string, number>()
  let largest = 0
  const result = await runCase(device, prepared, {
    optimize,
    selectKernel: ({ op, inputs, outputs }: Node, candidates) => {
      counts.set(op?.name ?? '', (counts.get(op?.name ?? '') ?? 0) + 1)
      largest = Math.max(largest, ...[...inputs, ...outputs].map(byteLength))
      return candidates[0]
    },
  })
  return { counts, largest, result }
}

/** Operators of which calls were divided. */
const divided = new Set<string>()

for (const row of cases) {
  if (!Object.values(row.inputs).some(({ spec: { shape } }) => (shape[0] ?? 1) > 1 && shape.length > 1)) continue
  deviceTest(`${row.op}: ${row.name}`, async (device) => {
    const prepared = prepare(row)
    for (const [optimize, shares] of [
      [true, [2, 8]],
      [false, [4]],
    ] as const) {
      const whole = await callsOf(device, prepared, optimize)
      for (const share of shares) {
        const limit = Math.floor(whole.largest / share)
        let run: Awaited<ReturnType<typeof callsOf>>
        try {
          run = await callsOf(binding(device, limit), prepared, optimize)
        } catch (error) {
          // A single sample is too large, or a tensor without samples.
          if (error instanceof BindingLimitError) continue
          throw error
        }
        assert.ok(run.largest <= limit, `${run.largest} bytes bound of ${limit}`)
        compareOutputs(prepared, run.result, `with ${limit} bytes bound`)
        compareGradients(prepared, run.result)
        for (const [op, count] of run.counts) if (count > (whole.counts.get(op) ?? 0)) divided.add(op)
      }
    }
  })
}

deviceTest('the operators of models and methods were divided', () => {
  const expected = [
    ...['pointwise', 'sum', 'conv2d', 'conv2dInputGrad', 'conv2dWeightGrad', 'batchNormMoments', 'matmul'],
    ...['maxPool2d', 'maxPool2dGrad', 'resizeBilinear', 'resizeBilinearGrad', 'resizedSoftmaxMax', 'softmaxMax'],
    ...['softmax', 'crossEntropy', 'crossEntropyGrad', 'normalizeImage', 'flip', 'concat', 'slice', 'pad'],
    ...['confusionMatrix', 'countNonFinite'],
    ...['layerNormStatistics', 'attention', 'attentionGrad', 'batchedMatmul', 'permute'],
  ]
  assert.equal(
    expected.filter((op) => !divided.has(op)),
    [],
  )
})

/** Bytes of a sample of the programs below: any sample begins where a binding may. */
const sample = 64
const sampleBytes = 4 * sample

/** Kernels and copies of a program over a batch of 6 where a kernel binds 2 samples, with the result of an undivided one. */
async function commandsOf(device: Device, body: (x: Tensor) => Tensor): Promise<string[]> {
  const results: Data[] = []
  const commands: string[][] = []
  for (const limit of [2 * sampleBytes, Number.POSITIVE_INFINITY]) {
    const program = await compile(binding(device, limit), { x: spec([6, sample]) }, ({ x }) => ({ out: body(x) }))
    program.run({ x: ramp(6 * sample, -170) })
    results.push(await program.read('out'))
    commands.push(program.kernels)
    program.destroy()
  }
  assert.equal(results[0], results[1])
  return commands[0] ?? []
}

deviceTest('a weight gradient to which another one is added', async (device) => {
  const inputs = { x: spec([4, 8, 8, 12]), dy: spec([4, 8, 8, 16]), other: spec([1, 1, 12, 16]) }
  const results: Data[] = []
  const counts: number[] = []
  for (const limit of [byteLength(inputs.dy) / 2, Number.POSITIVE_INFINITY]) {
    const program = await compile(binding(device, limit), inputs, ({ x, dy, other }) => {
      return { out: add(conv2dWeightGrad(x, dy, { size: [1, 1, 12, 16] }), other) }
    })
    program.run({ x: ramp(4 * 64 * 12, -1500), dy: ramp(4 * 64 * 16, -2000), other: ramp(12 * 16, 7) })
    results.push(await program.read('out'))
    counts.push(program.nodes.filter(({ op }) => op?.name === 'conv2dWeightGrad').length)
    program.destroy()
  }
  assert.equal(counts, [2, 1])
  const [divided = [], whole = []] = results
  for (const [i, value] of whole.entries()) {
    assert.ok(
      Math.abs((divided[i] ?? Number.NaN) - value) <= 1e-5 * Math.abs(value),
      `${i}: ${divided[i]}, not ${value}`,
    )
  }
})

deviceTest('gradients of two losses of the same logits, the second with what is added to it', async (device) => {
  // Rows as samples, too: the smallest limit binds less than an image.
  const shape = [4, 5, 6, 7]
  const target = spec(shape.slice(0, -1), 'u8')
  const specs = { logits: spec(shape), first: target, second: target, bias: spec([7]) }
  const results: Data[] = []
  const image = 5 * 6 * 7 * 4
  for (const [limit, optimize, calls] of [
    [Number.POSITIVE_INFINITY, true, 2],
    [2 * image, true, 4],
    [3 * 6 * 7 * 4, true, undefined],
    [Number.POSITIVE_INFINITY, false, 2],
  ] as const) {
    // A CPU adds the gradients by themselves.
    const program = await compile(
      binding(device, limit, false),
      specs,
      ({ logits, first, second, bias }) => {
        const biased = add(logits, bias)
        const loss = add(scale(crossEntropyMean(biased, first), 3), crossEntropyMean(biased, second))
        return { out: (grad(loss, [biased]) as [Tensor])[0] }
      },
      { optimize },
    )
    const classes = (step: number) => new Uint8Array(120).map((_, i) => (i % 11 === 0 ? 255 : (i * step) % 7))
    const logits = ramp(840, -420).map((value) => (value % 31) / 8)
    program.run({ logits, first: classes(3), second: classes(5), bias: ramp(7, -3) })
    results.push(await program.read('out'))
    const names = program.nodes.filter(({ op }) => op?.name === 'crossEntropyGrad').map(({ name }) => name)
    if (calls) assert.is(names.length, calls, names.join())
    if (optimize) assert.ok(names.includes('crossEntropyGrad+add'), names.join())
    program.destroy()
  }
  for (const result of results) assert.equal(result, results.at(-1))
})

/** 6 samples are halved into 3 and 3, and these into 2 and 1. */
const pieces = (kernel: string): string[] => Array(4).fill(kernel)

deviceTest('a value that is too large lives in pieces, which its readers take', async (device) => {
  const commands = await commandsOf(device, (x) => softmax(softmax(x)))
  assert.equal(commands, [...pieces('softmax'), ...pieces('softmax')])
})

deviceTest('ranges of pieces, and pieces of joined values, move nothing', async (device) => {
  const commands = await commandsOf(device, (x) => {
    const y = softmax(x)
    return softmax(concat([slice(y, 0, 0, 3), slice(y, 0, 3, 3)], 0))
  })
  assert.equal(commands, [...pieces('softmax'), ...pieces('softmax')])
})

deviceTest('gradients of ranges are zero elsewhere, in pieces too', async (device) => {
  const commands = await commandsOf(device, (x) => {
    const y = softmax(x)
    const [gradient] = grad(sum(mul(slice(y, 0, 0, 2), slice(y, 0, 4, 2))), [x])
    return gradient ?? x
  })
  assert.ok(!commands.includes('pad'), `${commands}`)
})

deviceTest('a sum of single rows is a sum all the same', async (device) => {
  await commandsOf(device, (x) => add(scale(relu(x), 0.5), sumTo(scale(x, 2), [sample])))
})

deviceTest('variables and outputs may be larger than what a kernel binds', async (device) => {
  const small = binding(device, 2 * sampleBytes)
  const store = new Store(small, 'state')
  const variable = store.declare('v', spec([6, sample]), ramp(6 * sample))
  const program = await compile(small, {}, () => {
    const doubled = scale(read(variable), 2)
    assign(variable, add(doubled, read(variable)))
    return { doubled }
  })
  program.run({})
  assert.equal([...(await program.read('doubled'))], [...ramp(6 * sample).map((value) => 2 * value)])
  assert.equal([...(await store.read('v'))], [...ramp(6 * sample).map((value) => 3 * value)])
  program.destroy()
  store.destroy()
})

deviceTest('a sample that is too large is refused, and so is what cannot be divided', async (device) => {
  const message = (limit: number, body: (x: Tensor) => Tensor) =>
    messageOf(
      () => compile(binding(device, limit), { x: spec([6, sample]) }, ({ x }) => ({ out: body(x) })),
      BindingLimitError,
    )
  assert.match(
    await message(sampleBytes - 4, softmax),
    /^program: .* f32\[1, 64\] of 0.0 MiB is too large: this adapter binds at most 0.0 MiB at once$/,
  )
  assert.match(await message(2 * sampleBytes, (x) => kthSmallest(relu(x), 3)), /f32\[6, 64\] of 0.0 MiB is too large/)
})

test('a trace of small tensors stays the same', async () => {
  const graph = new Graph()
  const x = graph.input('x', spec([6, sample]))
  const y = tracing(graph, () => softmax(x))
  const trace = traceOf(graph, new Map([['y', y]]))
  assert.is(await divide(trace, 6 * sampleBytes), trace)
  assert.is.not(await divide(trace, 6 * sampleBytes - 1), trace)
})

test.run()
