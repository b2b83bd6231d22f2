import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { drawSample, scaledSize } from '#dist/train/data/augment.js'
import {
  changeIntensity,
  drawIntensity,
  type IntensityName,
  intensityNames,
  intensityOperations,
} from '#dist/train/data/intensity.js'
import type { Image } from '#dist/train/data/pixels.js'
import { resizeBilinear, resizeNearest } from '#dist/train/data/resize.js'
import { Random } from '#dist/train/random.js'
import { checkAugment } from '../../golden/augment.js'
import { augmented, labeledFields } from '../../support/augmented.js'
import { picture } from '../../support/picture.js'
import { skipUnless } from '../../support/skip.js'

const test = suite('intensity')
const golden = fileURLToPath(new URL('../../../../../shared/golden/tiny-augseg/', import.meta.url))
const goldenTest = skipUnless(existsSync(join(golden, 'augment.json')), '../shared/golden is absent', test)

goldenTest('agrees with Pillow in every recorded case and table', async () => {
  const device = await open()
  const results = await checkAugment(device, golden)
  device.destroy()
  assert.ok(results.length > 114)
  const failed = results.filter(({ error, tolerance }) => !(error <= tolerance))
  assert.equal(failed, [])
})

const { width } = picture

function changed(name: IntensityName, parameter = 0): Uint8Array {
  const data = new Uint8Array(picture.data)
  changeIntensity(data, width, [{ name, parameter }])
  return data
}

/** Pixels of a row, the first of which is at the border. */
const shown = (data: Uint8Array): number[] => Array.from(data.subarray(3 * 11 * width, 3 * 11 * width + 15))

/** By operation and parameter, of Pillow 9.4. */
const expected: readonly (readonly [IntensityName, number, readonly number[]])[] = [
  ['autocontrast', 0, [52, 51, 0, 54, 88, 0, 59, 125, 0, 67, 162, 0, 78, 199, 0]],
  ['equalize', 0, [75, 70, 0, 77, 122, 0, 85, 175, 0, 97, 227, 0, 118, 255, 0]],
  ['posterize', 5, [72, 48, 96, 72, 88, 96, 72, 120, 96, 80, 160, 96, 88, 192, 96]],
  ['solarize', 133, [73, 51, 100, 74, 88, 100, 77, 125, 100, 82, 93, 100, 89, 56, 100]],
  ['contrast', 0.35, [108, 100, 117, 108, 113, 117, 109, 126, 117, 111, 139, 117, 113, 152, 117]],
  ['brightness', 0.7, [51, 35, 70, 51, 61, 70, 53, 87, 70, 57, 113, 70, 62, 139, 70]],
  ['color', 0.2, [65, 60, 70, 82, 85, 88, 101, 111, 106, 121, 137, 124, 141, 163, 144]],
  ['sharpness', 0.15, [73, 51, 100, 74, 92, 117, 77, 129, 117, 82, 166, 117, 89, 186, 117]],
  ['sharpness', 0.85, [73, 51, 100, 74, 88, 103, 77, 125, 103, 82, 162, 103, 89, 196, 103]],
]

for (const [name, parameter, bytes] of expected) {
  test(`${name} ${parameter} gives the bytes of Pillow`, () => {
    assert.equal(shown(changed(name, parameter)), bytes)
  })
}

test('identity changes nothing, and channels of one value stay as they are', () => {
  assert.equal(changed('identity'), picture.data)
  const flat = new Uint8Array(300).fill(77)
  for (const name of ['autocontrast', 'equalize'] as const) {
    const data = new Uint8Array(flat)
    changeIntensity(data, 10, [{ name, parameter: 0 }])
    assert.equal(data, flat)
  }
})

test('images of two rows or columns have no inner pixels to sharpen', () => {
  for (const [width, height] of [
    [2, 30],
    [30, 2],
    [1, 1],
  ] as const) {
    const data = picture.data.slice(0, 3 * width * height)
    const before = new Uint8Array(data)
    changeIntensity(data, width, [{ name: 'sharpness', parameter: 0.3 }])
    assert.equal(data, before)
  }
})

test('one to three operations are drawn, each as often, and their parameters stay in their ranges', () => {
  const ranges: Partial<Record<IntensityName, readonly [number, number]>> = {
    ...{ blur: [0.1, 2], posterize: [4, 7], solarize: [1, 255], hue: [-0.5, 0.5] },
    ...{ contrast: [0.05, 0.95], brightness: [0.05, 0.95], color: [0.05, 0.95], sharpness: [0.05, 0.95] },
  }
  const counts = [0, 0, 0, 0]
  const drawn = new Map<IntensityName, number[]>()
  for (let i = 0; i < 4000; i++) {
    const draws = drawIntensity(3, new Random(5, i))
    counts[draws.length] = (counts[draws.length] ?? 0) + 1
    for (const { name, parameter } of draws) drawn.set(name, [...(drawn.get(name) ?? []), parameter])
  }
  assert.is(counts[0], 0)
  for (const count of counts.slice(1)) assert.ok(Math.abs(count / 4000 - 1 / 3) < 0.03)
  assert.equal([...drawn.keys()].sort(), [...intensityNames].sort())
  for (const [name, parameters] of drawn) {
    assert.ok(Math.abs(parameters.length / 8000 - 1 / 11) < 0.015, name)
    const [low, high] = ranges[name] ?? [0, 0]
    const [least, most] = [Math.min(...parameters), Math.max(...parameters)]
    assert.ok(least >= low && most <= high, `${name}: ${least} to ${most}`)
    assert.ok(least <= low + 0.03 * (high - low) && most >= high - 0.03 * (high - low), `${name}: ${least} to ${most}`)
  }
  const hues = drawn.get('hue') ?? []
  assert.ok(Math.abs(hues.filter((turn) => turn < 0).length / hues.length - 0.5) < 0.06)
})

test('every operation is drawn with what it uses alone', () => {
  const used: [IntensityName, number][] = intensityNames.map((name) => {
    const random = new Random(3)
    intensityOperations[name].draw(random)
    return [name, random.state.position / 2]
  })
  const none = ['identity', 'autocontrast', 'equalize']
  for (const [name, draws] of used) assert.is(draws, none.includes(name) ? 0 : name === 'hue' ? 2 : 1, name)
})

const red: Image = { ...picture, data: picture.data.filter((_, i) => i % 3 === 0) }
const geometry = { flipsFirst: true, padding: [123, 116, 103] } as const

/** The bytes at a pixel, of one after another in rows of `columns`. */
const pixel = (data: Uint8Array, columns: number, x: number, y: number, channels: number): number[] =>
  Array.from(data.subarray((y * columns + x) * channels, (y * columns + x + 1) * channels))

for (const [size, resized, cropX, cropY] of [
  [40, { width: 26, height: 20 }, 0, 0],
  [24, { width: 33, height: 20 }, 7, 0],
  [16, { width: 45, height: 50 }, 12, 30],
] as const) {
  for (const flip of [false, true]) {
    const direction = flip ? 'mirrored' : 'plain'
    test(`a ${direction} image of ${resized.width}x${resized.height} is padded behind, then cropped to ${size}`, () => {
      const draws = { ...resized, cropX, cropY, flip, strong: [] }
      const { img = new Uint8Array(), mask = new Uint8Array() } = augmented(
        ...([picture, red, size, labeledFields, draws, 200, geometry] as const),
      )
      const whole = resizeBilinear(picture, resized.width, resized.height)
      const labels = resizeNearest(red, resized.width, resized.height)
      for (let y = 0; y < size; y++) {
        for (let x = 0; x < size; x++) {
          const [column, row] = [x + cropX, y + cropY]
          const isInside = column < resized.width && row < resized.height
          const from = flip ? resized.width - 1 - column : column
          const color = isInside ? pixel(whole.data, resized.width, from, row, 3) : [...geometry.padding]
          const label = isInside ? pixel(labels.data, resized.width, from, row, 1) : [200]
          assert.equal(pixel(img, size, x, y, 3), color, `${x}, ${y}`)
          assert.equal(pixel(mask, size, x, y, 1), label, `${x}, ${y}`)
        }
      }
    })
  }
}

test('sizes are drawn whatever the size of the image', () => {
  const sides = new Set<number | undefined>()
  const heights: number[] = []
  for (let i = 0; i < 3000; i++) {
    const long = drawSample(picture, 20, labeledFields, new Random(1, i), { resize: { longSide: [25, 31] } })
    sides.add(long.longSide)
    const scaled = drawSample(picture, 20, labeledFields, new Random(2, i), {
      resize: { scale: [0.5, 2], base: [64, 128] },
    })
    assert.is(scaled.longSide, undefined)
    if (scaled.longSide !== undefined) continue
    assert.ok(Math.abs(scaled.width - 2 * scaled.height) <= 1)
    heights.push(scaled.height)
  }
  assert.equal([...sides].sort(), [25, 26, 27, 28, 29, 30, 31])
  assert.equal([Math.min(...heights), Math.max(...heights)], [32, 127])
  assert.equal(scaledSize([1, 1000], 0.5), { width: 500, height: 1 })
})

test.run()
