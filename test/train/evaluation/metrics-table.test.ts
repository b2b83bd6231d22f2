// Scores and the tables that show them, against the recorded values of PyTorch and by hand.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { scoresOf } from '#dist/train/evaluation/metrics.js'
import { scoreTable } from '#dist/train/evaluation/metrics-table.js'
import { readJson, TensorFile } from '../../golden/files.js'
import { skipUnless } from '../../support/skip.js'

const golden = '../shared/golden'
const goldenTest = skipUnless(existsSync(join(golden, 'eval.json')), `${golden}/eval.json is absent`)

interface Pair {
  readonly key: string
  readonly nclass: number
  readonly intersection: readonly number[]
  readonly union: readonly number[]
  readonly target: readonly number[]
  readonly iou: readonly number[]
  readonly miou: number
}

goldenTest('tables show the numbers that the reference computes', () => {
  const { pairs } = readJson<{ pairs: readonly Pair[] }>(join(golden, 'eval.json'))
  const file = new TensorFile(join(golden, 'eval.safetensors'))
  for (const { key, nclass, ...expected } of pairs) {
    const [predicted, target] = [file.bytes(`${key}/pred`), file.bytes(`${key}/target`)]
    const counts = new Float64Array(nclass * nclass)
    for (const [i, truth] of target.entries()) {
      const place = truth * nclass + (predicted[i] ?? 0)
      if (truth !== 255) counts[place] = (counts[place] ?? 0) + 1
    }
    const scores = scoresOf(counts, nclass)
    assert.equal(scores.intersection, expected.intersection)
    assert.equal(scores.union, expected.union)
    assert.equal(scores.target, expected.target)
    const lines = scoreTable(
      scores,
      Array.from({ length: nclass }, (_, k) => `class ${k}`),
    )
    const all = Math.max(
      1,
      expected.target.reduce((a, b) => a + b),
    )
    const sum = expected.iou.reduce((a, b) => a + b)
    for (const [k, pixels] of expected.target.entries()) {
      const cells = [
        expected.union[k] ? (expected.iou[k] ?? 0).toFixed(2) : '-',
        pixels > 0 ? ((100 * (expected.intersection[k] ?? 0)) / pixels).toFixed(2) : '-',
        ((100 * pixels) / all).toFixed(2),
      ]
      assert.equal(lines[2 + k]?.trim().split(/\s+/), ['class', `${k}`, ...cells], key)
    }
    const present = expected.union.filter((count) => count > 0).length
    assert.match(lines.join('\n'), `mIoU ${expected.miou.toFixed(2)} over all ${nclass} classes`)
    assert.match(
      lines.join('\n'),
      `mIoU ${(sum / Math.max(1, present)).toFixed(2)} over the ${present} classes that occur`,
    )
  }
})

// Class 0 found 3 of 4 times, class 1 found 2 of 4 times, class 2 only predicted, class 3 nowhere.
const counts = Uint32Array.of(3, 1, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
const names = ['tree', 'dry grass, hay', 'boat', 'sea']

test('accuracy, shares and the mean over present classes', () => {
  const scores = scoresOf(counts, 4)
  const close = (actual: number | undefined, expected: number) => assert.ok(Math.abs((actual ?? NaN) - expected) < 1e-6)
  close(scores.iou[0], 60)
  close(scores.iou[1], 40)
  close(scores.accuracy[1], 50)
  close(scores.share[0], 50)
  close(scores.miou, 25)
  close(scores.miouPresent, 100 / 3)
  close(scores.pixelAccuracy, 62.5)
  assert.is(scores.present, 3)
  const lines = scoreTable(scores, names)
  assert.match(lines[4] ?? '', /^boat +0\.00 +- +0\.00$/)
  assert.match(lines[5] ?? '', /^sea +- +- +0\.00$/)
})

test.run()
