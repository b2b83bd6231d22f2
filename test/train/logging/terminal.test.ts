import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createDisplay, fitParts, trainingLine } from '#dist/train/logging/terminal.js'

/** A terminal of one screen: what it shows after the texts written to it. */
class Terminal {
  readonly isTTY = true
  written = ''
  constructor(public columns: number) {}

  write(text: string): void {
    this.written += text
  }

  get screen(): string[] {
    const rows: string[][] = [[]]
    let column = 0
    const current = () => rows.at(-1) ?? []
    // One character stands for the sequence that erases to the end of the line.
    for (const token of this.written.replaceAll('\x1b[K', '\v')) {
      if (token === '\r') column = 0
      else if (token === '\v') current().length = column
      else if (token === '\n' || column === this.columns) {
        rows.push(token === '\n' ? [] : [token])
        column = token === '\n' ? 0 : 1
      } else current()[column++] = token
    }
    return rows.map((row) => row.join(''))
  }
}

const clock = () => {
  let time = 0
  return () => {
    time += 1000
    return time
  }
}

test('on a terminal the status is rewritten in place, below the lines', () => {
  const terminal = new Terminal(20)
  const display = createDisplay(terminal, clock())
  assert.ok(display.live)
  display.status(() => 'one of many')
  display.status(() => 'two')
  assert.equal(terminal.screen, ['two'])
  display.line('a line')
  assert.equal(terminal.screen, ['a line', 'two'])
  display.status(() => 'three')
  display.close()
  display.close()
  assert.equal(terminal.screen, ['a line', 'three', ''])
})

test('the status never wraps, whatever it holds and however the terminal changes', () => {
  const terminal = new Terminal(12)
  const display = createDisplay(terminal, clock())
  display.status((width) => `${width} `.padEnd(50, 'x'))
  assert.equal(terminal.screen, ['11 xxxxxxx…'])
  display.status(() => 'a\nb\x1b[31m\tc')
  assert.equal(terminal.screen, ['a b c'])
  terminal.columns = 30
  display.status((width) => 'y'.repeat(width))
  assert.equal(terminal.screen, ['y'.repeat(29)])
})

test('a status that comes soon after another is not drawn, but it is shown by the end', () => {
  const terminal = new Terminal(20)
  const display = createDisplay(terminal, () => 5)
  display.status(() => 'first')
  display.status(() => 'second')
  assert.equal(terminal.screen, ['first'])
  display.close()
  assert.equal(terminal.screen, ['second', ''])
})

test('elsewhere there are plain lines alone', () => {
  const written: string[] = []
  const display = createDisplay({ write: (text: string) => written.push(text) }, clock())
  assert.not.ok(display.live)
  display.status(() => String(assert.unreachable()))
  display.line('a line')
  display.close()
  assert.equal(written, ['a line\n'])
})

test('parts of the highest rank go first', () => {
  const parts = [
    { text: 'aaaa', rank: 0 },
    { text: 'bb', rank: 2 },
    { text: '', rank: 0 },
    { text: 'cc', rank: 1 },
  ]
  assert.is(fitParts(parts, 12), 'aaaa  bb  cc')
  assert.is(fitParts(parts, 11), 'aaaa  cc')
  assert.is(fitParts(parts, 7), 'aaaa')
  assert.is(fitParts(parts, 1), 'aaaa')
})

test('the line of a training fits any width', () => {
  const status = {
    ...{ epoch: 3, epochs: 80, iteration: 60, iterationsPerEpoch: 120, totalLoss: 1.23456 },
    ...{ losses: { x: 0.5, s1: 1, fp: 2 }, maskRatio: 0.814, miou: 51.26, bestMiou: 53.04 },
    ...{ imagesPerSecond: 24.53, dataShare: 0.023, eta: '1:02:03' },
  }
  assert.is(
    trainingLine(status, 200),
    'epoch 3/80  ━━━━━━──────  60/120  loss 1.235  (x 0.50, s1 1.00, fp 2.00)  mask 81%  mIoU 51.3 (best 53.0)  ' +
      '24.5 images/s  data 2%  ETA 1:02:03',
  )
  assert.is(
    trainingLine(status, 99),
    'epoch 3/80  60/120  loss 1.235  mIoU 51.3 (best 53.0)  24.5 images/s  data 2%  ETA 1:02:03',
  )
  assert.match(trainingLine({ ...status, skippedSteps: 2 }, 200), /\(best 53\.0\) {2}2 skipped {2}24\.5 images/)
  assert.is(trainingLine({ ...status, skippedSteps: 0 }, 200), trainingLine(status, 200))
  assert.is(trainingLine(status, 40), 'epoch 3/80  60/120  loss 1.235')
  for (let width = 10; width < 160; width++) assert.ok(trainingLine(status, width).length <= width, String(width))
  const first = { ...status, losses: { x: 0.5 }, maskRatio: undefined, miou: undefined, bestMiou: undefined }
  assert.is(
    trainingLine(first, 200),
    'epoch 3/80  ━━━━━━──────  60/120  loss 1.235  24.5 images/s  data 2%  ETA 1:02:03',
  )
})

test.run()
