// PNGs as they are written: the pixels that another decoder finds, and the same bytes each time.
import { deflateSync } from 'node:zlib'
import { decode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { chunkOf, decodePng, encodePng, PNG_SIGNATURE } from '#dist/train/io/png.js'

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

/** A PNG whose rows take the filters of the list in turn; the bytes of the rows are given as they are stored. */
function pngOf(width: number, rows: readonly Uint8Array[], filters: readonly number[], channels: 1 | 3): Buffer {
  const header = Buffer.from([0, 0, 0, width, 0, 0, 0, rows.length, 8, channels === 1 ? 0 : 2, 0, 0, 0])
  const stored = Buffer.concat(rows.flatMap((row, y) => [Buffer.of(filters[y % filters.length] as number), row]))
  const parts = [chunkOf('IHDR', header), chunkOf('IDAT', deflateSync(stored)), chunkOf('IEND', Buffer.alloc(0))]
  return Buffer.concat([PNG_SIGNATURE, ...parts])
}

test('rows of every filter are decoded, as another decoder does', async () => {
  for (const channels of [1, 3] as const) {
    for (const filters of [[0], [1], [2], [3], [4], [4, 2, 3, 1, 0], [3, 4, 1]]) {
      // Many zeros, small steps and anything: what occurs in labels.
      const rows = Array.from({ length: 23 }, (_, y) =>
        Uint8Array.from({ length: 31 * channels }, (_, i) =>
          y % 3 === 0 ? (i * i * 7 + y * 31) % 256 : i % 5 === 0 ? y % 4 : 0,
        ),
      )
      const png = pngOf(31, rows, filters, channels)
      const { width, height, samples } = await decodePng(png, 2 ** 20)
      assert.equal([width, height], [31, 23])
      assert.equal([...samples], [...decode(png).data], `${channels} channels, filters ${filters}`)
    }
  }
})

test('rows that are missing or have an unknown filter are refused', async () => {
  const rows = Array.from({ length: 4 }, () => new Uint8Array(5))
  const refused = async (png: Buffer) => {
    const error = await decodePng(png, 100).catch((caught: unknown) => caught)
    assert.match(String(error), /its pixels are damaged or not complete/)
  }
  await refused(pngOf(6, rows, [0], 1))
  await refused(pngOf(5, rows, [0, 5], 1))
})

test('flat areas become small files', async () => {
  const data = Uint8Array.from({ length: 640 * 480 }, (_, i) => Math.floor((i % 640) / 80) + Math.floor(i / 640 / 60))
  for (const compression of ['quick', 'small'] as const) {
    assert.ok((await encodePng({ width: 640, height: 480, data }, 1, compression)).length < 640 * 480 * 0.05)
  }
})

test.run()
