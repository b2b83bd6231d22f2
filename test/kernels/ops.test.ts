// Every row of the table of operators: values against the reference, gradients against its finite differences, every
// kernel that could be chosen, and the program without optimisation.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SelectKernel } from '#dist/engine/kernel-selection.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { canMirror } from '#dist/kernels/conv2d-panels.js'
import { cpuLanes } from '#dist/kernels/conv2d-tiles.js'
import { cases } from '../../cases/index.js'
import { compareGradients, compareOutputs, compareRuns, prepare, runCase } from '../support/check.js'
import { skipUnless } from '../support/skip.js'

const available = (await findAdapters()).length > 0
const deviceTest = skipUnless(available, 'there is no WebGPU adapter')
const device = available ? await open() : undefined

/** Kernels that were tried beside the first of their operator. */
const alternatives = new Set<string>()

for (const row of cases) {
  deviceTest(`${row.op}: ${row.name}`, async () => {
    if (!device) throw new Error('unreachable: the test is skipped without a device')
    const prepared = prepare(row)
    let kernels = 1
    const first: SelectKernel = (_, candidates) => {
      kernels = Math.max(kernels, candidates.length)
      return candidates[0]
    }
    const optimized = await runCase(device, prepared, { selectKernel: first })
    compareOutputs(prepared, optimized, 'first kernels')
    compareGradients(prepared, optimized)
    for (let k = 1; k < kernels; k++) {
      const names = new Set<string>()
      const selectKernel: SelectKernel = (_, candidates) => {
        const candidate = candidates[Math.min(k, candidates.length - 1)]
        if (candidate && candidates.length > 1) names.add(candidate.name)
        return candidate
      }
      const other = await runCase(device, prepared, { selectKernel })
      for (const name of names) alternatives.add(`${row.op} ${name}`)
      compareOutputs(prepared, other, `kernel ${[...names].join(', ')}`)
      compareRuns(prepared, optimized, other, `with kernel ${[...names].join(', ')}`)
    }
    const naive = await runCase(device, prepared, { optimize: false })
    compareRuns(prepared, optimized, naive, 'without optimisation')
  })
}

const several = skipUnless(
  device !== undefined && cpuLanes(device.traits) !== undefined,
  'this adapter has one kernel for each operator',
)
several('the products were also computed by their other kernels', () => {
  for (const op of ['matmul', 'conv2d', 'conv2dInputGrad', 'conv2dWeightGrad']) {
    assert.ok(
      [...alternatives].some((name) => name.startsWith(`${op} `)),
      `${op} has one kernel; tried were ${[...alternatives].join(', ')}`,
    )
  }
})

const mirrors = skipUnless(
  device !== undefined && canMirror(device.traits, [1]),
  'panels are for CPU drivers with subgroups of 4 or 8 lanes that read textures',
)
mirrors('batched products were also computed in panels', () => assert.ok(alternatives.has('batchedMatmul panel')))

test.after(() => device?.destroy())

test.run()
