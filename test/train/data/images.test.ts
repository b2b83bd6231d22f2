// Images as they are decoded: which way up, and in which colours.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encode } from 'fast-png'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { cmykToRgb } from '#dist/train/data/color.js'
import { readImage, readPair } from '#dist/train/data/dataset.js'
import { refuses } from '../../support/refuses.js'

const test = suite('images')
const folder = mkdtempSync(join(tmpdir(), 'images-'))
test.after(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)
const rules = { nclass: 5, ignoreIndex: 255, reduceZero: false }

/** A smooth picture that differs from number to number. */
function pixelsOf(width: number, height: number, number: number): Uint8Array {
  return Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const x = Math.floor(i / 3) % width
    const y = Math.floor(i / (3 * width))
    return 128 + 90 * Math.sin((x * (1 + (i % 3)) + y * 2 + number * 7) / 9)
  })
}

function writeLabel(name: string, width: number, height: number, values: (i: number) => number): void {
  const data = Uint8Array.from({ length: width * height }, (_, i) => values(i))
  writeFileSync(at(name), encode({ width, height, data, channels: 1, depth: 8 }))
}

/** [H, W, 3]: pixels whose column and row in the result of an orientation are those of `from` in an image. */
function moved(pixels: Uint8Array, [width, height]: [number, number], orientation: number): Uint8Array {
  const turns = orientation > 4
  const [w, h] = turns ? [height, width] : [width, height]
  const from = (x: number, y: number): [number, number] => {
    const [right, below] = [w - 1 - x, h - 1 - y]
    const places: [number, number][] = [
      [x, y],
      [right, y],
      [right, below],
      [x, below],
      [y, x],
      [y, right],
      [below, right],
      [below, x],
    ]
    return places[orientation - 1] ?? [x, y]
  }
  return Uint8Array.from({ length: pixels.length }, (_, i) => {
    const [x, y] = from(Math.floor(i / 3) % w, Math.floor(i / 3 / w))
    return pixels[3 * (y * width + x) + (i % 3)] as number
  })
}

test('images are turned as their EXIF orientation says, or stay as stored', async () => {
  const [width, height] = [7, 4]
  const pixels = pixelsOf(width, height, 3)
  for (let orientation = 1; orientation <= 8; orientation++) {
    for (const format of ['png', 'webp', 'tiff'] as const) {
      const path = at(`turned-${orientation}.${format}`)
      const file = sharp(pixels, { raw: { width, height, channels: 3 } }).withMetadata({ orientation })
      await file.toFormat(format, format === 'tiff' ? { compression: 'lzw' } : { lossless: true }).toFile(path)
      const image = await readImage(path)
      const sides = orientation > 4 ? [height, width] : [width, height]
      assert.equal([image.width, image.height], sides, path)
      assert.equal([...image.data], [...moved(pixels, [width, height], orientation)], path)
      const stored = await readImage(path, 'stored')
      assert.equal([stored.width, stored.height], [width, height], path)
      assert.equal([...stored.data], [...pixels], path)
    }
  }
})

test('a label decides which way up its image is, where only one has its sides', async () => {
  writeLabel('upright.png', 4, 7, () => 1)
  writeLabel('lying-down.png', 7, 4, () => 1)
  const read = (label: string, orientation?: 'apply' | 'stored') => {
    const sample = { name: '', image: at('turned-6.png'), label: at(label) }
    return readPair(sample, orientation ? { ...rules, orientation } : rules)
  }
  const shown = await readImage(at('turned-6.png'))
  const stored = await readImage(at('turned-6.png'), 'stored')
  assert.equal((await read('upright.png')).image, shown)
  assert.equal((await read('lying-down.png')).image, stored)
  assert.equal((await read('lying-down.png', 'stored')).image, stored)
  await refuses(() => read('upright.png', 'stored'), 'turned-6.png has 7x4', '4x7', 'exif_orientation: apply')
})

test('CMYK becomes RGB by the formula of Pillow', async () => {
  // Ink of each colour, 0 to 255, and what Pillow 9.4 makes of it.
  const inks = [
    [0, 0, 0, 0],
    [255, 0, 0, 0],
    [0, 128, 64, 32],
    [10, 200, 30, 90],
    [255, 255, 255, 255],
    [77, 3, 199, 140],
  ]
  const expected = [
    [255, 255, 255],
    [0, 255, 255],
    [223, 111, 167],
    [159, 36, 146],
    [0, 0, 0],
    [80, 114, 25],
  ]
  assert.equal([...cmykToRgb(Uint8Array.from(inks.flat()))], expected.flat())
  // The same inks as JPEG (of Adobe's kind, inverted) and TIFF.
  const jpeg = [
    '/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ',
    'EBAQEB/8AAFAgAAQAGBEMRAE0RAFkRAEsRAP/EAB8AAAEFAQEBAQEBAAAAAAAAAAABAgMEBQYHCAkKC//EALUQAAIBAwMCBAMFBQQEAAABfQEC',
    'AwAEEQUSITFBBhNRYQcicRQygZGhCCNCscEVUtHwJDNicoIJChYXGBkaJSYnKCkqNDU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dX',
    'Z3eHl6g4SFhoeIiYqSk5SVlpeYmZqio6Slpqeoqaqys7S1tre4ubrCw8TFxsfIycrS09TV1tfY2drh4uPk5ebn6Onq8fLz9PX29/j5+v/aAA4E',
    'QwBNAFkASwAAPwD9Cda/5LZ+y/8A9lD/AODmn/19n8J6/aj4af8AK0p+0L/2i71z/wBWb+w9Xo3/AAdTf8nJ/sjf9gn9rb/1Gv2AK+2/+C9P/K',
    'R39mX/ALNS/aM/9WL+ylX/2Q==',
  ].join('')
  const tiff = [
    'SUkqAAgAAAAKAAABBAABAAAABgAAAAEBBAABAAAAAQAAAAIBAwAEAAAAhgAAAAMBAwABAAAAAQAAAAYBAwABAAAABQAAABEBBAABAAAAjgAAAB',
    'UBAwABAAAABAAAABYBBAABAAAAAQAAABcBBAABAAAAGAAAABwBAwABAAAAAQAAAAAAAAAIAAgACAAIAAAAAAD/AAAAAIBAIArIHlr/////TQPH',
    'jA==',
  ].join('')
  for (const [name, bytes] of Object.entries({ 'cmyk.jpg': jpeg, 'cmyk.tif': tiff })) {
    writeFileSync(at(name), Buffer.from(bytes, 'base64'))
    const { width, height, data } = await readImage(at(name))
    assert.equal([width, height, [...data]], [6, 1, expected.flat()], name)
  }
})

test('images come as RGB', async () => {
  const expected = pixelsOf(30, 40, 0)
  const raw = { raw: { width: 30, height: 40, channels: 3 as const } }
  await sharp(expected, raw).toFile(at('plain.png'))
  const plain = await readImage(at('plain.png'))
  assert.equal([plain.width, plain.height], [30, 40])
  assert.equal(Buffer.from(plain.data), Buffer.from(expected))
  await sharp(expected, raw).greyscale().toFile(at('grey.png'))
  const grey = await readImage(at('grey.png'))
  assert.is(grey.data.length, expected.length)
  assert.is(grey.data[0], grey.data[2])
  await sharp(expected, raw).ensureAlpha(0.3).toFile(at('alpha.png'))
  assert.equal(Buffer.from((await readImage(at('alpha.png'))).data), Buffer.from(expected))
})

test.run()
