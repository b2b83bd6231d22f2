import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { showSpread, spreadOf, summarize, summaryTable } from '#dist/comparison/summary.js'

const run = (method: string, seed: number, best: number, last: number) => ({
  ...{ method, seed, folder: `${method}/${seed}`, history: [], seconds: 60 * (1 + seed) },
  best: { epoch: 1, miou: best, iou: [best - 10, best + 10] },
  last: { epoch: 2, miou: last, iou: [last, last] },
})

test('the spread is the sample standard deviation', () => {
  assert.equal(spreadOf([3]), { mean: 3, deviation: undefined })
  assert.equal(spreadOf([1, 3, 5]), { mean: 3, deviation: 2 })
  assert.is(showSpread(spreadOf([54.25])), '54.3')
  assert.is(showSpread(spreadOf([1, 3, 5])), '3.0 ± 2.0')
})

test('methods stand in the order of their first runs, with means over their seeds', () => {
  const runs = [run('b', 0, 50, 40), run('a', 0, 20, 20), run('b', 1, 54, 50)]
  const [b, a] = summarize(runs, new Map([['b', 2 ** 21]]))
  assert.is(b?.method, 'b')
  assert.equal(b?.seeds, [0, 1])
  assert.equal(b?.best, { mean: 52, deviation: Math.sqrt(8) })
  assert.is(b?.last.mean, 45)
  assert.equal(
    b?.classes.map(({ mean }) => mean),
    [42, 62],
  )
  assert.is(b?.seconds.mean, 90)
  assert.is(a?.best.mean, 20)
})

test('the table has a line per method, all of one width', () => {
  const lines = summaryTable(summarize([run('prevmatch', 0, 50, 40), run('a', 0, 20, 20)], new Map()), ['sky', 'sea'])
  assert.is(lines.length, 4)
  assert.is(new Set(lines.map(({ length }) => length)).size, 1)
  assert.match(lines[0] ?? '', /^method {5}best mIoU {2}last mIoU {2}time/)
  assert.match(lines[2] ?? '', /^prevmatch {7}50\.0 {7}40\.0 {2}1:00 {3}0 MiB {2}40\.0 {2}60\.0$/)
})

test.run()
