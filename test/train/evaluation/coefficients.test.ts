import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { normalizeCoefficients } from '#dist/kernels/coefficients.js'
import { chooseModel, createModel } from '#dist/models/index.js'
import { lowLogits, upsample } from '#dist/models/segmentation.js'
import { dctCoefficients, gridSize } from '#dist/train/data/dct.js'
import { cut, type Image } from '#dist/train/data/pixels.js'
import { UserError } from '#dist/train/error.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { inputPartsOf } from '#dist/train/evaluation/model-input.js'
import { Predictor } from '#dist/train/evaluation/predictor.js'
import { protocolOf } from '#dist/train/evaluation/protocol.js'
import { Random } from '#dist/train/random.js'
import { checkEvaluation } from '../../golden/evaluation.js'
import { skipUnless } from '../../support/skip.js'
import { smallModel } from '../../support/small-model.js'

const test = suite('evaluation of models that read coefficients')
const golden = fileURLToPath(new URL('../../../../../shared/golden/tiny-diverse-cotraining', import.meta.url))
const goldenTest = skipUnless(existsSync(join(golden, 'eval.json')), '../shared/golden is absent', test)

const device = await open()
const halfTest = skipUnless(device.traits.half === true, 'no half precision', test)
const nclass = 4
const { stem, ...residual } = smallModel
const store = new Store(device, 'model')
const model = createModel(store, chooseModel({ backbone: 'resnet50_dct', nclass, model: residual }), new Random(1))
test.after(() => device.destroy())

function noise(width: number, height: number, seed: number): Image {
  const random = new Random(seed)
  return { data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 256)), width, height }
}

/** Logits [h, w, nclass] of a part of an image's coefficients, at the size of the pixels. */
async function logitsOf(values: Float32Array, rows: number, columns: number, size: readonly [number, number]) {
  const program = await compile(device, { x: spec([1, rows, columns, 64]) }, ({ x }) => ({
    scores: upsample(lowLogits(model, normalizeCoefficients(x), { training: false }), size),
  }))
  program.run({ x: values })
  const scores = (await program.read('scores')) as Float32Array
  program.destroy()
  return scores
}

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  assert.is(a.length, b.length)
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? Number.NaN))), 0)
}

test('a whole image is predicted by its coefficients, at its size', async () => {
  const image = noise(31, 26, 2)
  const evaluator = new Evaluator(device, model, { mode: 'original', scores: true })
  const { scores = [] } = await evaluator.predict(image)
  const expected = await logitsOf(dctCoefficients(image), 7, 8, [26, 31])
  assert.ok(largestDifference(scores, expected) < 1e-5)
  evaluator.destroy()
})

halfTest('half precision rounds what follows the coefficients', async () => {
  const random = new Random(6)
  const noisy = noise(40, 40, 6)
  // Smooth, since nothing keeps the activations of an untrained network small.
  const image = {
    ...noisy,
    data: noisy.data.map((_, i) => 90 + (i % 3) * 20 + ((i / 120) % 40) + random.integer(0, 3)),
  }
  const scoresOf = async (amp: boolean) => {
    const evaluator = new Evaluator(device, model, { mode: 'original', scores: true, amp })
    const { scores = [] } = await evaluator.predict(image)
    evaluator.destroy()
    return scores
  }
  const [whole, half] = [await scoresOf(false), await scoresOf(true)]
  const largest = largestDifference(whole, new Float32Array(whole.length))
  assert.ok(largestDifference(whole, half) < 0.01 * largest, `${largestDifference(whole, half)} of ${largest}`)
  assert.not.equal(whole, half)
})

test('windows are cut from the coefficients of the whole image', async () => {
  const [width, height, side] = [71, 50, 25]
  const image = noise(width, height, 3)
  const evaluator = new Evaluator(device, model, { mode: 'sliding_window', window: side, scores: true })
  const { scores = [] } = await evaluator.predict(image)
  const coefficients = dctCoefficients(image)
  const columns = gridSize(width)
  const expected = new Float32Array(width * height * nclass)
  // Windows of 25 pixels have 7 cells, in steps of 4.
  for (let top = 0; top < height; top += 16) {
    for (let left = 0; left < width; left += 16) {
      const [h, w] = [Math.min(side, height - top), Math.min(side, width - left)]
      const [rows, cells] = [gridSize(h), gridSize(w)]
      const part = Array.from({ length: rows }, (_, row) => {
        const start = ((top / 4 + row) * columns + left / 4) * 64
        return Array.from(coefficients.subarray(start, start + cells * 64))
      })
      const logits = await logitsOf(Float32Array.from(part.flat()), rows, cells, [h, w])
      for (let i = 0; i < h * w; i++) {
        const values = Array.from(logits.subarray(i * nclass, (i + 1) * nclass), Math.exp)
        const sum = values.reduce((a, b) => a + b, 0)
        const place = ((top + Math.floor(i / w)) * width + left + (i % w)) * nclass
        for (const [k, value] of values.entries()) expected[place + k] = (expected[place + k] ?? 0) + value / sum
      }
    }
  }
  assert.ok(largestDifference(scores, expected) < 1e-5)
  const options = { mode: 'sliding_window', window: side } as const
  assert.match(protocolOf(options, 0, { input: 'coefficients' }), 'windows of 25 in steps of 16')
  assert.match(protocolOf({ ...options, window: 769 }, 0, { input: 'coefficients' }), 'windows of 769 in steps of 512')
  // Two thirds of a window are not a whole number of cells.
  assert.match(protocolOf({ ...options, window: 321 }, 0, { input: 'coefficients' }), 'windows of 321 in steps of 216')
  evaluator.destroy()
})

test('the coefficients of an image that is read in parts are those of the whole image', async () => {
  const image = noise(53, 67, 4)
  const asked: number[] = []
  const { width, height } = image
  const part = async (box: Parameters<typeof cut>[2]) => {
    asked.push(box.h)
    return cut(image, 3, box)
  }
  const read = { width, height, part }
  const [whole, parts] = [inputPartsOf(model, image), inputPartsOf(model, read)]
  for (const [y, h] of [
    [0, 13],
    [12, 25],
    [32, 35],
    [64, 3],
  ] as const) {
    for (const [x, w] of [
      [0, 53],
      [8, 25],
      [40, 13],
    ] as const) {
      assert.equal(await parts.part({ x, y, w, h }), await whole.part({ x, y, w, h }))
    }
  }
  // With a cell above and below, once for all columns; the last rows are among those before.
  assert.equal(asked, [20, 36, 39])
})

test('a large image is computed in tiles, each as an image of its own; there are no mirrored or scaled views', async () => {
  const image = noise(60, 40, 5)
  const predictor = new Predictor(device, model, { maxPixels: 900 })
  const { tiles } = await predictor.plan(image)
  assert.ok(tiles.length > 1)
  const mask = await predictor.predict(image)
  const [{ seen, kept } = { seen: { x: 0, y: 0, w: 0, h: 0 }, kept: { x: 0, y: 0, w: 0, h: 0 } }] = tiles
  const alone = await new Predictor(device, model).predict(cut(image, 3, seen))
  assert.equal(cut(mask, 1, kept), cut(alone, 1, { ...kept, x: kept.x - seen.x, y: kept.y - seen.y }))
  predictor.destroy()
  for (const options of [{ flip: true }, { scales: [0.5, 1] }]) {
    assert.throws(
      () => new Predictor(device, model, options),
      (error: unknown) => error instanceof UserError && /no mirrored or scaled views/.test(error.message),
    )
  }
})

test('a network that learned from coefficients predicts what PyTorch does, whole and by windows', async () => {
  const results = await checkEvaluation(device, 'test/fixtures/coefficients')
  assert.ok(results.length >= 6)
  assert.equal(
    results.filter(({ error, tolerance }) => !(error <= tolerance)),
    [],
  )
})

goldenTest('all recorded networks that read coefficients do', async () => {
  const results = (await checkEvaluation(device, golden)).filter(({ name }) => /2cps\/m2|3cps\/m[12]/.test(name))
  assert.ok(results.length >= 22)
  assert.equal(
    results.filter(({ error, tolerance }) => !(error <= tolerance)),
    [],
  )
})

test.run()
