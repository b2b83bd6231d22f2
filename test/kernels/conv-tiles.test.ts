// Kernels that the rules for GPUs offer, computed on whatever adapter there is.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { candidatesOf, type SelectKernel } from '#dist/engine/kernel-selection.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { cases } from '../../cases/index.js'
import { compareOutputs, compareRuns, prepare, runCase } from '../support/check.js'
import { skipUnless } from '../support/skip.js'
import { withFormula } from '../support/with-formula.js'

const available = (await findAdapters()).length > 0
const deviceTest = skipUnless(available, 'there is no WebGPU adapter')
const device = available ? await open() : undefined

/** Odd sizes, and sizes that reach every tile and slices of the sums. */
const names = [
  '1x1, many pixels',
  '1x1, long sum',
  '3x3, several tiles, long sum',
  '3x3, stride 2, odd',
  '3x3, stride 2, even',
  '3x3, dilation 6, partly outside',
  '3x3, dilation 18 beyond the map',
  '33x515x17',
  'transposed a, long sum',
  'transposed b',
]
const rows = [...cases.filter(({ name }) => names.includes(name)), withFormula(6, 515)]
const tried = new Set<string>()

for (const row of rows) {
  deviceTest(`${row.op}: ${row.name}`, async () => {
    if (!device) throw new Error('unreachable: the test is skipped without a device')
    const traits = { ...device.traits, software: false, subgroupSize: 0 }
    const prepared = prepare(row)
    const usual = await runCase(device, prepared)
    let kernels = 1
    for (let k = 0; k < kernels; k++) {
      const selectKernel: SelectKernel = async (node, own) => {
        if (!/^(conv2d|matmul)/.test(node.op?.name ?? '')) return own[0]
        const candidates = await candidatesOf(node, traits)
        kernels = Math.max(kernels, candidates.length)
        const chosen = candidates[Math.min(k, candidates.length - 1)]
        tried.add(`${node.name}, ${chosen?.name}, ${chosen?.dispatches.length}`)
        return chosen
      }
      const results = await runCase(device, prepared, { selectKernel })
      compareOutputs(prepared, results, `kernel ${k} for GPUs`)
      compareRuns(prepared, usual, results, `with kernel ${k} for GPUs`)
    }
  })
}

deviceTest('every tile was tried, and slices of the sums', () => {
  const wanted = (op: string, columns: readonly string[]) => columns.map((tile) => `${op}, workgroup ${tile}`)
  const tiles = ['32x32', '64x32', '32x64', '64x64', '128x64', '128x128']
  for (const kernel of [...wanted('conv2d', tiles), ...wanted('conv2dWeightGrad', tiles)]) {
    assert.ok(
      [...tried].some((name) => name.startsWith(kernel)),
      `${kernel} was not tried: ${[...tried].sort().join('; ')}`,
    )
  }
  for (const op of ['conv2d', 'conv2dInputGrad', 'conv2dWeightGrad']) {
    assert.ok(
      [...tried].some((name) => name.startsWith(`${op},`) && name.endsWith(', 2')),
      `${op} was not sliced`,
    )
  }
  assert.ok(
    [...tried].some((name) => name.startsWith('matmul+') && name.endsWith(', 2')),
    `no sliced sum passed through a formula: ${[...tried].sort().join('; ')}`,
  )
})

test.after(() => device?.destroy())

test.run()
