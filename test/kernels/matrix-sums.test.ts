// Products on matrix units that sum the rows of what they store, for what reads it next, under a driver that imitates such
// units, and which here does not say that it runs on the CPU.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { concat } from '#dist/kernels/movement.js'
import { add, castCall, relu, sum } from '#dist/kernels/pointwise.js'
import { Random } from '../../cases/case.js'
import { compareGradients, compareOutputs, compareRuns, prepare, runCase } from '../support/check.js'
import { assertKernelsAgree } from '../support/kernels-agree.js'
import { formulas, layers, normalizedBefore, normalizedConvolution } from '../support/normalized-convolution.js'
import { skipUnless } from '../support/skip.js'

await import(new URL('../support/variant.js?gpu', import.meta.url).href)
const device = (await findAdapters()).length > 0 ? await open() : undefined
const matrixTest = skipUnless(device?.traits.matrixUnits !== undefined, 'there is no adapter with matrix units for f16')
const opened = () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  return device
}

for (const [k, [name, layer]] of Object.entries(layers).entries()) {
  // One formula for each: a driver compiles each kernel for a second.
  for (const formula of formulas.slice(k % formulas.length).slice(0, 1)) {
    matrixTest(`statistics of a convolution: ${name}${formula && `, ${formula}`}`, async () => {
      const prepared = prepare(normalizedConvolution(name, layer, formula), 'half')
      const names = new Set<string>()
      const results = await runCase(opened(), prepared, {
        selectKernel: (node, candidates) => {
          names.add(node.name)
          return candidates[0]
        },
      })
      assert.is(
        [...names].some((each) => /^conv2d.*\+batchNormStatistics$/.test(each)),
        layer.apart !== true,
        [...names].join(' '),
      )
      compareOutputs(prepared, results, 'fused')
      // Half precision moves values across the corner of relu.
      if (formula !== 'relu') compareGradients(prepared, results)
      compareRuns(prepared, await runCase(opened(), prepared, { optimize: false }), results, 'fused')
    })
  }
}

for (const [shape, formula] of [
  // Rows that are no whole number of tiles, or less than one.
  [[2, 9, 7, 40], ''],
  [[2, 9, 7, 40], 'residual'],
  [[2, 9, 7, 40], 'relu'],
  [[1, 5, 5, 8], 'bias'],
] as const) {
  matrixTest(`gradients of batch norm in front of a convolution: ${shape}${formula && `, ${formula}`}`, async () => {
    const prepared = prepare(normalizedBefore('3x3', shape, formula), 'half')
    const names = new Set<string>()
    const results = await runCase(opened(), prepared, {
      selectKernel: (node, candidates) => {
        names.add(node.name)
        return candidates[0]
      },
    })
    assert.ok(
      [...names].some((each) => /^conv2dInputGrad.*\+sum$/.test(each)),
      [...names].join(' '),
    )
    compareOutputs(prepared, results, 'fused')
    if (formula !== 'relu') compareGradients(prepared, results)
    compareRuns(prepared, await runCase(opened(), prepared, { optimize: false }), results, 'fused')
  })
}

/** Gradients of a program by fused kernels and by those of its operators, which must agree. */
async function compareToUnfused<N extends string>(
  shapes: Record<string, readonly number[]>,
  gradients: readonly N[],
  body: (tensors: Record<string, Tensor>) => Record<N, Tensor>,
  check: (names: readonly string[]) => void,
): Promise<void> {
  const specs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, spec(shape)]))
  const random = new Random('unfused')
  const data = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [
      name,
      new Float32Array(shape.reduce((a, b) => a * b)).map(() => random.normal()),
    ]),
  )
  const results: Float32Array[][] = []
  for (const optimize of [true, false]) {
    const program = await compile(opened(), specs, body, { autocast: castCall, optimize })
    if (optimize) check(program.nodes.map(({ name }) => name).filter((name) => /InputGrad/.test(name)))
    program.run(data)
    results.push(await Promise.all(gradients.map((name) => program.read(name))))
    program.destroy()
  }
  const [fused = [], whole = []] = results
  for (const [k, values] of whole.entries()) {
    const scale = Math.max(...values.map(Math.abs))
    // Values of f16, and sums of 126 of them, which are taken in another order.
    const largest = Math.max(...values.map((value, i) => Math.abs(value - (fused[k]?.[i] ?? Number.NaN))))
    assert.ok(scale > 0.1 && largest <= 2 ** -9 * scale, `${gradients[k]}: ${largest} of ${scale}`)
  }
}

/** Batch norm of a map in training, whose running statistics do not matter. */
const normalized = (map: Tensor, weight: Tensor, bias: Tensor): Tensor =>
  batchNormTraining(map, { weight, bias, runningMean: bias.detach(), runningVar: weight.detach() }).y

matrixTest('the gradient of maps side by side, each part by itself, which is fused with what reads it', () =>
  compareToUnfused(
    { a: [2, 9, 7, 16], b: [2, 9, 7, 24], w: [3, 3, 40, 16], weight: [24], bias: [24] },
    ['da', 'db', 'dweight'],
    (t) => {
      const { a, b, w, weight, bias } = t as Record<'a' | 'b' | 'w' | 'weight' | 'bias', Tensor>
      const joined = concat([a, relu(normalized(b, weight, bias))], 3)
      const loss = sum(relu(conv2d(joined, w, { padding: 1 })))
      const [da, db, dweight] = grad(loss, [a, b, weight]) as [Tensor, Tensor, Tensor]
      return { da, db, dweight }
    },
    (names) => {
      assert.is(names.length, 2)
      assert.ok(
        names.some((name) => /sum$/.test(name)),
        names.join(),
      )
    },
  ),
)

matrixTest('the sums of both branches of a block, in one kernel', () =>
  compareToUnfused(
    { a: [2, 9, 7, 16], b: [2, 9, 7, 16], w: [3, 3, 16, 16], weights: [16], bias: [16] },
    ['da', 'db', 'dweights'],
    (t) => {
      const { a, b, w, weights, bias } = t as Record<'a' | 'b' | 'w' | 'weights' | 'bias', Tensor>
      const block = relu(add(normalized(a, weights, bias), normalized(b, relu(weights), bias)))
      const loss = sum(relu(conv2d(block, w, { padding: 1 })))
      const [da, db, dweights] = grad(loss, [a, b, weights]) as [Tensor, Tensor, Tensor]
      return { da, db, dweights }
    },
    (names) => {
      assert.is(names.length, 1)
      assert.match(names[0] ?? '', /sum\+.*sum$/)
    },
  ),
)

/** Mean and unbiased variance of each channel, in double precision. */
function momentsOf(map: ArrayLike<number>, channels: number): { mean: number[]; variance: number[] } {
  const rows = map.length / channels
  const over = (term: (row: number) => number) => {
    let sum = 0
    for (let row = 0; row < rows; row++) sum += term(row)
    return sum
  }
  const mean = Array.from({ length: channels }, (_, c) => over((row) => map[row * channels + c] ?? Number.NaN) / rows)
  const variance = mean.map(
    (average, c) => over((row) => ((map[row * channels + c] ?? Number.NaN) - average) ** 2) / (rows - 1),
  )
  return { mean, variance }
}

for (const [what, mean, corner] of [
  ['about 0', 0, 0],
  ['about 1000, with deviations of 1', 1000, 0],
  ['with a corner 300 higher', 0, 300],
] as const) {
  matrixTest(`statistics are those of the map as it is stored in f16: ${what}`, async () => {
    const channels = 16
    const shape = [2, 21, 19, channels]
    const vector = spec([channels])
    const specs = { x: spec(shape), w: spec([1, 1, channels, channels]), zeros: vector, ones: vector }
    const kernels: string[][] = []
    // Each kernel by itself: those that sum, and those that are followed by the kernels of the statistics.
    for (let k = 0, count = 1; k < count; k++) {
      const program = await compile(
        opened(),
        specs,
        ({ x, w, zeros, ones }) => {
          const map = conv2d(x, w)
          const channel: Record<'weight' | 'bias' | 'runningMean' | 'runningVar', Tensor> = {
            ...{ weight: ones, bias: zeros, runningMean: zeros, runningVar: zeros },
          }
          const { runningMean, runningVar } = batchNormTraining(map, channel, { momentum: 1 })
          return { map, runningMean, runningVar }
        },
        {
          autocast: castCall,
          selectKernel: (node, candidates) => {
            if (!/^conv2d/.test(node.name)) return candidates[0]
            count = candidates.length
            kernels.push(candidates[k]?.dispatches.map(({ label }) => label) ?? [])
            return candidates[k]
          },
        },
      )
      const random = new Random(what)
      const x = new Float32Array(specs.x.shape.reduce((a, b) => a * b)).map(
        (_, i) => random.normal() + mean + (i < channels ? corner : 0),
      )
      // Products that f16 rounds: a driver is known that would leave the rounding out.
      const w = new Float32Array(channels ** 2).map((_, i) => random.normal() / 8 + (i % (channels + 1) === 0 ? 1 : 0))
      program.run({ x, w, zeros: new Float32Array(channels), ones: new Float32Array(channels).fill(1) })
      const expected = momentsOf(await program.read('map'), channels)
      const [means, variances] = [await program.read('runningMean'), await program.read('runningVar')]
      program.destroy()
      for (let c = 0; c < channels; c++) {
        const [average = 0, variance = 0] = [expected.mean[c], expected.variance[c]]
        const deviation = Math.sqrt(variance)
        // Of the mean half a unit in its last place, and what sums of rows round.
        const allowed = 2 ** -24 * Math.abs(average) + 2 ** -21 * deviation
        assert.ok(
          Math.abs((means[c] ?? Number.NaN) - average) <= allowed,
          `kernel ${k}: mean ${means[c]}, not ${average}; deviation ${deviation}`,
        )
        assert.ok(
          Math.abs((variances[c] ?? Number.NaN) / variance - 1) <= 2 ** -20,
          `kernel ${k}: variance ${variances[c]}, not ${variance}`,
        )
      }
    }
    assert.equal(kernels[0], ['conv2d', 'batchNorm statistics finish'])
    assert.ok(kernels.length > 2)
    assert.ok(kernels.at(-1)?.includes('batchNorm statistics'))
  })
}

matrixTest('the tuner finds the same results by all kernels', async () => {
  const vector = spec([16])
  const specs = {
    x: spec([2, 9, 9, 16]),
    w: spec([1, 1, 16, 16]),
    next: spec([3, 3, 16, 16]),
    zeros: vector,
    ones: vector,
  }
  const program = await compile(
    opened(),
    specs,
    ({ x, w, next, zeros, ones }) => {
      const parameters = { weight: ones, bias: zeros, runningMean: zeros, runningVar: ones }
      const { y, runningMean, runningVar } = batchNormTraining(conv2d(x, w), parameters)
      const [dx] = grad(sum(conv2d(relu(y), next, { padding: 1 })), [x])
      return { dx: dx as Tensor, runningMean, runningVar }
    },
    { autocast: castCall },
  )
  await assertKernelsAgree(opened(), program, /^conv2d.*(Statistics|sum)$/, 2)
})

test.after(() => device?.destroy())
test.run()
