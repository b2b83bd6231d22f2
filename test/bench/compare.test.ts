import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { checkComparable, compare, type Report, readReport, seemsSlower } from '../../bench/compare.js'
import { quantile, timingOf } from '../../bench/timing.js'

const adapter = { vendor: 'mesa', architecture: '', device: 'llvmpipe', driver: '25', software: true }
const circumstances = { adapter, crop: 129, batch: 4, model: 'small', amp: false }

const report = (times: Record<string, [milliseconds: number, spread: number]>): Report => ({
  ...circumstances,
  operators: Object.entries(times).map(([op, [milliseconds, spread]]) => ({
    op,
    pass: 'forward',
    shape: 'x',
    milliseconds,
    spread,
  })),
  steps: [],
  residuals: [],
  overheads: [],
})

/** Calls `body` with the path of a file of this content. */
function withFile(content: string, body: (path: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'compare-'))
  try {
    const path = join(folder, 'old.json')
    writeFileSync(path, content)
    body(path)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('quantiles are interpolated', () => {
  assert.is(quantile([3, 1, 2], 0.5), 2)
  assert.is(quantile([4, 1, 3, 2], 0.5), 2.5)
  assert.is(quantile([0, 10], 0.25), 2.5)
  assert.is(quantile([7], 0.75), 7)
  assert.equal(timingOf([5, 1, 2, 3, 4]), { milliseconds: 3, spread: 2 })
})

test('slower by more than a tenth and three times the spread is a regression', () => {
  const old = report({ quiet: [10, 0.1], barely: [10, 0.1], noisy: [10, 1], 'noisy now': [10, 0], faster: [10, 0] })
  const now = report({
    quiet: [11.1, 0.1],
    barely: [10.9, 0.1],
    noisy: [12.9, 0],
    'noisy now': [14, 1.5],
    faster: [5, 0],
  })
  const rows = compare(old, now)
  assert.equal(
    rows.map(({ name, regressed }) => [name, regressed]),
    [
      ['quiet, forward, x', true],
      ['barely, forward, x', false],
      ['noisy, forward, x', false],
      ['noisy now, forward, x', false],
      ['faster, forward, x', false],
    ],
  )
  assert.is(rows[4]?.ratio, 0.5)
  assert.ok(compare(old, report({ noisy: [13.1, 0] }))[0]?.regressed)
})

test('a second look is taken at what seems slower', () => {
  const old = report({ relu: [10, 0.1], add: [10, 0.1] })
  const [slow, same, unknown] = report({ relu: [12, 0.1], add: [10.5, 0.1], conv2d: [99, 0] }).operators
  assert.ok(slow && same && unknown)
  assert.equal(
    [slow, same, unknown].map((row) => seemsSlower(old, row)),
    [true, false, false],
  )
})

test('steps are compared as operators are, and only what both reports have', () => {
  const steps = (milliseconds: number) => [{ method: 'unimatch', milliseconds, spread: 0 }]
  const old = { ...report({ relu: [1, 0] }), steps: steps(10), overheads: steps(5) }
  const now = { ...report({ conv2d: [1, 0] }), steps: steps(20), overheads: steps(4) }
  assert.equal(compare(old, now), [
    { name: 'training step, unimatch', before: 10, now: 20, ratio: 2, regressed: true },
    { name: 'overhead, unimatch', before: 5, now: 4, ratio: 0.8, regressed: false },
  ])
  assert.throws(() => compare(report({ relu: [1, 0] }), report({ conv2d: [1, 0] })), /none of what was measured/)
})

test('what is no report is refused', () => {
  withFile(JSON.stringify(report({ relu: [1, 0.1] })), (path) =>
    assert.equal(readReport(path), {
      path,
      report: {
        ...report({ relu: [1, 0.1] }),
        adapter: { vendor: 'mesa', architecture: '', device: 'llvmpipe', driver: '25' },
      },
    }),
  )
  assert.throws(() => readReport('/nowhere/old.json'), /--compare \/nowhere\/old.json: ENOENT/)
  withFile('{', (path) => assert.throws(() => readReport(path), /--compare .*old.json: .*JSON/))
  withFile('{"name": "atrous"}', (path) =>
    assert.throws(() => readReport(path), /not a report of this bench \(adapter/),
  )
  withFile('[]', (path) => assert.throws(() => readReport(path), /not a report of this bench \(the whole of it/))
})

test('reports of other adapters and sizes are refused', () => {
  const old = { path: 'old.json', report: report({ relu: [1, 0] }) }
  checkComparable(old, circumstances)
  checkComparable(old, { ...circumstances, adapter: { ...adapter, driver: '26' } })
  const other = { ...adapter, vendor: 'nvidia', device: 'H100' }
  assert.throws(
    () => checkComparable(old, { ...circumstances, adapter: other }),
    /old.json: measured on another adapter: mesa llvmpipe, this is nvidia H100/,
  )
  assert.throws(() => checkComparable(old, { ...circumstances, crop: 65 }), /--crop 129 --batch 4 --model small/)
  assert.throws(
    () => checkComparable(old, { ...circumstances, amp: true }),
    /measured without --amp; repeat without it/,
  )
})

test.run()
