// Kernels for matrix units, where an adapter has them: every convolution and product of the table in half precision, with
// each shape of the units and each tile.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { MatrixShape } from '#dist/engine/adapter.js'
import { candidatesOf, type SelectKernel } from '#dist/engine/kernel-selection.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { type Data, spec } from '#dist/engine/shape.js'
import { normalizedFormula } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import type { ConvGeometry } from '#dist/kernels/conv2d-geometry.js'
import { convCandidates, weightGradCandidates } from '#dist/kernels/conv2d-kernels.js'
import { loaderOf } from '#dist/kernels/prologue.js'
import { body, type Case, normal } from '../../cases/case.js'
import { cases } from '../../cases/index.js'
import { compareGradients, compareOutputs, compareRuns, type Prepared, prepare, runCase } from '../support/check.js'
import { skipUnless } from '../support/skip.js'
import { withFormula } from '../support/with-formula.js'

const device = (await findAdapters()).length > 0 ? await open() : undefined
const units = device?.traits.matrixUnits
const matrixTest = skipUnless(units !== undefined, 'there is no adapter with matrix units for f16')

/** Ones that are too far apart for the units to add them up among themselves: a sum in f16 ends at 2048. */
const apart = 32
const ones = 24_000
const manyOnes: Case = {
  ...body({
    inputs: {
      x: { spec: normal([1, 1, 1, ones * apart]).spec, draw: () => everyNth(ones * apart) },
      w: { spec: normal([1, 1, ones * apart, 1]).spec, draw: () => everyNth(ones * apart) },
    },
    run: (t) => ({ out: conv2d(t.x, t.w) }),
    reference: () => ({ out: { shape: [1, 1, 1, 1], data: Float64Array.of(ones) } }),
    exact: true,
  }),
  op: 'conv2d',
  name: 'sums of many ones, exactly',
}
const everyNth = (count: number) => new Float32Array(count).map((_, i) => (i % apart === 0 ? 1 : 0))

const rows = [
  ...cases.filter(({ op, name }) => /^(conv2d|matmul)/.test(op) && !/groups|depthwise/.test(name)),
  withFormula(6, 33),
  withFormula(6, 515),
  withFormula(70, 33, 24),
  manyOnes,
]

/** Rows that every kernel computes; the others, the first one, since a driver compiles each for seconds. */
const withEveryKernel = [
  '1x1, many pixels',
  '3x3, several tiles, long sum',
  '33x515x17',
  'with bias and relu, sums of 515',
]

/** Operators and kernels that were tried, and their dispatches. */
const tried = new Set<string>()

/** Chooses the k-th kernel on matrix units, or the last one; tells how many there are. */
function matrixKernel(k: number): { selectKernel: SelectKernel; count: () => number } {
  let count = 0
  const selectKernel: SelectKernel = async (node, own) => {
    if (!device || !/^(conv2d|matmul)/.test(node.op?.name ?? '')) return own[0]
    const candidates = (await candidatesOf(node, device.traits)).filter(({ usesMatrixUnits }) => usesMatrixUnits)
    const chosen = candidates[Math.min(k, candidates.length - 1)]
    if (!chosen) throw new Error(`${node.name} has no kernel for matrix units`)
    count = Math.max(count, candidates.length)
    tried.add(`${node.name}, ${chosen.name}, ${chosen.dispatches.length}`)
    return chosen
  }
  return { selectKernel, count: () => count }
}

/** Weight gradients are stored as they were added up, in f32. */
const storedWide = (prepared: Prepared): Prepared =>
  prepared.row.op === 'conv2dWeightGrad' ? { ...prepared, precision: 'single' } : prepared

for (const row of rows) {
  matrixTest(`${row.op}: ${row.name}`, async () => {
    if (!device) throw new Error('unreachable: the test is skipped without a device')
    const prepared = prepare(row, 'half')
    let first: Map<string, Data> | undefined
    for (let k = 0, kernels = 1; k < kernels; k++) {
      const { selectKernel, count } = matrixKernel(k)
      // Without fusion, so that each operator stores its own result.
      const results = await runCase(device, prepared, { selectKernel, optimize: false })
      if (withEveryKernel.includes(row.name)) kernels = count()
      compareOutputs(storedWide(prepared), results, `kernel ${k}`)
      first ??= results
      compareRuns(prepared, first, results, `with kernel ${k}`)
    }
    if (first) compareGradients(prepared, first)
    for (let k = 0, kernels = 1; k < kernels; k++) {
      const { selectKernel, count } = matrixKernel(k)
      const fused = await runCase(device, prepared, { selectKernel })
      // Whole sums pass through a formula, and sums of slices.
      if (row.name === 'with bias and relu, sums of 515') kernels = count()
      compareOutputs(prepared, fused, `fused, kernel ${k}`)
      compareRuns(prepared, fused, first ?? fused, 'without fusion')
    }
  })
}

matrixTest('every shape of the units was tried, every tile, and slices of the sums', () => {
  const all = [...tried].sort()
  const some = (pattern: RegExp) =>
    assert.ok(
      all.some((name) => pattern.test(name)),
      `${pattern}: ${all.join('; ')}`,
    )
  for (const { M, N, K } of units?.shapes ?? []) some(new RegExp(`matrix ${M}x${N}x${K},`))
  for (const op of ['conv2d', 'conv2dInputGrad', 'conv2dWeightGrad', 'matmul']) {
    for (const tile of ['32x32', '32x64', '64x32', '64x64']) some(new RegExp(`^${op},.* ${tile} by`))
    some(new RegExp(`^${op},.* 2$`))
  }
  for (const tile of ['128x64', '128x128']) some(new RegExp(`^conv2d,.* ${tile} by`))
  some(/^matmul\+.*, 1$/)
  some(/^matmul\+.*, 2$/)
})

/** Units of NVIDIA, AMD and Intel, and others. Whether the adapter has them is asked when a pipeline is made. */
const others: readonly {
  shape: MatrixShape
  lanes: number
  /** Of which kernels may ask for one. */
  sizes?: readonly number[]
  factors?: 'f16' | 'f32'
}[] = [
  { shape: { M: 16, N: 16, K: 16 }, lanes: 32 },
  { shape: { M: 16, N: 16, K: 16 }, lanes: 64, sizes: [32, 64] },
  { shape: { M: 8, N: 16, K: 16 }, lanes: 32, sizes: [8, 16, 32] },
  { shape: { M: 8, N: 8, K: 8 }, lanes: 32, factors: 'f32' },
  { shape: { M: 16, N: 8, K: 16 }, lanes: 32 },
  { shape: { M: 16, N: 8, K: 8 }, lanes: 32 },
  { shape: { M: 16, N: 16, K: 16 }, lanes: 64 },
  { shape: { M: 8, N: 16, K: 16 }, lanes: 32 },
  { shape: { M: 16, N: 16, K: 32 }, lanes: 32 },
  { shape: { M: 32, N: 32, K: 16 }, lanes: 32 },
]

for (const { shape, lanes, sizes: lanesToAsk = [lanes], factors = 'f16' } of others) {
  const { M, N, K } = shape
  matrixTest(
    `shaders for matrices of ${M}x${N}x${K} of ${factors}, ${lanesToAsk.join(', ')} lanes, are valid`,
    async () => {
      if (!device) throw new Error('unreachable: the test is skipped without a device')
      const limits = { maxWorkgroupStorage: 49152, subgroupSizes: lanesToAsk }
      const matrixUnits = { factors, shapes: [shape], lanes }
      const traits = { ...device.traits, ...limits, software: false, matrixUnits }
      for (const channels of [256, 257]) {
        const sizes = {
          n: 8,
          xHeight: 81,
          xWidth: 81,
          xChannels: channels,
          yHeight: 81,
          yWidth: 81,
          yChannels: channels,
        }
        const g: ConvGeometry = { ...sizes, kh: 3, kw: 3, stride: 1, padding: 1, dilation: 1, groups: 1 }
        const map = spec([8, 81, 81, channels], 'f16')
        const w = spec([3, 3, channels, channels], 'f16')
        const forward = await convCandidates('forward', g, { factors: [map, w], result: map }, traits)
        // One that needs no units, behind all others.
        assert.is(
          forward.findIndex(({ usesMatrixUnits }) => !usesMatrixUnits),
          forward.length - 1,
        )
        const vector = spec([channels])
        const formula = { expr: normalizedFormula, first: 2 }
        const loader = loaderOf(formula, [map, w, vector, vector, vector, vector], traits)
        const loading =
          channels % 8 === 0
            ? [
                ...(await convCandidates(
                  'forward',
                  g,
                  { factors: [map, w], result: map },
                  traits,
                  undefined,
                  undefined,
                  loader,
                )),
                ...(await weightGradCandidates(
                  g,
                  { factors: [map, map], result: spec(w.shape) },
                  traits,
                  undefined,
                  loader,
                )),
              ]
            : []
        const candidates = [
          ...forward,
          ...loading,
          ...(await convCandidates('inputGrad', g, { factors: [map, w], result: map }, traits)),
          ...(await weightGradCandidates(g, { factors: [map, map], result: spec(w.shape) }, traits)),
        ].filter(({ usesMatrixUnits }) => usesMatrixUnits)
        assert.ok(candidates.length >= 3)
        for (const { name, dispatches } of candidates) {
          const [product] = dispatches
          const { messages } = await device.gpu.createShaderModule({ code: product?.source ?? '' }).getCompilationInfo()
          assert.equal(
            messages.map(({ message }) => message),
            [],
            `${product?.label}, ${name}`,
          )
          const [, subgroups, own = lanes] = /by (\d)(?: of (\d+) lanes)?/.exec(name) ?? []
          assert.ok(Number(subgroups) * Number(own) <= device.gpu.limits.maxComputeInvocationsPerWorkgroup)
          if (lanesToAsk.length > 1) assert.match(product?.source ?? '', new RegExp(`@subgroup_size\\(${own}\\)`))
        }
      }
    },
  )
}

test.after(() => device?.destroy())

test.run()
