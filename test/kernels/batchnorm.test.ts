// The gradients of batch norm where the mean is large beside the standard deviation, or a corner lies far off, beside those
// of PyTorch in float32.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { findAdapters, open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { mul, sum } from '#dist/kernels/pointwise.js'
import { Random } from '../../cases/case.js'
import { largest, largestDifference } from '../support/check.js'
import { skipUnless } from '../support/skip.js'

const available = (await findAdapters()).length > 0
const deviceTest = skipUnless(available, 'there is no WebGPU adapter')
const device = available ? await open() : undefined

const channels = 12
const shape = [2, 33, 33, channels]
const rows = 2 * 33 * 33
const eps = 1e-5

type Gradients = Record<'x' | 'weight' | 'bias', ArrayLike<number>>

/** x of standard deviation 1 about `mean`, its first row `corner` higher; gradients about 1, so that no sum cancels. */
function inputsOf(mean: number, corner: number) {
  const random = new Random(`batch norm about ${mean}`)
  const normal = (count: number, offset: number) => new Float32Array(count).map(() => random.normal() + offset)
  const x = normal(rows * channels, mean).map((value, i) => (i < channels ? value + corner : value))
  return { x, dy: normal(rows * channels, 1), weight: normal(channels, 1), bias: normal(channels, 0) }
}

/** In double precision. */
function expectedOf({ x, dy, weight }: ReturnType<typeof inputsOf>): Gradients {
  const dx = new Float64Array(x.length)
  const [dWeight, dBias] = [new Float64Array(channels), new Float64Array(channels)]
  for (let c = 0; c < channels; c++) {
    const at = (list: Float32Array, row: number) => list[row * channels + c] ?? Number.NaN
    const total = (term: (row: number) => number) =>
      Array.from({ length: rows }, (_, r) => term(r)).reduce((a, b) => a + b)
    const mean = total((row) => at(x, row)) / rows
    const deviation = Math.sqrt(total((row) => (at(x, row) - mean) ** 2) / rows + eps)
    const normalized = (row: number) => (at(x, row) - mean) / deviation
    const [db, dw] = [total((row) => at(dy, row)), total((row) => at(dy, row) * normalized(row))]
    dBias[c] = db
    dWeight[c] = dw
    for (let row = 0; row < rows; row++) {
      dx[row * channels + c] =
        ((weight[c] ?? 0) / deviation) * (at(dy, row) - db / rows - (normalized(row) * dw) / rows)
    }
  }
  return { x: dx, weight: dWeight, bias: dBias }
}

/**
 * Largest errors of PyTorch 1.13 on a CPU (float32, contiguous NCHW, whose sums are in double precision), relative to the
 * largest gradient.
 */
const errorsOfPyTorch = [
  { mean: 1, corner: 0, x: 1.07e-7, weight: 1.02e-6, bias: 1.62e-7 },
  { mean: 10, corner: 0, x: 4.26e-7, weight: 8.19e-6, bias: 1.13e-7 },
  { mean: 100, corner: 0, x: 2.47e-6, weight: 7.95e-5, bias: 1.12e-7 },
  { mean: 1000, corner: 0, x: 1.02e-5, weight: 4.81e-4, bias: 1.02e-7 },
  { mean: 10000, corner: 0, x: 1.52e-4, weight: 1.31e-2, bias: 1.37e-7 },
  { mean: 0, corner: 100, x: 1.23e-7, weight: 6.28e-7, bias: 1.1e-7 },
]

/** PyTorch rounds once what it computes in double precision; here each operation of a formula rounds. */
const leastAllowed = 4 * 2 ** -23

for (const { mean, corner, ...errors } of errorsOfPyTorch) {
  deviceTest(`as exact as PyTorch about a mean of ${mean}, a corner ${corner} higher`, async () => {
    if (!device) throw new Error('unreachable: the test is skipped without a device')
    const { x, dy, weight, bias } = inputsOf(mean, corner)
    const expected = expectedOf({ x, dy, weight, bias })
    const vector = spec([channels])
    const inputs = {
      x: spec(shape),
      dy: spec(shape),
      weight: vector,
      bias: vector,
      runningMean: vector,
      runningVar: vector,
    }
    let kernels = 1
    for (let k = 0; k < kernels; k++) {
      const program = await compile(
        device,
        inputs,
        ({ dy, ...t }) => {
          const { y } = batchNormTraining(t.x, t, { eps })
          const [dx, dWeight, dBias] = grad(sum(mul(y, dy)), [t.x, t.weight, t.bias])
          if (!dx || !dWeight || !dBias) throw new Error('unreachable: three gradients were asked for')
          return { x: dx, weight: dWeight, bias: dBias }
        },
        {
          selectKernel: (_, candidates) => {
            kernels = Math.max(kernels, candidates.length)
            return candidates[Math.min(k, candidates.length - 1)]
          },
        },
      )
      const zeros = new Float32Array(channels)
      program.run({ x, dy, weight, bias, runningMean: zeros, runningVar: zeros })
      for (const name of ['x', 'weight', 'bias'] as const) {
        const { error } = largestDifference(await program.read(name), expected[name])
        const relative = error / largest(expected[name])
        const allowed = Math.max(errors[name], leastAllowed)
        assert.ok(
          relative <= allowed,
          `kernel ${k}: ${name} is off by ${relative.toExponential(2)}, allowed ${allowed}`,
        )
      }
      program.destroy()
    }
    assert.is(kernels, 2, 'there are two kernels of the statistics')
  })
}

deviceTest('the gradient of an input about a mean of 100 sums up to nothing, as it does without rounding', async () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  const { x, dy: noise, weight, bias } = inputsOf(100, 0)
  // Where dy follows x, the rounding of the mean of x enters all rows alike.
  const dy = noise.map((value, i) => value + (x[i] ?? Number.NaN) - 100)
  const vector = spec([channels])
  const inputs = { x: spec(shape), dy: spec(shape), weight: vector, bias: vector }
  const program = await compile(device, { ...inputs, runningMean: vector, runningVar: vector }, ({ dy, ...t }) => {
    const [dx] = grad(sum(mul(batchNormTraining(t.x, t, { eps }).y, dy)), [t.x])
    if (!dx) throw new Error('unreachable: a gradient was asked for')
    return { dx }
  })
  const zeros = new Float32Array(channels)
  program.run({ x, dy, weight, bias, runningMean: zeros, runningVar: zeros })
  const dx = await program.read('dx')
  for (let c = 0; c < channels; c++) {
    let total = 0
    for (let row = 0; row < rows; row++) total += dx[row * channels + c] ?? Number.NaN
    const relative = Math.abs(total / rows) / largest(dx)
    assert.ok(relative <= 2 ** -24, `channel ${c}: the mean is ${relative.toExponential(2)} of the largest`)
  }
  program.destroy()
})

test.after(() => device?.destroy())

test.run()
