import { crc32 } from 'node:zlib'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { drawSample, shortSideSize } from '#dist/train/data/augment.js'
import { type DistortionDraws, distortionOf, drawDistortion } from '#dist/train/data/photometric.js'
import type { Image } from '#dist/train/data/pixels.js'
import { Random } from '#dist/train/random.js'
import { augmented } from '../../support/augmented.js'
import { picture } from '../../support/picture.js'

const test = suite('photometric')

const { width, height } = picture

type Distortion = readonly [
  brightness: number | null,
  contrast: number | null,
  contrastFirst: boolean,
  saturation: number | null,
  hue: number | null,
]

/** The first pixels of row 11 and the CRC of all bytes, as OpenCV 4.6 gives them. */
const expected: readonly (readonly [Distortion, readonly number[], number])[] = [
  [[17.3, null, true, null, null], [90, 68, 117, 91, 105, 117, 94, 142, 117, 99, 179, 117, 106, 216, 117], 4013709146],
  [[-31.25, null, false, null, null], [41, 19, 68, 42, 56, 68, 45, 93, 68, 50, 130, 68, 57, 167, 68], 3199646971],
  [
    [null, 1.37, true, null, null],
    [100, 69, 137, 101, 120, 137, 105, 171, 137, 112, 221, 137, 121, 255, 137],
    3706967841,
  ],
  [[null, 0.61, false, null, null], [44, 31, 61, 45, 53, 61, 46, 76, 61, 50, 98, 61, 54, 121, 61], 2174377098],
  [[null, null, true, 1.45, null], [60, 29, 100, 63, 83, 100, 55, 125, 88, 46, 162, 73, 40, 199, 56], 2733285700],
  [[null, null, true, 0.55, null], [85, 73, 100, 86, 93, 100, 99, 125, 111, 118, 162, 128, 139, 199, 145], 696136402],
  [[null, null, false, null, -18], [51, 59, 100, 74, 100, 97, 83, 125, 77, 111, 162, 82, 144, 199, 89], 2705267748],
  [[null, null, false, null, 17], [100, 51, 100, 75, 74, 100, 77, 123, 125, 82, 162, 146, 89, 199, 162], 721938578],
  [[12.5, 1.2, true, 0.7, 9], [124, 93, 134, 112, 117, 134, 123, 164, 154, 141, 208, 177, 161, 253, 198], 1563582280],
  [[-8.75, 0.8, false, 1.3, -5], [35, 21, 72, 45, 64, 72, 43, 92, 58, 40, 122, 45, 44, 152, 37], 3381714843],
]

for (const [[brightness, contrast, contrastFirst, saturation, hue], pixels, crc] of expected) {
  test(`${[brightness, contrast, contrastFirst, saturation, hue].map(String)} gives the bytes of OpenCV`, () => {
    const data = new Uint8Array(picture.data)
    distortionOf({ brightness, contrast, contrastFirst, saturation, hue })(data)
    assert.equal(Array.from(data.subarray(3 * 11 * width, 3 * 11 * width + 15)), pixels)
    assert.is(crc32(data), crc)
  })
}

test('each operation is drawn half of the time, within its range, and contrast on either side', () => {
  const draws = Array.from({ length: 4000 }, (_, i) => drawDistortion(new Random(3, i)))
  const ranges = { brightness: [-32, 32], contrast: [0.5, 1.5], saturation: [0.5, 1.5], hue: [-18, 17] } as const
  for (const [name, [least, most]] of Object.entries(ranges)) {
    const values = draws.flatMap((draw) => draw[name as keyof typeof ranges] ?? [])
    assert.ok(Math.abs(values.length / 4000 - 0.5) < 0.04, name)
    const margin = name === 'hue' ? 0 : 0.01 * (most - least)
    assert.ok(Math.min(...values) >= least && Math.min(...values) <= least + margin, name)
    assert.ok(Math.max(...values) <= most && Math.max(...values) >= most - margin, name)
  }
  assert.ok(Math.abs(draws.filter(({ contrastFirst }) => contrastFirst).length / 4000 - 0.5) < 0.04)
})

const fields = { img: { view: 'distorted' }, mask: { view: 'label' } } as const
const weakFields = { img: { view: 'weak' }, mask: { view: 'label' } } as const

test('the distortion leaves the padding as it is', () => {
  const draws: DistortionDraws = { brightness: 20, contrast: null, contrastFirst: true, saturation: null, hue: null }
  const label: Image = { data: new Uint8Array(width * height), width, height }
  const placed = { width, height, cropX: 0, cropY: 0, strong: [], distortion: draws }
  for (const flip of [false, true]) {
    const padding = [7, 8, 9] as const
    const of = (which: typeof fields | typeof weakFields) =>
      augmented(picture, label, 40, which, { ...placed, flip }, 255, { padding })
    const { img: shown, mask } = of(fields)
    const { img: plain } = of(weakFields)
    for (let i = 0; i < 40 * 40; i++) {
      const isPadding = mask?.[i] === 255
      for (const c of [0, 1, 2]) {
        const level = plain?.[3 * i + c] ?? -1
        assert.is(shown?.[3 * i + c], isPadding ? padding[c] : Math.min(255, level + 20))
      }
    }
  }
})

test('the shorter side is resized to a length times a factor', () => {
  assert.equal(shortSideSize({ width: 100, height: 50 }, 25), { width: 50, height: 25 })
  assert.equal(shortSideSize({ width: 33, height: 101 }, 16), { width: 16, height: 49 })
  const shorter = Array.from({ length: 2000 }, (_, i) => {
    const drawn = drawSample(picture, 20, weakFields, new Random(1, i), { resize: { shortSide: 64, scale: [0.5, 2] } })
    return drawn.longSide === undefined ? Math.min(drawn.width, drawn.height) : 0
  })
  assert.equal([Math.min(...shorter), Math.max(...shorter)], [32, 127])
})

test('crops with too much of one class are drawn anew', () => {
  // One class on the left, another in the rightmost quarter, and a corner without a label.
  const label: Image = { data: new Uint8Array(width * height), width, height }
  for (let i = 0; i < width * height; i++) if (i % width >= 24) label.data[i] = 3
  label.data.fill(255, 0, 10)
  const shareOf = (maxClassShare: number | undefined, i: number, flipsFirst: boolean) => {
    const geometry = { flipsFirst, ...(maxClassShare !== undefined && { maxClassShare }) }
    const annotation = { label, ignore: 255 }
    const draws = drawSample(picture, 12, weakFields, new Random(5, i), geometry, annotation)
    const mask = augmented(picture, label, 12, weakFields, draws, 255, geometry).mask ?? []
    const counts = [0, 3].map((value) => mask.filter((shown) => shown === value).length)
    return Math.max(...counts) / ((counts[0] ?? 0) + (counts[1] ?? 0))
  }
  for (const flipsFirst of [false, true]) {
    const varied = (most: number | undefined) =>
      Array.from({ length: 300 }, (_, i) => shareOf(most, i, flipsFirst)).filter((share) => share < 0.75).length
    const [usual, limited] = [varied(undefined), varied(0.75)]
    assert.ok(limited > 1.5 * usual && limited > 200, `${usual} and ${limited} of 300`)
  }
})

test.run()
