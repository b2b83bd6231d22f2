// Products on matrix units that pass their first factor through a formula as they load it, under a driver that imitates such
// units, and which here does not say that it runs on the CPU.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SelectKernel } from '#dist/engine/kernel-selection.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { type Data, spec } from '#dist/engine/shape.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { cast, castCall, mul, relu, sum } from '#dist/kernels/pointwise.js'
import {
  compareGradients,
  compareOutputs,
  compareRuns,
  largest,
  largestDifference,
  prepare,
  runCase,
} from '../support/check.js'
import { assertKernelsAgree } from '../support/kernels-agree.js'
import { normalizedBefore, type Reading } from '../support/normalized-convolution.js'
import { skipUnless } from '../support/skip.js'

await import(new URL('../support/variant.js?gpu', import.meta.url).href)
const device = (await findAdapters()).length > 0 ? await open() : undefined
const matrixTest = skipUnless(device?.traits.matrixUnits !== undefined, 'there is no adapter with matrix units for f16')
const opened = () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  return device
}

const layers: Readonly<
  Record<string, Reading & { readonly map: readonly [number, number, number, number]; readonly formula: '' | 'relu' }>
> = {
  '1x1, a part of a step': { map: [2, 9, 7, 40], formula: '', side: 1, columns: 24, options: {} },
  '3x3, padding': { map: [2, 9, 7, 16], formula: '', side: 3, columns: 20, options: { padding: 1 } },
  'dilation 3': { map: [1, 11, 9, 8], formula: '', side: 3, columns: 8, options: { padding: 3, dilation: 3 } },
  'stride 2': { map: [2, 9, 8, 24], formula: 'relu', side: 3, columns: 40, options: { stride: 2, padding: 1 } },
  'sums in slices': { map: [2, 3, 3, 512], formula: 'relu', side: 1, columns: 16, options: {} },
  'many pixels': { map: [2, 27, 25, 8], formula: 'relu', side: 1, columns: 16, options: {} },
}

/** The k-th kernel of the products that load their factor through a formula, and the best one of all others. */
function chosen(k: number) {
  const names = new Set<string>()
  let count = 0
  const selectKernel: SelectKernel = (node, candidates) => {
    names.add(node.name)
    if (!/^batchNorm.*\+conv2d/.test(node.name)) return candidates[0]
    count = Math.max(count, candidates.length)
    return candidates[Math.min(k, candidates.length - 1)]
  }
  return { names, selectKernel, count: () => count }
}

for (const [name, { map, formula, ...reading }] of Object.entries(layers)) {
  matrixTest(`normalised as it is loaded: ${name}${formula && `, ${formula}`}`, async () => {
    const prepared = prepare(normalizedBefore(name, map, formula, reading), 'half')
    let first: Map<string, Data> | undefined
    // A driver compiles each kernel for a second: of most layers the best one, and the last one, which stores the factor.
    for (const k of name === 'stride 2' ? [0, 1, 2, 3] : [0, Number.POSITIVE_INFINITY]) {
      const { names, selectKernel, count } = chosen(k)
      const results = await runCase(opened(), prepared, { selectKernel })
      for (const op of ['conv2d', 'conv2dWeightGrad'])
        assert.ok(
          [...names].some((each) => new RegExp(`^batchNorm.*\\+${op}(\\+|$)`).test(each)),
          [...names].join(' '),
        )
      assert.ok(count() > 1)
      compareOutputs(prepared, results, `kernel ${k}`)
      first ??= results
      compareRuns(prepared, first, results, `with kernel ${k}`)
    }
    if (!first) return
    // Half precision moves values across the corner of relu.
    if (formula !== 'relu') compareGradients(prepared, first)
    compareRuns(prepared, await runCase(opened(), prepared, { optimize: false }), first, 'fused')
  })
}

const vector = spec([16])
const specs = {
  x: spec([2, 9, 9, 16]),
  w: spec([1, 1, 16, 16]),
  next: spec([3, 3, 16, 24]),
  weight: vector,
  bias: vector,
  zeros: vector,
  ones: vector,
}

/** A program of two convolutions with batch norm and relu between them. */
const between = (also: boolean, selectKernel?: SelectKernel) =>
  compile(
    opened(),
    specs,
    ({ x, w, next, weight, bias, zeros, ones }) => {
      const parameters = { weight, bias, runningMean: zeros, runningVar: ones }
      const { y } = batchNormTraining(conv2d(x, w), parameters)
      const read = relu(y)
      const out = conv2d(read, next, { padding: 1 })
      const [dw] = grad(sum(mul(out, out)), [next])
      if (!dw) throw new Error('unreachable: the weights have a gradient')
      // Another reader that can load nothing through a formula.
      return {
        out,
        dw,
        ...(also ? { also: conv2d(read, cast(weight, 'f16').reshape(1, 1, 1, 16), { groups: 16 }) } : {}),
      }
    },
    { autocast: castCall, ...(selectKernel ? { selectKernel } : {}) },
  )

matrixTest('the bits are those of the stored value', async () => {
  const results: Data[][] = []
  for (const also of [false, true]) {
    const program = await between(also)
    const names = program.nodes.map(({ name }) => name)
    assert.is(
      names.some((name) => /^batchNorm\+relu\+conv2d/.test(name)),
      !also,
      names.join(),
    )
    const values = (count: number, from: number) => new Float32Array(count).map((_, i) => Math.sin(from + i * i))
    program.run({
      x: values(2 * 81 * 16, 1),
      w: values(256, 2),
      next: values(9 * 16 * 24, 3),
      weight: values(16, 4),
      bias: values(16, 5),
      zeros: new Float32Array(16),
      ones: new Float32Array(16).fill(1),
    })
    results.push(await program.readAll(['out', 'dw']))
    program.destroy()
  }
  const [loaded = [], stored = []] = results
  for (const [k, name] of ['out', 'dw'].entries()) {
    assert.ok(largest(stored[k] ?? []) > 1)
    assert.is(largestDifference(loaded[k] ?? [], stored[k] ?? []).error, 0, name)
  }
})

matrixTest('the tuner finds the same results by all kernels', async () => {
  const program = await between(false)
  await assertKernelsAgree(opened(), program, /^batchNorm\+relu\+conv2d/, 2)
})

test.after(() => device?.destroy())
test.run()
