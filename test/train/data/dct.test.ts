import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { augment, drawSample, drawStrong, drawWeak } from '#dist/train/data/augment.js'
import { batchBytes, batchViews, type FieldSpec, fieldSpec, type StreamSpec } from '#dist/train/data/batch.js'
import { coefficientCount, dctCoefficients, gridSize } from '#dist/train/data/dct.js'
import type { Image } from '#dist/train/data/pixels.js'
import { PURPOSE, Random } from '#dist/train/random.js'
import { checkAugment } from '../../golden/augment.js'
import { transformed } from '../../golden/dct.js'
import { skipUnless } from '../../support/skip.js'

const test = suite('dct')
const fixtures = 'test/fixtures/coefficients'
const golden = fileURLToPath(new URL('../../../../../shared/golden/tiny-diverse-cotraining', import.meta.url))
const goldenTest = skipUnless(existsSync(join(golden, 'augment.json')), '../shared/golden is absent', test)

function noise(width: number, height: number, seed = 1): Image {
  const random = new Random(seed)
  return { data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 256)), width, height }
}

for (const [name, folder, least] of [
  ['a part of the recorded values', fixtures, 25],
  ['all recorded values', golden, 35],
] as const) {
  const check = folder === golden ? goldenTest : test
  check(`${name}: the integers of libjpeg and of OpenCV, boxes and windows on the grid`, async () => {
    const device = await open()
    const results = await checkAugment(device, folder)
    device.destroy()
    assert.ok(results.length >= least, `${results.length} comparisons`)
    assert.equal(
      results.filter(({ error, tolerance }) => !(error <= tolerance)),
      [],
    )
  })
}

test('the integer transform is the cosine transform, but for its rounding', () => {
  const { data } = noise(8, 8, 3)
  const samples = data.subarray(0, 64)
  const actual = transformed(samples)
  const factor = (k: number) => (k === 0 ? Math.SQRT1_2 : 1)
  const cosine = (x: number, u: number) => Math.cos(((2 * x + 1) * u * Math.PI) / 16)
  for (let v = 0; v < 8; v++) {
    for (let u = 0; u < 8; u++) {
      let sum = 0
      for (let y = 0; y < 8; y++) {
        for (let x = 0; x < 8; x++) sum += ((samples[8 * y + x] ?? 0) - 128) * cosine(x, u) * cosine(y, v)
      }
      const exact = (factor(u) * factor(v) * sum) / 4
      assert.ok(Math.abs(exact - (actual[8 * v + u] ?? 0)) < 0.75, `${v},${u}: ${actual[8 * v + u]} for ${exact}`)
    }
  }
})

test('coefficients depend on pixels nearby alone', () => {
  const image = noise(45, 38)
  const [columns, rows] = [gridSize(45), gridSize(38)]
  const whole = dctCoefficients(image)
  assert.is(whole.length, columns * rows * coefficientCount)
  // A part that begins and ends a cell farther out than what is compared.
  const [left, top, width, height] = [8, 12, 24, 20]
  const data = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * 45 + left) * 3
    data.set(image.data.subarray(start, start + width * 3), y * width * 3)
  }
  const part = dctCoefficients({ data, width, height })
  for (let row = 1; row < height / 4 - 1; row++) {
    const at = (row * (width / 4) + 1) * coefficientCount
    const inWhole = ((top / 4 + row) * columns + left / 4 + 1) * coefficientCount
    const length = (width / 4 - 2) * coefficientCount
    assert.equal(part.subarray(at, at + length), whole.subarray(inWhole, inWhole + length))
  }
})

const fields = {
  img: { view: 'weak' },
  strong: { view: 'strong', draw: 0 },
  dct: { view: 'coefficients' },
  dct_strong: { view: 'coefficients', draw: 1 },
  odd: { view: 'padding' },
  box: { view: 'gridBox', draw: 1 },
  spread: { view: 'spreadBox', draw: 1 },
} satisfies Record<string, FieldSpec>
const stream: StreamSpec = {
  name: 'unlabeled',
  split: 'unlabeled',
  purpose: { order: PURPOSE.unlabeledOrder, sample: PURPOSE.unlabeledSample },
  fields,
}

test('the views of an image: coefficients of the weak and of a strong one, and the box on both grids', () => {
  const size = 30
  const image = noise(40, 33, 5)
  const draws = drawSample(image, size, fields, new Random(7))
  const [first, second] = draws.strong
  assert.ok(first && second)
  const box = { x: 1, y: 2, w: 3, h: 4 }
  const strong = [first, { ...second, gray: true, box }]
  const batch = batchViews(new SharedArrayBuffer(batchBytes([stream], 1, size)), [stream], 1, size)
  augment(image, null, size, fields, { ...draws, strong }, batch)
  const imageOf = (name: string): Image => ({ data: Uint8Array.from(batch[name] ?? []), width: size, height: size })
  assert.equal(batch.dct, dctCoefficients(imageOf('img')))
  // The same draws as a view of pixels.
  const alike = { strong: { view: 'strong', draw: 1 }, coefficients: { view: 'coefficients', draw: 1 } } as const
  const other = { strong: new Uint8Array(size * size * 3), coefficients: new Float32Array(64 * 64) }
  augment(image, null, size, alike, { ...draws, strong }, other)
  assert.equal(batch.dct_strong, dctCoefficients({ ...imageOf('img'), data: other.strong }))
  assert.not.equal(batch.dct_strong, batch.dct)
  const cells = Array.from({ length: 64 }, (_, i) => {
    const [x, y] = [i % 8, Math.floor(i / 8)]
    return Number(x >= box.x && x < box.x + box.w && y >= box.y && y < box.y + box.h)
  })
  assert.equal(Array.from(batch.box ?? []), cells)
  // 30 pixels over 8 cells: pixel i takes cell ⌊i * 8 / 30⌋.
  const pixels = Array.from({ length: size * size }, (_, i) => {
    const [x, y] = [Math.floor(((i % size) * 8) / 30), Math.floor((Math.floor(i / size) * 8) / 30)]
    return cells[8 * y + x]
  })
  assert.equal(Array.from(batch.spread ?? []), pixels)
})

test('boxes are drawn on the grid for the draws that show them there, in the order of all draws', () => {
  const image = noise(50, 40, 9)
  const size = 41
  for (let seed = 0; seed < 20; seed++) {
    const drawn = drawSample(image, size, fields, new Random(seed))
    const random = new Random(seed)
    const weak = drawWeak({ width: 50, height: 40 }, size, random)
    // The box of the first draw is one of pixels, which no field shows.
    assert.equal(drawn, {
      ...weak,
      strong: [drawStrong(size, random), drawStrong(gridSize(size), random)],
      intensity: [],
    })
  }
})

test('fields of floats begin at whole words', () => {
  const size = 9
  const layout = [{ ...stream, fields: { odd: fields.odd, dct: fields.dct, img: fields.img } }]
  const batch = batchViews(new SharedArrayBuffer(batchBytes(layout, 3, size)), layout, 3, size)
  assert.is(batch.odd?.length, 3 * 81)
  assert.ok(batch.dct instanceof Float32Array)
  assert.is(batch.dct.length, 3 * 9 * 64)
  assert.is(batch.dct.byteOffset % 4, 0)
  assert.ok(batch.dct.byteOffset >= 3 * 81)
  assert.equal(fieldSpec(fields.dct, 3, 9, 14), { shape: [3, 3, 4, 64], dtype: 'f32' })
  assert.equal(fieldSpec(fields.box, 3, 9, 14), { shape: [3, 3, 4], dtype: 'u8' })
  assert.equal(fieldSpec(fields.img, 3, 9, 14), { shape: [3, 9, 14, 3], dtype: 'u8' })
})

test.run()
