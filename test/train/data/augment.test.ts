import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import * as augment from '#dist/train/data/augment.js'
import { gaussianBlur } from '#dist/train/data/blur.js'
import { adjustContrast, adjustHue, adjustSaturation } from '#dist/train/data/color.js'
import { cut, type Image } from '#dist/train/data/pixels.js'
import { resizeBilinear, resizeNearest } from '#dist/train/data/resize.js'
import { Random } from '#dist/train/random.js'
import { checkAugment } from '../../golden/augment.js'
import { augmented, labeledFields, unlabeledFields } from '../../support/augmented.js'
import { skipUnless } from '../../support/skip.js'

const test = suite('augment')
const golden = fileURLToPath(new URL('../../../../../shared/golden/', import.meta.url))
const goldenTest = skipUnless(existsSync(join(golden, 'augment.json')), '../shared/golden is absent', test)

const none = new Uint8Array()

/** 5 x 4 pixels with slopes and jumps. */
const picture: Image = { data: new Uint8Array(60), width: 5, height: 4 }
for (let i = 0; i < 60; i++) {
  const x = Math.floor(i / 3) % 5
  const y = Math.floor(i / 15)
  picture.data[i] = 37 * (5 * y + x) + 11 * (i % 3) * (x + 1) + 3 * y * y
}
const red: Image = { ...picture, data: picture.data.filter((_, i) => i % 3 === 0) }

/** The first `count` bytes after an operation in place. */
function after(change: (data: Uint8Array) => void, count = 15): number[] {
  const copy = new Uint8Array(picture.data)
  change(copy)
  return Array.from(copy.subarray(0, count))
}

goldenTest('agrees with Pillow and torchvision in every case of the reference values', async () => {
  const device = await open()
  const results = await checkAugment(device, golden)
  device.destroy()
  assert.ok(results.length > 200)
  const failed = results.filter(({ error, tolerance }) => !(error <= tolerance))
  assert.equal(failed, [])
})

// Expected bytes below: Pillow 9.4.
test('resizes as Pillow does', () => {
  const small = [72, 88, 71, 71, 104, 120, 112, 162, 110, 173, 189, 150, 132, 136, 70, 88, 83, 134, 103, 119, 134]
  assert.equal(Array.from(resizeBilinear(picture, 3, 3).data.subarray(0, 21)), small)
  const wide = [99, 110, 121, 120, 137, 92, 115, 140, 76, 63, 96, 92, 89, 104, 134, 100, 128, 130, 100, 155, 101]
  assert.equal(Array.from(resizeBilinear(picture, 7, 2).data.subarray(0, 21)), wide)
  const nearest = [0, 37, 37, 74, 111, 111, 148, 126, 163, 163, 200, 237, 237, 18, 70, 107, 107, 144, 181, 181, 218]
  assert.equal(Array.from(resizeNearest(red, 7, 3).data), nearest)
})

test('changes colours as Pillow does', () => {
  assert.equal(
    after((data) => adjustContrast(data, 1.3)),
    [0, 0, 0, 11, 40, 68, 59, 102, 145, 107, 164, 222, 155, 227, 0],
  )
  assert.equal(
    after((data) => adjustSaturation(data, 0.6)),
    [3, 10, 16, 44, 57, 70, 84, 104, 124, 125, 151, 178, 154, 187, 66],
  )
  assert.equal(
    after((data) => adjustHue(data, -0.2)),
    [0, 22, 6, 37, 81, 50, 74, 140, 93, 112, 199, 136, 203, 17, 2],
  )
})

test('blurs as Pillow does', () => {
  assert.equal(
    after((data) => gaussianBlur(data, 5, 1.5), 30),
    [
      96, 114, 99, 97, 116, 102, 100, 121, 106, 103, 128, 108, 105, 132, 108, 107, 124, 108, 109, 125, 108, 112, 126,
      107, 115, 125, 106, 115, 124, 105,
    ],
  )
})

test('a window of a resize is that part of the whole', () => {
  const window = { x: 3, y: 2, w: 5, h: 6 }
  const whole = resizeBilinear(picture, 11, 9)
  assert.equal(resizeBilinear(picture, 11, 9, window), cut(whole, 3, window))
  const labels = resizeNearest(red, 11, 9)
  assert.equal(resizeNearest(red, 11, 9, window), cut(labels, 1, window))
})

test('pads right and below, then flips', () => {
  const draws = { longSide: 5, cropX: 0, cropY: 0, flip: true, strong: [] }
  const { img: image = none, mask: label = none } = augmented(picture, red, 6, labeledFields, draws, 200)
  assert.equal(Array.from(label.subarray(0, 6)), [200, 148, 111, 74, 37, 0])
  assert.equal(Array.from(label.subarray(24)), Array(12).fill(200))
  assert.equal(Array.from(image.subarray(0, 6)), [0, 0, 0, 148, 203, 2])
})

test('unlabeled padding alone is ignored; boxes are marked', () => {
  const plain = { jitter: null, gray: false, sigma: null, box: null }
  const draws = {
    ...{ longSide: 5, cropX: 0, cropY: 0, flip: false },
    strong: [plain, { ...plain, gray: true, box: { x: 1, y: 2, w: 3, h: 2 } }],
  }
  const out = augmented(picture, null, 6, unlabeledFields, draws)
  const { ignore_mask: ignore = none, img_s2: strong2 = none, box1 = none, box2 = none } = out
  const inside = (x: number, y: number) => x < 5 && y < 4
  assert.equal(
    Array.from(ignore),
    Array.from({ length: 36 }, (_, i) => (inside(i % 6, Math.floor(i / 6)) ? 0 : 255)),
  )
  assert.equal(out.img_s1, out.img_w)
  assert.is(strong2[3], strong2[5])
  assert.equal(Array.from(box1), Array(36).fill(0))
  assert.is(
    box2.reduce((a, b) => a + b, 0),
    6,
  )
  assert.is(box2[2 * 6 + 1], 1)
})

test('draws stay in their ranges, reach their ends and come as often as they should', () => {
  const count = 4000
  const size = 33
  const rates = { flip: 0, jitter: 0, gray: 0, blur: 0, box: 0 }
  const longSides = new Set<number>()
  for (let i = 0; i < count; i++) {
    const random = new Random(1, 2, 3, i)
    const image = { width: 40, height: 30, data: none }
    const { longSide = 0, cropX, cropY, flip, strong } = augment.drawSample(image, size, unlabeledFields, random)
    assert.is(strong.length, 2)
    longSides.add(longSide)
    const target = augment.targetSize(40, 30, longSide)
    assert.ok(cropX >= 0 && cropX <= Math.max(target.width - size, 0))
    assert.ok(cropY >= 0 && cropY <= Math.max(target.height - size, 0))
    const { jitter, gray, sigma, box } = strong[0] as augment.StrongDraws
    if (jitter) {
      assert.equal([...jitter.order].sort(), [0, 1, 2, 3])
      for (const factor of [jitter.brightness, jitter.contrast, jitter.saturation])
        assert.ok(factor >= 0.5 && factor < 1.5)
      assert.ok(Math.abs(jitter.hue) <= 0.25)
    }
    if (sigma !== null) assert.ok(sigma >= 0.1 && sigma < 2)
    if (box) {
      assert.ok(box.x + box.w <= size && box.y + box.h <= size)
      assert.ok(box.w * box.h <= 0.4 * size * size)
    }
    rates.flip += Number(flip)
    rates.jitter += Number(jitter !== null)
    rates.gray += Number(gray)
    rates.blur += Number(sigma !== null)
    rates.box += Number(box !== null)
  }
  assert.is(Math.min(...longSides), 20)
  assert.is(Math.max(...longSides), 80)
  for (const [name, expected] of Object.entries({ flip: 0.5, jitter: 0.8, gray: 0.2, blur: 0.5, box: 0.5 })) {
    const rate = rates[name as keyof typeof rates] / count
    assert.ok(Math.abs(rate - expected) < 0.035, `${name} came in ${rate} of the draws`)
  }
})

test('a very long picture keeps a pixel of its short side', () => {
  const line = { data: new Uint8Array(300 * 3).fill(7), width: 300, height: 1 }
  const label = { data: new Uint8Array(300), width: 300, height: 1 }
  const draws = { longSide: 150, cropX: 0, cropY: 0, flip: false, strong: [] }
  assert.is(augmented(line, label, 8, labeledFields, draws).img?.[0], 7)
})

test.run()
