import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { findAdapters } from '#dist/engine/node.js'
import { skipUnless } from '../support/skip.js'

const deviceTest = skipUnless((await findAdapters()).length > 0, 'there is no WebGPU adapter')
const script = fileURLToPath(new URL('../../bench/bench.js', import.meta.url))
const bench = (...options: string[]) => spawnSync(process.execPath, [script, ...options], { encoding: 'utf8' })

interface Report {
  readonly crop: number
  readonly peaks: { readonly gflops: number; readonly gbps: number; readonly halfProduct?: number }
  readonly operators: readonly { op: string; pass: string; milliseconds: number; share: number; gflops?: number }[]
  readonly steps: readonly unknown[]
}

deviceTest('the bench writes what it measured', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'))
  try {
    const file = join(folder, 'report.json')
    const { status, stdout, stderr } = bench('--crop', '17', '--batch', '1', '--only', 'softmax', '--json', file)
    assert.is(status, 0, stderr)
    assert.match(stdout, /^softmaxMax +logits +\d/m)
    const report = JSON.parse(readFileSync(file, 'utf8')) as Report
    assert.is(report.crop, 17)
    assert.ok(report.peaks.gflops > 0.1 && report.peaks.gbps > 0.01, JSON.stringify(report.peaks))
    assert.equal(
      report.operators.map(({ op, pass }) => `${op} ${pass}`),
      ['softmax forward', 'softmax backward', 'softmaxMax forward', 'resizedSoftmaxMax forward'],
    )
    for (const { milliseconds, share } of report.operators) assert.ok(milliseconds > 0 && share > 0)
    assert.equal(report.steps, [])
    assert.equal(readdirSync(folder), ['report.json'])
  } finally {
    rmSync(folder, { recursive: true })
  }
})

const half = (await findAdapters()).some(({ adapter }) => adapter.features.has('shader-f16'))
const halfTest = skipUnless(half, 'there is no adapter with shader-f16')
halfTest('products in half precision are rated beside the fastest of these', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'))
  try {
    const file = join(folder, 'report.json')
    const size = ['--crop', '17', '--batch', '1']
    const { status, stderr } = bench('--amp', ...size, '--only', 'conv2d, forward layer3 3x3 256', '--json', file)
    assert.is(status, 0, stderr)
    const { peaks, operators } = JSON.parse(readFileSync(file, 'utf8')) as Report
    assert.is(operators.length, 1)
    const limit = peaks.halfProduct ?? Number.NaN
    for (const { share, gflops = 0 } of operators) assert.ok(Math.abs(share * limit - gflops) < 1e-6 * gflops)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

deviceTest('the bench says what is wrong with its options', () => {
  const unknown = bench('--only', 'nothing of that name')
  assert.is(unknown.status, 1)
  assert.match(unknown.stderr, /--only nothing of that name: nothing has that in its name; there are .*conv2d/)
  const folder = bench('--json', '/nowhere/at/all/report.json', '--only', 'relu')
  assert.is(folder.status, 1)
  assert.match(folder.stderr, 'there is no folder /nowhere/at/all')
  assert.not.ok(existsSync('/nowhere'))
  assert.match(bench('--crop', '-3').stderr, /--crop.*whole number above 0/)
  assert.match(bench('--help').stdout, /Examples:/)
})

test.run()
