import { decode as decodePng } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { contactSheet } from '#dist/demo/sheet.js'
import { textSize } from '#dist/train/drawing/font.js'

const size = 4
const palette = [
  [10, 20, 30],
  [40, 50, 60],
] as const
const options = { size, palette, classNames: ['a', 'b'], zoom: 10 }
const row = (prediction: number) => ({
  image: new Uint8Array(size * size * 3).fill(200),
  truth: new Uint8Array(size * size).fill(1),
  predictions: [{ name: 'method', mask: new Uint8Array(size * size).fill(prediction) }],
})

function decode(bytes: Uint8Array): { width: number; height: number; at(x: number, y: number): number[] } {
  const { width, height, channels, data } = decodePng(bytes)
  const at = (x: number, y: number) => [...data.subarray((y * width + x) * channels).subarray(0, 3)]
  return { width, height, at }
}

test('columns, rows and legend lie where they should', async () => {
  const page = decode(await contactSheet([row(0), row(255)], options).png())
  // 3 cells of 40 and 2 gaps of 8 between margins of 24; a title, two rows and one line of legend
  assert.is(page.width, 24 + 3 * 40 + 2 * 8 + 24)
  const top = 24 + 2 * 22 + 8
  assert.equal(page.at(0, 0), [255, 255, 255])
  assert.equal(page.at(24, top), [200, 200, 200], 'image')
  assert.equal(page.at(24 + 48, top), [40, 50, 60], 'truth')
  assert.equal(page.at(24 + 48 + 39, top + 39), [40, 50, 60], 'last pixel of the truth')
  assert.equal(page.at(24 + 48 + 40, top), [255, 255, 255], 'gap')
  assert.equal(page.at(24 + 96, top), [10, 20, 30], 'prediction')
  assert.equal(page.at(24 + 96, top + 48), [200, 200, 200], 'ignored pixels are grey')
  const legendTop = top + 2 * 48 + 8
  const legend = Array.from({ length: page.width }, (_, x) => page.at(x, legendTop + 10).join())
  assert.ok(
    legend.indexOf('10,20,30') >= 0 && legend.indexOf('10,20,30') < legend.indexOf('40,50,60'),
    'legend in order',
  )
  assert.ok(page.height > legendTop + 20)
})

test('titles are drawn, with their captions', async () => {
  const dark = (bytes: Uint8Array): number => {
    const page = decode(bytes)
    let count = 0
    for (let y = 0; y < 76; y++) for (let x = 0; x < page.width; x++) if ((page.at(x, y)[0] ?? 255) < 128) count++
    return count
  }
  const plain = dark(await contactSheet([row(0)], options).png())
  assert.ok(plain > 100)
  assert.ok(dark(await contactSheet([row(0)], { ...options, captions: { method: 'mIoU 61.2' } }).png()) > plain + 50)
})

test('blocks put rows side by side', async () => {
  const tall = decode(await contactSheet([row(0), row(0), row(0), row(0)], options).png())
  const wide = decode(await contactSheet([row(0), row(0), row(0), row(0)], { ...options, blocks: 2 }).png())
  assert.is(wide.width, 48 + 2 * (3 * 40 + 2 * 8) + 24)
  assert.ok(wide.height < tall.height)
})

test('maps of another size and differing columns are refused', async () => {
  const small = { ...row(0), truth: new Uint8Array(3) }
  assert.throws(() => contactSheet([small], options), /a mask of row 0 is not 4x4/)
  const other = { ...row(0), predictions: [] }
  assert.throws(() => contactSheet([row(0), other], options), /row 1 has other predictions/)
  assert.throws(() => contactSheet([], options), /no rows/)
})

test('a text is as wide as its glyphs and the gaps between them', async () => {
  assert.equal(textSize('', 2), { width: 0, height: 16 })
  assert.equal(textSize('AI', 1), { width: 5 + 1 + 3, height: 8 })
  assert.equal(textSize('AI', 3), { width: 27, height: 24 })
})

test.run()
