import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { dryDevice } from '#dist/engine/dry-device.js'
import { open } from '#dist/engine/node.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { type EvaluationImage, Evaluator, scoresOf } from '#dist/train/evaluation/evaluator.js'
import { Programs } from '#dist/train/evaluation/programs.js'
import { SlidingWindows } from '#dist/train/evaluation/windows.js'
import { Random } from '#dist/train/random.js'
import { smallModel } from '../../support/small-model.js'

const device = await open()
const nclass = 4
const store = new Store(device, 'model')
const model = createModel(store, { architecture: 'deeplabv3plus', config: { ...smallModel, nclass } }, new Random(1))
test.after(() => device.destroy())

type Image = EvaluationImage['label']

function imageOf(random: Random, width: number, height: number): Image {
  return { data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 256)), width, height }
}

function labelOf(random: Random, width: number, height: number): Image {
  const value = () => (random.integer(0, 10) === 0 ? 255 : random.integer(0, nclass))
  return { data: Uint8Array.from({ length: width * height }, value), width, height }
}

function cropOf({ data, width }: Image, left: number, top: number, right: number, bottom: number): Image {
  const rows = Array.from({ length: bottom - top }, (_, y) =>
    Array.from(data.subarray(((top + y) * width + left) * 3, ((top + y) * width + right) * 3)),
  )
  return { data: Uint8Array.from(rows.flat()), width: right - left, height: bottom - top }
}

function softmaxOf(logits: ArrayLike<number>): number[] {
  const values = Array.from(logits, Math.exp)
  const sum = values.reduce((a, b) => a + b, 0)
  return values.map((value) => value / sum)
}

test('intersection, union and mean of a confusion matrix; absent classes count 0', () => {
  // Rows are the truth: class 0 found 3 of 4 times, class 1 found 2 of 3 times, class 2 absent but predicted once.
  const scores = scoresOf(Uint32Array.of(3, 1, 0, 0, 2, 1, 0, 0, 0), 3)
  assert.equal(scores.intersection, [3, 2, 0])
  assert.equal(scores.union, [4, 4, 1])
  assert.ok(Math.abs((scores.iou[0] ?? 0) - 75) < 1e-6)
  assert.ok(Math.abs(scores.miou - (75 + 50 + 0) / 3) < 1e-6)
  assert.is(scoresOf(new Uint32Array(4), 2).miou, 0)
})

test('windows that overlap and are cut at the border add up', async () => {
  const [width, height, side] = [31, 23, 12]
  const image = imageOf(new Random(2), width, height)
  const sliding = new Evaluator(device, model, { mode: 'sliding_window', window: side, scores: true })
  const whole = new Evaluator(device, model, { mode: 'original', scores: true })
  const { label, scores } = await sliding.predict(image)
  const expected = new Float64Array(width * height * nclass)
  for (let top = 0; top < height; top += 8) {
    for (let left = 0; left < width; left += 8) {
      const [right, bottom] = [Math.min(width, left + side), Math.min(height, top + side)]
      const { scores: logits = new Float32Array() } = await whole.predict(cropOf(image, left, top, right, bottom))
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) {
          const at = ((y - top) * (right - left) + x - left) * nclass
          const probabilities = softmaxOf(logits.subarray(at, at + nclass))
          for (const [k, value] of probabilities.entries()) {
            const place = (y * width + x) * nclass + k
            expected[place] = (expected[place] ?? 0) + value
          }
        }
      }
    }
  }
  assert.is(scores?.length, expected.length)
  const largest = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - (scores?.[i] ?? 0))), 0)
  assert.ok(largest < 1e-5, `difference ${largest}`)
  const best = Array.from({ length: width * height }, (_, i) => {
    const own = expected.subarray(i * nclass, (i + 1) * nclass)
    return own.indexOf(Math.max(...own))
  })
  assert.equal([...label], best)
  sliding.destroy()
  whole.destroy()
})

test('memory and programs do not grow with the number of windows', async () => {
  const options = { mode: 'sliding_window', window: 3 } as const
  // Windows begin at every second pixel.
  const imageOfWindows = (columns: number, rows: number) => imageOf(new Random(4), 2 * columns, 2 * rows)
  const planned = async (image: Image) => {
    const { device: dry, use } = dryDevice(device)
    const evaluator = new Evaluator(dry, model, options)
    await evaluator.predict(image)
    evaluator.destroy()
    return use.peak
  }
  assert.is(await planned(imageOfWindows(10, 10_000)), await planned(imageOfWindows(10, 10)))
  assert.is(await planned(imageOfWindows(320, 313)), await planned(imageOfWindows(320, 5)))

  const evaluator = new Evaluator(device, model, options)
  await evaluator.predict(imageOfWindows(320, 2))
  const before = process.memoryUsage.rss()
  await evaluator.predict(imageOfWindows(320, 313))
  const grown = (process.memoryUsage.rss() - before) / 2 ** 20
  assert.ok(grown < 100, `${grown} MiB more`)
  evaluator.destroy()
})

test('an image whose sums do not fit is computed in chunks of columns, with the same bits', async () => {
  const [width, height, side] = [150, 40, 12]
  const image = imageOf(new Random(5), width, height)
  const whole = new Evaluator(device, model, { mode: 'sliding_window', window: side, scores: true })
  const { scores } = await whole.predict(image)
  const programs = new Programs(device)
  // Seven columns of the twelve rows that a row of windows covers.
  const options = { side, amp: false, maxSumBytes: 7 * side * nclass * 4 }
  const windows = new SlidingWindows(device, model, programs, options, (sums) => ({ sums }))
  const target = { width, height, data: new Uint8Array(width * height) }
  const actual = new Float32Array(width * height * nclass)
  await windows.run(image, target, 255, async (program, outputs, kept) => {
    const values = await program.read('sums')
    assert.ok(kept.w <= 7)
    for (let y = 0; y < kept.h; y++) {
      const from = y * outputs.w * nclass
      actual.set(values.subarray(from, from + kept.w * nclass), ((kept.y + y) * width + kept.x) * nclass)
    }
  })
  assert.equal(actual, scores)
  windows.destroy()
  programs.release()
  whole.destroy()
})

test('images of many sizes are counted together, ignored pixels nowhere, and each evaluation starts anew', async () => {
  const random = new Random(3)
  const sizes = [16, 17, 18, 19, 20, 21, 16]
  const images = sizes.map((side) => ({ image: imageOf(random, side, 15), label: labelOf(random, side, 15) }))
  const evaluator = new Evaluator(device, model, { mode: 'original' })
  const counts = new Uint32Array(nclass * nclass)
  for (const { image, label } of images) {
    const predicted = (await evaluator.predict(image)).label
    for (const [i, target] of label.data.entries()) {
      const place = target * nclass + (predicted[i] ?? 0)
      if (target !== 255) counts[place] = (counts[place] ?? 0) + 1
    }
  }
  const progress: number[] = []
  const scores = await evaluator.evaluate(images, (done) => progress.push(done))
  assert.equal(scores, scoresOf(counts, nclass))
  assert.equal(progress, [1, 2, 3, 4, 5, 6, 7])
  assert.equal(await evaluator.evaluate(images), scores)
  evaluator.destroy()
})

test.run()
