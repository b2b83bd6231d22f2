// Half precision: every row of the table of operators again with inputs, results and gradients in f16, and the pass that
// decides which values are.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assign, read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import type { SelectKernel } from '#dist/engine/kernel-selection.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { normalizeImage } from '#dist/kernels/images.js'
import { crossEntropyMean } from '#dist/kernels/loss.js'
import { add, castCall, fill, relu, scale } from '#dist/kernels/pointwise.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { sgd } from '#dist/kernels/update.js'
import { type Case, Random } from '../../cases/case.js'
import { cases } from '../../cases/index.js'
import { compareGradients, compareOutputs, fitsHalf, prepare, runCase } from '../support/check.js'
import { skipUnless } from '../support/skip.js'

const available = (await findAdapters()).length > 0
const device = available ? await open() : undefined
const halfTest = skipUnless(device?.traits.half === true, 'there is no adapter with shader-f16')

/**
 * Rows that load and store elements as others of their operator do; each kernel costs a fraction of a second to compile.
 * The two largest shapes of convolutions also go: the CPU driver takes half a second for a million products in f16.
 */
const alike: Readonly<Record<string, RegExp>> = {
  conv2d:
    /^(?!1x1|.*(tiles|odd|12 channels|groups|depthwise$))|several tiles|512 channels|one pixel|1x1, (long|stride 3)/,
  matmul: /^1x|^20x|^65x|^128x|long sum/,
  attention: /^(one query|several groups|five|heads of 64|a scale)/,
  batchedMatmul: /^(?!two|transposed b)/,
  batchNormTraining: /two values|one channel|constant|spread/,
  ohemCrossEntropy: /easy|all|more than|minKept|first|ties/,
  confidenceWeightedLoss: /^pixel(ratio|avg).*(threshold|many)/,
  add: /^(?!full|channel)/,
  sub: /^(?!full|channel)/,
  div: /^(?!full|channel)/,
}
const isChosen = ({ op, name }: Case) => !alike[op]?.test(name)

const rows = cases.filter((row) => isChosen(row) && fitsHalf(row))

for (const row of rows) {
  halfTest(`${row.op} in half precision: ${row.name}`, async () => {
    if (!device) throw new Error('unreachable: the test is skipped without a device')
    const prepared = prepare(row, 'half')
    let kernels = 1
    // Without fusion, so that each operator stores its own result.
    for (let k = 0; k < kernels; k++) {
      const selectKernel: SelectKernel = (_, candidates) => {
        kernels = Math.max(kernels, candidates.length)
        return candidates[Math.min(k, candidates.length - 1)]
      }
      const results = await runCase(device, prepared, { selectKernel, optimize: false })
      compareOutputs(prepared, results, `kernel ${k}`)
      compareGradients(prepared, results)
    }
    const fused = await runCase(device, prepared)
    compareOutputs(prepared, fused, 'fused')
    compareGradients(prepared, fused)
  })
}

halfTest('activations and their gradients are f16; statistics, losses, sums and parameters f32', async () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  const store = new Store(device, 'half')
  const shapes = { first: [3, 3, 3, 8], second: [1, 1, 8, 5], weight: [8], bias: [8], mean: [8], variance: [8] }
  for (const [name, shape] of Object.entries(shapes)) store.declare(name, spec(shape))
  const value = (name: keyof typeof shapes) => read(store.get(name))
  const body = ({ image, target, rate }: { image: Tensor; target: Tensor; rate: Tensor }) => {
    const x = conv2d(normalizeImage(image), value('first'), { padding: 1 })
    const statistics = { runningMean: value('mean'), runningVar: value('variance') }
    const { y } = batchNormTraining(x, { weight: value('weight'), bias: value('bias'), ...statistics })
    // The second convolution runs twice, as a network does on labeled and unlabeled images.
    const logits = [y, scale(y, 2)].map((map) => conv2d(relu(map), value('second')))
    const loss = logits.map((map) => crossEntropyMean(map, target)).reduce(add)
    const names = ['first', 'second', 'weight', 'bias'] as const
    const gradients = grad(loss, names.map(value))
    for (const [i, name] of names.entries()) {
      const gradient = gradients[i] ?? loss
      const state = { parameter: value(name), momentumBuffer: fill(shapes[name], 0), gradient, learningRate: rate }
      assign(store.get(name), sgd(state).parameter)
    }
    return { loss }
  }
  const inputs = { image: spec([2, 5, 5, 3], 'u8'), target: spec([2, 5, 5], 'u8'), rate: spec([]) }
  const program = await compile(device, inputs, body, { optimize: false, autocast: castCall })
  const typesOf = new Map<string, Set<string>>()
  for (const { op, name, outputs } of program.nodes) {
    const types = outputs.map(({ dtype }) => dtype).join(' ')
    if (op) typesOf.set(name, (typesOf.get(name) ?? new Set()).add(types))
  }
  const types = Object.fromEntries([...typesOf].map(([name, set]) => [name, [...set].join(', ')]))
  const half = ['normalizeImage', 'conv2d', 'batchNorm', 'relu', 'crossEntropyGrad', 'conv2dInputGrad', 'batchNormGrad']
  for (const name of [...half, 'reluGrad', 'cast']) assert.is(types[name], 'f16', name)
  for (const name of ['conv2dWeightGrad', 'counted']) assert.is(types[name], 'f32', name)
  for (const name of ['batchNormStatistics', 'crossEntropy']) assert.is(types[name], 'f32 f32 f32 f32', name)
  assert.is(types.sgd, 'f32 f32')
  assert.is(program.nodes.filter(({ name }) => name === 'cast').length, 2, 'one working copy of each weight')
  program.destroy()
  store.destroy()
})

halfTest('equal calls whose results are stored as different types are two calls', async () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  const inputs = { x: spec([1, 5, 5, 4]), w: spec([1, 1, 4, 4]) }
  const body = ({ x, w }: { x: Tensor; w: Tensor }) => {
    const c = conv2d(x, w)
    return { delivered: resizeBilinear(c, [9, 9]), z: conv2d(resizeBilinear(c, [9, 9]), w) }
  }
  const random = new Random('delivered')
  const data = {
    x: new Float32Array(100).map(() => random.normal()),
    w: new Float32Array(16).map(() => random.normal()),
  }
  const results: Float32Array[][] = []
  for (const optimize of [true, false]) {
    const program = await compile(device, inputs, body, { optimize, autocast: castCall })
    const types = program.nodes.flatMap(({ name, outputs }) => (name === 'resizeBilinear' ? outputs : []))
    assert.equal(types.map(({ dtype }) => dtype).sort(), ['f16', 'f32'])
    program.run(data)
    results.push([await program.read('delivered'), await program.read('z')])
    program.destroy()
  }
  assert.equal(results[0], results[1])
  assert.ok(results[0]?.every((values) => values.every((value) => value !== 0)))
})

test.after(() => device?.destroy())

test.run()
