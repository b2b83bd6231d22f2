// Kernels for matrix units of shapes that no adapter here has: as they are generated for such an adapter, with only the
// units' own instructions replaced by loops over the same tiles in workgroup memory.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { MatrixShape } from '#dist/engine/adapter.js'
import type { Device } from '#dist/engine/device.js'
import type { Candidate } from '#dist/engine/kernel.js'
import { candidatesOf, type SelectKernel } from '#dist/engine/kernel-selection.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { cases } from '../../cases/index.js'
import { compareGradients, compareOutputs, prepare, runCase } from '../support/check.js'
import { layers, normalizedBefore, normalizedConvolution } from '../support/normalized-convolution.js'
import { skipUnless } from '../support/skip.js'
import { withFormula } from '../support/with-formula.js'

const device = (await findAdapters()).length > 0 ? await open() : undefined
const able = device?.traits.half && device.gpu.features.has('subgroups')
const deviceTest = skipUnless(able === true, 'there is no adapter with shader-f16 and subgroups')

/**
 * Each lane holds every so manyth sum of a result, and a factor is the place in workgroup memory that it is loaded from.
 * Where a driver may refuse a place, since rows do not begin at multiples of 16 bytes, the sums come out absurd.
 */
const units = `
struct Factor { start: u32, stride: u32, by_column: bool }
const EACH = M * N / MIN_LANES;
var<private> sums: array<f32, WM * WN * EACH>;
var<private> lane: u32;
var<private> width: u32;
// Bounds that the compiler does not know, so that it does not unroll loops.
var<private> count: u32;
var<private> terms: u32;
fn place(p: Factor, row: u32, column: u32) -> u32 {
  return 4 * p.start + select(4 * p.stride * row + column, 4 * p.stride * column + row, p.by_column);
}
fn multiply_accumulate(a: Factor, b: Factor, result: u32) {
  for (var e = lane; e < count; e += width) {
    var sum = sums[result * EACH + e / width];
    for (var k = 0u; k < terms; k++) {
      let i = place(a, e / N, k);
      let j = place(b, k, e % N);
      sum += f32(tile_a[i / 4][i % 4]) * f32(tile_b[j / 4][j % 4]);
    }
    let refused = ((a.start | a.stride | b.start | b.stride) & 1) != 0;
    sums[result * EACH + e / width] = select(sum, 1e30, refused);
  }
}
fn store_sums(start: u32, result: u32, stride: u32) {
  for (var e = lane; e < count; e += width) {
    let refused = ((start | stride) & 1) != 0;
    let at = 4 * start + e / N * 4 * stride + e % N;
    results[at / 4][at % 4] = select(sums[result * EACH + e / width], 1e30, refused);
  }
}
`

/** The instructions of matrix units, and what stands for them. */
const instructions: readonly (readonly [RegExp, string])[] = [
  [/^enable chromium_experimental_subgroup_matrix;$/gm, ''],
  [/^diagnostic\(off, chromium.subgroup_matrix_uniformity\);$/gm, ''],
  [
    /(@builtin\(subgroup_size\) lanes: u32,\n\) \{)/g,
    '$1\n  lane = id % lanes; width = lanes; count = M * N * min(s.n, 1); terms = K * min(s.n, 1);',
  ],
  [/var acc: array<subgroup_matrix_result<f32, N, M>, WM \* WN>;/g, ''],
  [/subgroupMatrixLoad<LEFT, row_major>\(&tile_a, ([^,]+), ([^)]+)\)/g, 'Factor($1, $2, false)'],
  [/subgroupMatrixLoad<LEFT, col_major>\(&tile_a, ([^,]+), ([^)]+)\)/g, 'Factor($1, $2, true)'],
  [/subgroupMatrixLoad<RIGHT, row_major>\(&tile_b, ([^,]+), ([^)]+)\)/g, 'Factor($1, $2, false)'],
  [/subgroupMatrixLoad<RIGHT, col_major>\(&tile_b, ([^,]+), ([^)]+)\)/g, 'Factor($1, $2, true)'],
  [/\b(LEFT|RIGHT)\b/g, 'Factor'],
  [/acc\[([^\]]+)\] = subgroupMatrixMultiplyAccumulate\((.+), acc\[\1\]\)/g, 'multiply_accumulate($2, $1)'],
  [/subgroupMatrixStore<row_major>\(&results, (.+), acc\[([^\]]+)\], PITCH \/ 4\)/g, 'store_sums($1, $2, PITCH / 4)'],
]

function imitated(source: string): string {
  const named = source
    .replaceAll('subgroup_matrix_left<E, K, M>', 'LEFT')
    .replaceAll('subgroup_matrix_right<E, N, K>', 'RIGHT')
  const text = instructions.reduce((before, [pattern, replacement]) => before.replace(pattern, replacement), named)
  assert.not.match(text, /subgroup_?matrix/i)
  return `${text}${units}const MIN_LANES = ${device?.gpu.adapterInfo.subgroupMinSize};\n`
}

const imitation = ({ dispatches, ...candidate }: Candidate): Candidate => ({
  ...candidate,
  dispatches: dispatches.map((dispatch) =>
    /subgroup_matrix/.test(dispatch.source) ? { ...dispatch, source: imitated(dispatch.source) } : dispatch,
  ),
})

/** Odd sizes, a phase for each place of a stride, and sums in slices. */
const names = ['3x3, several tiles, long sum', '3x3, stride 2, odd', '33x515x17']
const rows = [...cases.filter(({ name }) => names.includes(name)), withFormula(70, 515, 24)]
const prepared = rows.map((row) => prepare(row, 'half'))
/** Units for f32 also compute in single precision. */
const single = rows.filter(({ name }) => /several tiles|bias/.test(name)).map((row) => prepare(row))

/** One whose result is summed as it is stored. */
const summed = Object.entries(layers)
  .slice(0, 1)
  .map(([name, layer]) => prepare(normalizedConvolution(name, layer, 'residual'), 'half'))

/** One that computes what it reads as it loads it, forward and in the weight gradient. */
const loaded = [prepare(normalizedBefore('3x3', [2, 9, 7, 40], ''), 'half')]

/** Units of NVIDIA (and AMD), and of Intel, and others; `all` tiles, or the one best by rule. */
const adapters: readonly {
  readonly shape: MatrixShape
  readonly lanes: number
  readonly all?: boolean
  readonly factors?: 'f16' | 'f32'
}[] = [
  { shape: { M: 16, N: 16, K: 16 }, lanes: 32, all: true },
  { shape: { M: 16, N: 8, K: 16 }, lanes: 32 },
  { shape: { M: 8, N: 16, K: 16 }, lanes: 32 },
  { shape: { M: 16, N: 16, K: 32 }, lanes: 16 },
  { shape: { M: 32, N: 32, K: 16 }, lanes: 32 },
  { shape: { M: 16, N: 16, K: 16 }, lanes: 128 },
  // Of Apple.
  { shape: { M: 8, N: 8, K: 8 }, lanes: 32, factors: 'f32' },
]

for (const { shape, lanes, all, factors = 'f16' } of adapters) {
  const { M, N, K } = shape
  deviceTest(`matrices of ${M}x${N}x${K} of ${factors}, ${lanes} lanes`, async () => {
    if (!device) throw new Error('unreachable: the test is skipped without a device')
    const matrixUnits = { factors, shapes: [shape], lanes }
    const traits = { ...device.traits, software: false, subgroupSize: 0, matrixUnits }
    const tried = new Set<string>()
    const adapter: Device = Object.create(device, { traits: { value: traits } })
    for (const each of [...prepared, ...summed, ...loaded, ...(factors === 'f32' ? single : [])]) {
      let kernels = 1
      for (let k = 0; k < kernels; k++) {
        const selectKernel: SelectKernel = async (node, own) => {
          if (!/^(conv2d|matmul)/.test(node.op?.name ?? '')) return own[0]
          const candidates = (await candidatesOf(node, traits)).filter(({ usesMatrixUnits }) => usesMatrixUnits)
          const chosen = candidates[Math.min(k, candidates.length - 1)]
          if (!chosen) throw new Error(`${node.name} has no kernel for these units`)
          // A driver compiles each for a second.
          if (all && /several tiles|bias/.test(each.row.name)) kernels = Math.max(kernels, candidates.length)
          tried.add(`${node.name}, ${chosen.name}, ${chosen.dispatches.length}`)
          return imitation(chosen)
        }
        const results = await runCase(adapter, each, { selectKernel })
        compareOutputs(each, results, `kernel ${k}`)
        if (k === 0) compareGradients(each, results)
      }
    }
    const some = (pattern: string) =>
      assert.ok(
        [...tried].some((name) => new RegExp(pattern).test(name)),
        `${pattern}: ${[...tried].join('; ')}`,
      )
    for (const op of ['conv2d', 'conv2dInputGrad', 'conv2dWeightGrad', 'matmul']) some(`^${op}\\b.* ${M}x${N}x${K},`)
    some(', 2$')
    some('^conv2d\\+batchNormStatistics')
    for (const op of ['conv2d', 'conv2dWeightGrad']) some(`^batchNorm\\+${op}\\b.* ${M}x${N}x${K},`)
    for (const tile of all ? ['32x32', '32x64', '64x32', '64x64', '128x64'] : []) some(` ${tile} by`)
  })
}

test.after(() => device?.destroy())

test.run()
