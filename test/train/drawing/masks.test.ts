// Masks, their colours and overlays by their pixels, and the names of the files they go to.
import { decode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { vocPalette } from '#dist/train/data/classes.js'
import { colored, indexPng, outputNames, overlay } from '#dist/train/drawing/masks.js'

test('masks keep their indices, take the colours of the classes, and shine through as overlays', async () => {
  const palette = vocPalette(3)
  const mask = { data: Uint8Array.of(0, 1, 1, 2, 1, 1), width: 3, height: 2 }
  const grey = decode(await indexPng(mask))
  assert.equal([grey.width, grey.height, grey.channels, grey.depth], [3, 2, 1, 8])
  assert.equal([...grey.data], [0, 1, 1, 2, 1, 1])
  assert.equal([...colored(mask, palette).data.subarray(0, 6)], [0, 0, 0, 128, 0, 0])
  const image = { data: new Uint8Array(18).fill(100), width: 3, height: 2 }
  const over = overlay(image, mask, palette).data
  // Where classes meet the colour is opaque, inside it is half of the picture.
  assert.equal([...over.subarray(0, 3)], [0, 0, 0])
  assert.equal([...over.subarray(6, 9)], [114, 50, 50])
})

test('output names differ and hold no folder', () => {
  assert.equal(outputNames(['a/x.jpg', 'b/y.png']), ['x', 'y'])
  assert.equal(outputNames(['a/x.jpg', 'a/x.png', 'a/y.png']), ['x.jpg', 'x.png', 'y'])
  assert.equal(outputNames(['a/x.jpg', 'a/x.png', 'a/x.jpg.png']), ['a_x.jpg', 'x.png', 'x.jpg.png'])
  assert.equal(outputNames(['a/x.jpg', 'a/x.jpg', '0_x.png']), ['0_x', '1_x', '0_x.png'])
  assert.equal(outputNames(['a/x.jpg', 'b/y.png'], 'file'), ['x.jpg', 'y.png'])
  assert.equal(outputNames(['a/x.jpg', 'b/x.jpg', 'b/y.jpg'], 'file'), ['a_x.jpg', 'b_x.jpg', 'y.jpg'])
  assert.equal(outputNames(['a/x.jpg', './b/y.png'], 'path'), ['a_x.jpg', 'b_y.png'])
  assert.equal(outputNames(['../a/x.jpg', 'b/x.jpg']), ['a_x.jpg', 'b_x.jpg'])
  const hard = outputNames(['a/b_c.jpg', 'a_b/c.jpg', 'b/b_c.jpg', '../../etc/c.jpg'])
  assert.is(new Set(hard).size, 4)
  assert.not.ok(hard.some((name) => /[\\/]|^\./.test(name)))
})

test.run()
