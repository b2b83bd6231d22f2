import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { contactSheet } from '#dist/comparison/contact-sheet.js'
import { render } from '../support/render.js'

const size = 4
const palette = [
  [10, 20, 30],
  [40, 50, 60],
] as const
const options = { palette, classNames: ['a', 'b'], zoom: 10 }
const row = (prediction: number) => ({
  width: size,
  height: size,
  image: new Uint8Array(size * size * 3).fill(200),
  groundTruth: new Uint8Array(size * size).fill(1),
  predictions: [{ name: 'method', mask: new Uint8Array(size * size).fill(prediction) }],
})

test('columns, rows and legend lie where they should', async () => {
  const page = await render(await contactSheet([row(0), row(255)], options))
  // 3 cells of 40 and 2 gaps of 8 between margins of 24; a title, two rows and one line of legend
  assert.is(page.width, 24 + 3 * 40 + 2 * 8 + 24)
  const top = 24 + 48
  assert.equal(page.at(0, 0), [255, 255, 255])
  assert.equal(page.at(24, top), [200, 200, 200], 'image')
  assert.equal(page.at(24 + 48, top), [40, 50, 60], 'ground truth')
  assert.equal(page.at(24 + 48 + 39, top + 39), [40, 50, 60], 'last pixel of the ground truth')
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

test('images keep their pixels, enlarged without blur', async () => {
  const checked = { ...row(0), groundTruth: Uint8Array.from({ length: size * size }, (_, i) => (i + (i >> 2)) % 2) }
  const page = await render(await contactSheet([checked], options))
  for (let y = 0; y < 40; y++) {
    for (let x = 0; x < 40; x++) {
      const expected = palette[(Math.floor(x / 10) + Math.floor(y / 10)) % 2] ?? []
      assert.equal(page.at(24 + 48 + x, 24 + 48 + y), [...expected], `${x}, ${y}`)
    }
  }
})

test('titles are drawn, with their captions', async () => {
  const plain = await contactSheet([row(0)], options)
  for (const title of ['image', 'ground truth', 'method', 'a', 'b'])
    assert.ok(plain.includes(`>${title}</text>`), title)
  const captioned = await contactSheet([row(0)], { ...options, captions: { method: 'mIoU 61.2' } })
  assert.ok(captioned.includes('>mIoU 61.2</text>'))
})

test('images of any size are as wide as their column', async () => {
  const [width, height] = [600, 200]
  const large = {
    ...{ width, height },
    image: new Uint8Array(width * height * 3).fill(200),
    groundTruth: new Uint8Array(width * height).fill(1),
    predictions: [{ name: 'method', mask: new Uint8Array(width * height) }],
  }
  const page = await render(await contactSheet([large], { palette, classNames: ['a', 'b'] }))
  assert.is(page.width, 24 + 3 * 300 + 2 * 8 + 24)
  const top = 24 + 48
  assert.equal(page.at(24 + 308 + 299, top + 99), [40, 50, 60], 'last pixel of the ground truth')
  assert.equal(page.at(24 + 308, top + 100), [255, 255, 255], 'below it')
})

test('maps of another size and differing columns are refused', async () => {
  const refuses = async (rows: Parameters<typeof contactSheet>[0], why: RegExp) => {
    const error: unknown = await contactSheet(rows, options).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    assert.instance(error, RangeError)
    assert.match(String(error), why)
  }
  await refuses([{ ...row(0), groundTruth: new Uint8Array(3) }], /a mask of row 0 is not 4x4/)
  await refuses([row(0), { ...row(0), predictions: [] }], /row 1 has other predictions/)
  await refuses([], /no rows/)
})

test.run()
