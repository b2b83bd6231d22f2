import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readImage } from '#dist/train/data/dataset.js'
import { type AnyImage, inParts, partOf } from '#dist/train/data/image-parts.js'
import { labelRules } from '#dist/train/data/label-rules.js'
import { openPair, openPhoto } from '#dist/train/data/open-image.js'
import { cut } from '#dist/train/data/pixels.js'
import { indexPng, OverlayRows, overlay, rgbPng } from '#dist/train/drawing/masks.js'
import { PngWriter } from '#dist/train/io/png-writer.js'
import { Random } from '#dist/train/random.js'
import { refuses } from '../../support/refuses.js'

const folder = mkdtempSync(join(tmpdir(), 'atrous-parts-'))
const at = (name: string) => join(folder, name)
test.after(() => rmSync(folder, { recursive: true }))

const openImage = async (path: string, inMemory?: number): Promise<AnyImage> =>
  (await openPhoto(path, 'apply', inMemory)).image

const random = new Random(1)
const [width, height] = [61, 47]
const noise = Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 256))
const raw = () => sharp(noise, { raw: { width, height, channels: 3 } })

test('parts of an image of any format are those of the whole image', async () => {
  const files = {
    'a.png': raw().png(),
    'interlaced.png': raw().png({ progressive: true }),
    'grey.png': raw().greyscale().png(),
    'a.jpg': raw().jpeg(),
    'progressive.jpg': raw().jpeg({ progressive: true }),
    'turned.jpg': raw().jpeg().withMetadata({ orientation: 6 }),
    'cmyk.jpg': raw().toColourspace('cmyk').jpeg(),
    'a.webp': raw().webp(),
    'a.tif': raw().tiff(),
    'tiled.tif': raw().tiff({ tile: true, tileWidth: 16, tileHeight: 16 }),
    'a.gif': raw().gif(),
  }
  for (const [name, picture] of Object.entries(files)) {
    await picture.toFile(at(name))
    const whole = await readImage(at(name))
    const opened = await openImage(at(name), 1000)
    assert.ok(inParts(opened), name)
    const isTurned = name === 'turned.jpg'
    assert.equal([opened.width, opened.height], isTurned ? [height, width] : [width, height])
    for (const box of [
      { x: 0, y: 0, w: 47, h: 20 },
      { x: 30, y: 0, w: 17, h: 20 },
      { x: 3, y: 15, w: 7, h: 32 },
      { x: 46, y: 46, w: 1, h: 1 },
    ]) {
      const part = await partOf(opened, box)
      assert.equal(Buffer.from(part.data), Buffer.from(cut(whole, 3, box).data), `${name} ${Object.values(box)}`)
    }
    assert.not(inParts(await openImage(at(name))))
  }
})

test('what cannot be read is refused, with the names of the files', async () => {
  await refuses(() => openImage(at('absent.jpg'), 10), 'absent.jpg')
  const whole = await raw().jpeg().toBuffer()
  await sharp(whole).toFile(at('whole.jpg'))
  writeFileSync(at('cut.jpg'), whole.subarray(0, whole.length / 2))
  const opened = await openImage(at('cut.jpg'), 10)
  await refuses(() => partOf(opened, { x: 0, y: height - 5, w: 5, h: 5 }), 'cut.jpg', 'rows 42 to 47')
  const label = { data: new Uint8Array(60 * height).fill(1), width: 60, height }
  writeFileSync(at('narrow.png'), await indexPng(label))
  const rules = labelRules({ nclass: 3, ignore_index: 255, reduce_zero_label: false })
  const sample = { name: 'whole', image: at('whole.jpg'), label: at('narrow.png') }
  await refuses(() => openPair(sample, rules, 10), 'narrow.png', '60x47')
})

test('a PNG that is written by rows has the pixels of one that is written at once, and appears when it is complete', async () => {
  const image = { data: noise, width, height }
  const mask = { data: Uint8Array.from({ length: width * height }, () => random.integer(0, 3)), width, height }
  const palette = [
    [255, 0, 0],
    [0, 255, 0],
    [0, 0, 255],
  ] as const
  const writers = [new PngWriter(at('made/mask.png'), image, 1), new PngWriter(at('made/over.png'), image, 3)] as const
  const rows = new OverlayRows(palette)
  for (let y = 0; y < height; y += 9) {
    const box = { x: 0, y, w: width, h: Math.min(9, height - y) }
    await writers[0].write(cut(mask, 1, box).data)
    await writers[1].write(rows.next(cut(image, 3, box), cut(mask, 1, box)))
  }
  await writers[1].write(rows.last())
  assert.ok(readdirSync(at('made')).every((name) => name.startsWith('.')))
  for (const writer of writers) await writer.finish()
  assert.equal(readdirSync(at('made')).sort(), ['mask.png', 'over.png'])
  const pixels = (png: Buffer | string) => sharp(png).raw().toBuffer()
  assert.equal(await pixels(at('made/mask.png')), await pixels(await indexPng(mask)))
  assert.equal(await pixels(at('made/over.png')), await pixels(await rgbPng(overlay(image, mask, palette))))
  const discarded = new PngWriter(at('made/none.png'), image, 3)
  await discarded.write(noise.subarray(0, width * 3))
  discarded.discard()
  assert.equal(readdirSync(at('made')).sort(), ['mask.png', 'over.png'])
})

test.run()
