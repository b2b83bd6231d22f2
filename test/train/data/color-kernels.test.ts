import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { adjustContrast, adjustHue } from '#dist/train/data/color.js'
import { blendLevel, blendLuma, fromHsv, meanLuma, toHsv, turnHue } from '#dist/train/data/color-kernels.js'
import { Random } from '#dist/train/random.js'

const { fround, trunc, floor } = Math

/** What becomes of the three bytes of a pixel, in place. */
type Rule = (pixels: Uint8Array, at: number) => void

function put(pixels: Uint8Array, at: number, a: number, b: number, c: number): void {
  pixels[at] = a
  pixels[at + 1] = b
  pixels[at + 2] = c
}

/** Pillow's way from RGB to HSV, in its number types. */
const toPillowHsv: Rule = (pixels, at) => {
  const [red, green, blue] = [pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number]
  const max = Math.max(red, green, blue)
  const range = max - Math.min(red, green, blue)
  if (range === 0) return put(pixels, at, 0, 0, max)
  const toRed = fround((max - red) / range)
  const toGreen = fround((max - green) / range)
  const toBlue = fround((max - blue) / range)
  const sixth =
    red === max ? fround(toBlue - toGreen) : green === max ? fround(2 + toRed - toBlue) : fround(4 + toGreen - toRed)
  put(pixels, at, trunc(fround((sixth / 6 + 1) % 1) * 255), trunc(fround(range / max) * 255), max)
}

/** And back. */
const fromPillowHsv: Rule = (pixels, at) => {
  const [hue, saturation, value] = [pixels[at] as number, pixels[at + 1] as number, pixels[at + 2] as number]
  const position = (hue * 6) / 255
  const sector = floor(position)
  const fraction = fround(position - sector)
  const s = fround(saturation / 255)
  const low = floor(value * (1 - s) + 0.5)
  const falling = floor(value * (1 - fround(s * fraction)) + 0.5)
  const rising = floor(value * (1 - s * (1 - fraction)) + 0.5)
  if (sector === 1) put(pixels, at, falling, value, low)
  else if (sector === 2) put(pixels, at, low, value, rising)
  else if (sector === 3) put(pixels, at, low, falling, value)
  else if (sector === 4) put(pixels, at, rising, low, value)
  else if (sector === 5) put(pixels, at, value, low, falling)
  else put(pixels, at, value, rising, low)
}

const lumaAt = (pixels: Uint8Array, at: number): number =>
  ((pixels[at] as number) * 19595 + (pixels[at + 1] as number) * 38470 + (pixels[at + 2] as number) * 7471 + 0x8000) >>
  16

/** Blends with the level that `levelAt` gives. */
const blended =
  (factor: number, levelAt: (pixels: Uint8Array, at: number) => number): Rule =>
  (pixels, at) => {
    const level = levelAt(pixels, at)
    const [a, b, c] = [0, 1, 2].map((channel) => {
      const mixed = fround(level + fround(fround(factor) * ((pixels[at + channel] as number) - level)))
      return trunc(Math.min(255, Math.max(0, mixed)))
    }) as [number, number, number]
    put(pixels, at, a, b, c)
  }

/** The first pixel that a change makes to something else than the rule says. */
function mistakeOf(pixels: Uint8Array, change: (pixels: Uint8Array) => void, rule: Rule): string {
  const [changed, expected] = [new Uint8Array(pixels), new Uint8Array(pixels)]
  change(changed)
  for (let at = 0; at < pixels.length; at += 3) rule(expected, at)
  const wrong = changed.findIndex((value, i) => value !== expected[i])
  if (wrong < 0) return ''
  const [from, actual, wanted] = [pixels, changed, expected].map((all) =>
    all.subarray(wrong - (wrong % 3)).subarray(0, 3),
  )
  return `${from} became ${actual} instead of ${wanted}`
}

/** Of all 2^24 colours the first one that becomes something else than the rule says. */
function mistakeOfAny(change: (pixels: Uint8Array) => void, rule: Rule): string {
  const pixels = new Uint8Array(3 * 2 ** 16)
  for (let first = 0; first < 256; first++) {
    for (let i = 0; i < 2 ** 16; i++) put(pixels, 3 * i, first, i >> 8, i & 255)
    const mistake = mistakeOf(pixels, change, rule)
    if (mistake !== '') return mistake
  }
  return ''
}

test('every colour becomes the HSV of Pillow', () => {
  assert.is(mistakeOfAny(toHsv, toPillowHsv), '')
})

test('every HSV becomes the colour of Pillow', () => {
  assert.is(mistakeOfAny(fromHsv, fromPillowHsv), '')
})

function noise(count: number): Uint8Array {
  const random = new Random(count)
  return Uint8Array.from({ length: 3 * count }, () => random.integer(0, 256))
}

test('any number of pixels is changed, and nothing beside them', () => {
  for (const count of [1, 2, 3, 4, 5, 23, 16_383, 16_384, 16_385, 50_001]) {
    const all = noise(count + 2)
    const pixels = all.subarray(3, 3 * count + 3)
    const original = new Uint8Array(pixels)
    const outside = () => [...all.subarray(0, 3), ...all.subarray(3 * count + 3)]
    const before = outside()
    let sum = 0
    for (let at = 0; at < pixels.length; at += 3) sum += lumaAt(pixels, at)
    assert.is(meanLuma(pixels), sum / count)
    const check = (change: (pixels: Uint8Array) => void, rule: Rule) => {
      assert.is(mistakeOf(original, change, rule), '', `${count} pixels`)
      pixels.set(original)
      change(pixels)
      assert.equal(outside(), before)
    }
    for (const factor of [0, 0.77, 1.4999]) {
      check(
        (data) => blendLevel(data, 0, factor),
        blended(factor, () => 0),
      )
      check((data) => blendLuma(data, factor), blended(factor, lumaAt))
      check(
        (data) => adjustContrast(data, factor),
        blended(factor, () => trunc(sum / count + 0.5)),
      )
    }
    check(
      (data) => turnHue(data, 200),
      (data, at) => {
        toPillowHsv(data, at)
        data[at] = ((data[at] as number) + 200) & 255
        fromPillowHsv(data, at)
      },
    )
  }
})

test('the hue is turned towards both sides, by whole steps', () => {
  const [left, right] = [noise(50), noise(50)]
  adjustHue(left, -0.25)
  turnHue(right, 256 - 63)
  assert.equal(left, right)
})

test.run()
