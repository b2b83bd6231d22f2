// Evaluation against plain compositions of whole-image predictions: sizes, centre crops, mirrored and scaled views.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { logits } from '#dist/models/segmentation.js'
import { type Box, cut, type Image, normalize } from '#dist/train/data/pixels.js'
import { resizeBilinear } from '#dist/train/data/resize.js'
import { UserError } from '#dist/train/error.js'
import { type EvaluationOptions, Evaluator, scoresOf } from '#dist/train/evaluation/evaluator.js'
import { parseScales } from '#dist/train/evaluation/inference.js'
import { Predictor } from '#dist/train/evaluation/predictor.js'
import { tilesOf } from '#dist/train/evaluation/tiles.js'
import { Random } from '#dist/train/random.js'
import { nullDevice } from '../../support/null-device.js'
import { smallModel } from '../../support/small-model.js'

const device = await open()
const nclass = 4
const config = { ...smallModel, nclass }
const model = createModel(new Store(device, 'model'), { architecture: 'deeplabv3plus', config }, new Random(1))
test.after(() => device.destroy())

function imageOf(random: Random, width: number, height: number): Image {
  return { data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 256)), width, height }
}

function labelOf(random: Random, width: number, height: number): Image {
  const value = () => (random.integer(0, 10) === 0 ? 255 : random.integer(0, nclass))
  return { data: Uint8Array.from({ length: width * height }, value), width, height }
}

function evaluator(options: Partial<EvaluationOptions> = {}): Evaluator {
  return new Evaluator(device, model, { mode: 'original', scores: true, ...options })
}

/** Predicts with an evaluator that sees no other image. */
async function alone(image: Image, options: Partial<EvaluationOptions> = {}) {
  const single = evaluator(options)
  const result = await single.predict(image)
  single.destroy()
  return { label: result.label, scores: result.scores ?? new Float32Array() }
}

/** A map of `channels` values per pixel. */
interface Values {
  readonly data: Float64Array
  readonly width: number
  readonly height: number
  readonly channels: number
}

const valuesOf = (data: ArrayLike<number>, width: number, height: number, channels: number): Values => ({
  data: Float64Array.from(data),
  width,
  height,
  channels,
})

function mirrored({ data, width, height, channels }: Values): Values {
  const at = (i: number) => {
    const pixel = Math.floor(i / channels)
    const column = pixel % width
    return data[(pixel - column + width - 1 - column) * channels + (i % channels)] ?? 0
  }
  return { data: data.map((_, i) => at(i)), width, height, channels }
}

/** Bilinear with aligned corners, in double precision. */
function resized(from: Values, width: number, height: number): Values {
  const { channels } = from
  const axis = (i: number, inSize: number, outSize: number) => {
    const position = outSize > 1 ? (i * (inSize - 1)) / (outSize - 1) : 0
    const low = Math.min(inSize - 1, Math.floor(position))
    return { low, high: Math.min(inSize - 1, low + 1), share: position - low }
  }
  const data = new Float64Array(width * height * channels)
  for (let i = 0; i < data.length; i++) {
    const pixel = Math.floor(i / channels)
    const x = axis(pixel % width, from.width, width)
    const y = axis(Math.floor(pixel / width), from.height, height)
    const at = (row: number, column: number) => from.data[(row * from.width + column) * channels + (i % channels)] ?? 0
    const line = (row: number) => at(row, x.low) * (1 - x.share) + at(row, x.high) * x.share
    data[i] = line(y.low) * (1 - y.share) + line(y.high) * y.share
  }
  return { data, width, height, channels }
}

function softmaxed(logits: Values): Values {
  const data = logits.data.map(Math.exp)
  for (let at = 0; at < data.length; at += nclass) {
    const pixel = data.subarray(at, at + nclass)
    const sum = pixel.reduce((a, b) => a + b)
    for (const [k, value] of pixel.entries()) pixel[k] = value / sum
  }
  return { ...logits, data }
}

/** Logits of a normalised image, from a program of its own. */
async function logitsOf(x: Values): Promise<Values> {
  const shape = [1, x.height, x.width, 3]
  const program = await compile(device, { x: spec(shape) }, (t) => ({
    logits: logits(model, t.x, { training: false }),
  }))
  program.run({ x: Float32Array.from(x.data) })
  const values = await program.read('logits')
  program.destroy()
  return valuesOf(values, x.width, x.height, nclass)
}

const mean = (maps: readonly Values[]): Float64Array =>
  (maps[0]?.data ?? new Float64Array()).map(
    (_, i) => maps.reduce((sum, { data }) => sum + (data[i] ?? 0), 0) / maps.length,
  )

function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  assert.is(actual.length, expected.length)
  assert.ok(actual.length > 0)
  let largest = 0
  for (let i = 0; i < actual.length; i++)
    largest = Math.max(largest, Math.abs((actual[i] ?? NaN) - (expected[i] ?? NaN)))
  assert.ok(largest < tolerance, `difference ${largest}`)
}

function assertLabels(label: Uint32Array, scores: Float64Array): void {
  for (const [i, chosen] of label.entries()) {
    const own = scores.subarray(i * nclass, (i + 1) * nclass)
    // Rounding may decide between classes that are as good as equal.
    assert.ok((own[chosen] ?? 0) > Math.max(...own) - 1e-5, `pixel ${i}`)
  }
}

test('images of many sizes give the bits of evaluations of each image alone', async () => {
  const random = new Random(5)
  // Growing and shrinking, so that buffers are outgrown while programs use them, and sizes come again.
  const sizes = [
    [16, 15],
    [40, 9],
    [23, 31],
    [17, 15],
    [9, 40],
    [23, 31],
    [48, 47],
    [16, 15],
    [1, 30],
    [33, 33],
  ] as const
  const images = sizes.map(([width, height]) => imageOf(random, width, height))
  const shared = evaluator()
  for (const image of images) {
    const together = await shared.predict(image)
    const single = await alone(image)
    assert.equal(together.scores, single.scores, `${image.width}x${image.height}`)
    assert.equal(together.label, single.label)
  }
  // Queued one after the other, with predictions fetched in between or not.
  const pairs = images.map((image) => ({ image, label: labelOf(random, image.width, image.height) }))
  const counts = new Float64Array(nclass * nclass)
  shared.reset()
  for (const [i, pair] of pairs.entries()) {
    const { label } = await alone(pair.image)
    for (const [k, target] of pair.label.data.entries()) {
      const place = target * nclass + (label[k] ?? 0)
      if (target !== 255) counts[place] = (counts[place] ?? 0) + 1
    }
    const prediction = await shared.add(pair, i % 3 === 0)
    if (i % 3 === 0) assert.equal(prediction?.label, label)
  }
  assert.equal(await shared.confusion(), counts)
  assert.equal(await shared.scores(), scoresOf(counts, nclass))
  shared.release()
  assert.equal(await shared.confusion(), counts, 'counts outlive the programs')
  shared.destroy()
})

test('the centre crop is the middle of image and label, or all of what is smaller', async () => {
  const random = new Random(6)
  const [image, label] = [imageOf(random, 30, 21), labelOf(random, 30, 21)]
  const cropped = evaluator({ mode: 'center_crop', window: 16 })
  const box = { x: 7, y: 2, w: 16, h: 16 }
  const expected = await alone(cut(image, 3, box))
  assert.equal((await cropped.predict(image)).scores, expected.scores)
  const whole = evaluator()
  const pair = { image: cut(image, 3, box), label: cut(label, 1, box) }
  assert.equal(await cropped.evaluate([{ image, label }]), await whole.evaluate([pair]))
  const low = imageOf(random, 30, 11)
  assert.equal((await cropped.predict(low)).scores, (await alone(cut(low, 3, { x: 7, y: 0, w: 16, h: 11 }))).scores)
  cropped.destroy()
  whole.destroy()
})

test('mirrored and scaled views are resized, softmaxed, mirrored back and averaged', async () => {
  const image = imageOf(new Random(7), 26, 19)
  const x = valuesOf(normalize(image.data), 26, 19, 3)
  const scales = [0.75, 1, 1.25]
  const views: Values[] = []
  for (const [width, height] of [
    [20, 14],
    [26, 19],
    [33, 24],
  ] as const) {
    const seen = resized(x, width, height)
    views.push(softmaxed(resized(await logitsOf(seen), 26, 19)))
    views.push(mirrored(softmaxed(resized(await logitsOf(mirrored(seen)), 26, 19))))
  }
  const both = await alone(image, { flip: true, scales })
  assertClose(both.scores, mean(views), 1e-5)
  assertLabels(both.label, mean(views))
  const scaled = await alone(image, { scales })
  assertClose(scaled.scores, mean(views.filter((_, i) => i % 2 === 0)), 1e-5)
  const flipped = await alone(image, { flip: true })
  assertClose(flipped.scores, mean(views.slice(2, 4)), 1e-5)
  assert.ok(Math.max(...flipped.scores.map((value, i) => Math.abs(value - (scaled.scores[i] ?? 0)))) > 1e-4)
})

test('by windows, a mirrored view is the mean over the windows of the mirrored image', async () => {
  const image = imageOf(new Random(8), 31, 23)
  const sliding = { mode: 'sliding_window', window: 12 } as const
  const sums = async (picture: Image): Promise<Values> => {
    const { data, ...rest } = valuesOf((await alone(picture, sliding)).scores, 31, 23, nclass)
    // The probabilities of each window add up to 1, so their sum counts the windows.
    const windows = (i: number) => data.subarray(i - (i % nclass), i - (i % nclass) + nclass).reduce((a, b) => a + b)
    return { data: data.map((value, i) => value / windows(i)), ...rest }
  }
  const back = mirrored(valuesOf(image.data, 31, 23, 3))
  const views = [await sums(image), mirrored(await sums({ ...image, data: Uint8Array.from(back.data) }))]
  const both = await alone(image, { ...sliding, flip: true })
  assertClose(both.scores, mean(views), 1e-5)
  assertLabels(both.label, mean(views))
})

test('scores are resized to another size before classes are compared', async () => {
  const image = imageOf(new Random(9), 24, 18)
  const resizing = evaluator()
  const { label, scores = new Float32Array(), width, height } = await resizing.predict(image, { width: 41, height: 30 })
  assert.equal([width, height], [41, 30])
  const expected = resized(valuesOf((await alone(image)).scores, 24, 18, nclass), 41, 30)
  assertClose(scores, expected.data, 1e-4)
  assertLabels(label, expected.data)
  resizing.destroy()
})

test('tiles have one size, overlap by a quarter, and what is kept of them covers the image once', () => {
  for (const [width, height, limit] of [
    [100, 100, 10000],
    [101, 99, 2500],
    [300, 20, 1000],
    [20, 300, 1000],
    [64, 64, 1],
  ] as const) {
    const tiles = tilesOf(width, height, limit)
    const covered = new Uint8Array(width * height)
    for (const { seen, kept } of tiles) {
      assert.ok(seen.w * seen.h <= limit)
      assert.equal([seen.w, seen.h], [tiles[0]?.seen.w, tiles[0]?.seen.h])
      assert.ok(seen.x >= 0 && seen.y >= 0 && seen.x + seen.w <= width && seen.y + seen.h <= height)
      assert.ok(kept.x >= seen.x && kept.y >= seen.y)
      assert.ok(kept.x + kept.w <= seen.x + seen.w && kept.y + kept.h <= seen.y + seen.h)
      for (let y = kept.y; y < kept.y + kept.h; y++) {
        for (let x = kept.x; x < kept.x + kept.w; x++) covered[y * width + x] = (covered[y * width + x] ?? 0) + 1
      }
    }
    assert.ok(
      covered.every((times) => times === 1),
      `${width}x${height}`,
    )
    // Tiles of more than a few pixels share a quarter of their sides with their neighbours.
    const columns = [...new Set(tiles.map(({ seen }) => seen.x))].sort((a, b) => a - b)
    const side = tiles[0]?.seen.w ?? 0
    if (side > 8) assert.ok(columns.every((x, i) => i === 0 || x - (columns[i - 1] ?? 0) <= 0.75 * side + 1))
  }
  assert.is(tilesOf(100, 100, 10000).length, 1)
})

test('a large image is put together from tiles, and --img-size resizes the image and then the scores', async () => {
  const image = imageOf(new Random(10), 50, 37)
  const tiled = new Predictor(device, model, { maxPixels: 600 })
  const mask = await tiled.predict(image)
  assert.ok((await tiled.plan(image)).tiles.length > 4)
  for (const { seen, kept } of tilesOf(50, 37, 600)) {
    const { label } = await alone(cut(image, 3, seen))
    for (let y = kept.y; y < kept.y + kept.h; y++) {
      for (let x = kept.x; x < kept.x + kept.w; x++) {
        assert.is(mask.data[y * 50 + x], label[(y - seen.y) * seen.w + x - seen.x])
      }
    }
  }
  tiled.destroy()
  for (const longSide of [25, 80]) {
    const predictor = new Predictor(device, model, { longSide })
    const { width, height, data } = await predictor.predict(image)
    assert.equal([width, height, data.length], [50, 37, 50 * 37])
    const bySize = evaluator()
    const seen = resizeBilinear(image, longSide, Math.round((37 * longSide) / 50))
    assert.equal([...data], [...(await bySize.predict(seen, { width: 50, height: 37 })).label])
    bySize.destroy()
    predictor.destroy()
  }
})

test('tiles are as large as the adapter can hold, whichever image came before', async () => {
  const device = nullDevice({ bindingLimit: 2 ** 18 })
  const model = createModel(new Store(device, 'model'), { architecture: 'deeplabv3plus', config })
  const predictor = new Predictor(device, model)
  const planned = new Evaluator(device, model, { mode: 'original' })
  assert.equal((await predictor.plan({ width: 60, height: 40 })).tiles.length, 1)
  for (const size of [
    { width: 600, height: 400 },
    { width: 150, height: 3000 },
  ]) {
    const { tiles, resizesScores } = await predictor.plan(size)
    assert.ok(tiles.length > 1 && !resizesScores)
    const { w = 0, h = 0 } = tiles[0]?.seen ?? {}
    assert.ok(await planned.prepare({ width: w, height: h }))
    const [larger] = tilesOf(size.width, size.height, w * h * 2 ** (1 / 4))
    assert.ok(larger && larger.seen.w * larger.seen.h > w * h * 1.1)
    assert.not(await planned.prepare({ width: larger.seen.w, height: larger.seen.h }))
    assert.equal((await new Predictor(device, model).plan(size)).tiles, tiles)
  }
  const scaled = await new Predictor(device, model, { scales: [1, 2] }).plan({ width: 600, height: 400 })
  assert.ok(scaled.tiles.length > 3 * (await predictor.plan({ width: 600, height: 400 })).tiles.length)
  // The model sees few pixels, but the classes of all are too many for a buffer.
  const shrinking = await new Predictor(device, model, { longSide: 50 }).plan({ width: 400, height: 400 })
  assert.equal([shrinking.tiles.length, shrinking.resizesScores, shrinking.seen.width], [1, false, 50])
})

test('an image that is too large for the adapter is evaluated in the tiles that predict it, with the same result', async () => {
  const side = Math.ceil(Math.sqrt(device.gpu.limits.maxStorageBufferBindingSize / (4 * nclass))) + 1
  const image = imageOf(new Random(11), 60, 41)
  const label = labelOf(new Random(12), 60, 41)
  const whole = evaluator()
  assert.ok((await whole.plan({ width: side, height: side })).length > 1)
  const options = { scores: false, maxPixels: 700 }
  for (const mode of ['original', 'center_crop'] as const) {
    const tiled = evaluator({ ...options, mode, window: 48 })
    const seen = mode === 'original' ? image : cut(image, 3, { x: 6, y: 0, w: 48, h: 41 })
    const target = mode === 'original' ? label : cut(label, 1, { x: 6, y: 0, w: 48, h: 41 })
    const predictor = new Predictor(device, model, { maxPixels: 700 })
    const { data } = await predictor.predict(seen)
    const counts = new Float64Array(nclass * nclass)
    for (const [i, wanted] of target.data.entries()) {
      const place = wanted * nclass + (data[i] ?? 0)
      if (wanted !== 255) counts[place] = (counts[place] ?? 0) + 1
    }
    tiled.reset()
    const prediction = await tiled.add({ image, label }, true)
    assert.equal([...(prediction?.label ?? [])], [...data])
    assert.equal(await tiled.confusion(), counts)
    assert.is(tiled.tiledImages, 1)
    await tiled.evaluate([{ image, label }])
    assert.equal(await tiled.confusion(), counts)
    tiled.destroy()
    predictor.destroy()
  }
  whole.destroy()
})

test('an image that is read in parts has the mask of one in memory, in any mode', async () => {
  const image = imageOf(new Random(15), 60, 41)
  const label = labelOf(new Random(16), 60, 41)
  const parts = { width: 60, height: 41, part: (box: Box) => Promise.resolve(cut(image, 3, box)) }
  const predictor = new Predictor(device, model, { maxPixels: 700 })
  const { data } = await predictor.predict(image)
  const rows: number[] = []
  for await (const { image: upper, mask } of predictor.predictRows(parts)) {
    assert.equal(upper, cut(image, 3, { x: 0, y: rows.length / 60, w: 60, h: mask.height }))
    rows.push(...mask.data)
  }
  assert.equal(rows, [...data])
  predictor.destroy()
  for (const mode of ['original', 'center_crop', 'sliding_window'] as const) {
    const either = evaluator({ mode, window: 24, maxPixels: 700, scores: false })
    assert.equal(await either.evaluate([{ image: parts, label }]), await either.evaluate([{ image, label }]))
    either.destroy()
  }
})

test('windows over mirrored images are so few that one program computes them: more are tiled', async () => {
  const sliding = evaluator({ mode: 'sliding_window', window: 3, flip: true, scores: false })
  const image = imageOf(new Random(13), 40, 30)
  const tiles = await sliding.plan(image)
  assert.ok(tiles.length > 1)
  const { label } = await sliding.predict(image)
  const [tile] = tiles
  if (!tile) throw new Error('no tile')
  const { seen, kept } = tile

  const first = await sliding.predict(cut(image, 3, seen))
  for (let x = kept.x; x < kept.x + kept.w; x++) assert.is(label[x], first.label[x - seen.x])
  sliding.destroy()
})

test('windows that the adapter does not bind are refused with what it does', async () => {
  const small = nullDevice({ bindingLimit: 40_000 })
  const sliding = new Evaluator(small, model, { mode: 'sliding_window', window: 200 })
  try {
    await sliding.predict(imageOf(new Random(14), 300, 300))
    assert.unreachable()
  } catch (error) {
    assert.instance(error, UserError)
    const [, most] = /windows \(crop_size\) of at most (\d+) pixels, or the mode original/.exec(String(error)) ?? []
    assert.ok(Number(most) > 20, String(error))
    const fitting = new Evaluator(small, model, { mode: 'sliding_window', window: Number(most) })
    await fitting.predict(imageOf(new Random(14), 300, 300))
  }
})

test('a list of scales is read where each is a number of a usual size', () => {
  assert.equal(parseScales('0.75, 1,1.25'), [0.75, 1, 1.25])
  for (const text of ['', '1,', '0', 'a', '1,99', '-1', 'NaN']) assert.is(parseScales(text), undefined, text)
})

test.run()
