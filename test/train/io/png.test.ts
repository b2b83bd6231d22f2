// PNGs as they are written: the pixels that another decoder finds, and the same bytes each time.
import { decode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodePng, encodePng } from '#dist/train/io/png.js'

for (const channels of [1, 3] as const) {
  for (const compression of ['quick', 'small'] as const) {
    test(`${channels === 1 ? 'grey' : 'RGB'}, ${compression}: every pixel comes back`, async () => {
      for (const [width, height] of [
        [1, 1],
        [7, 5],
        [300, 200],
      ] as const) {
        const length = width * height * channels
        // Part of a larger array, as the rows of a batch are.
        const data = Uint8Array.from({ length: length + 16 }, (_, i) => (i * i * 31 + (i >> 4)) % 256).subarray(16)
        const image = { width, height, data }
        const bytes = await encodePng(image, channels, compression)
        const other = decode(bytes)
        assert.equal([other.width, other.height, other.channels, other.depth], [width, height, channels, 8])
        assert.equal([...other.data], [...data])
        const { samples } = await decodePng(bytes, 2 ** 20)
        assert.equal([...samples], [...data])
        assert.ok(bytes.equals(await encodePng(image, channels, compression)))
      }
    })
  }
}

test('flat areas become small files', async () => {
  const data = Uint8Array.from({ length: 640 * 480 }, (_, i) => Math.floor((i % 640) / 80) + Math.floor(i / 640 / 60))
  for (const compression of ['quick', 'small'] as const) {
    assert.ok((await encodePng({ width: 640, height: 480, data }, 1, compression)).length < 640 * 480 * 0.05)
  }
})

test.run()
