// Checksums in JavaScript against those of Node.
import { createHash } from 'node:crypto'
import { crc32 as reference } from 'node:zlib'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { crc32 } from '#dist/train/io/crc32.js'
import { sha256 } from '#dist/train/io/sha256.js'
import { Random } from '#dist/train/random.js'

const test = suite('digests')
const random = new Random(3)
const bytesOf = (length: number) => Uint8Array.from({ length }, () => random.integer(0, 256))

test('SHA-256 of every length around a block, in one part and in several', () => {
  for (const length of [...Array(140).keys(), 1000, 65536]) {
    const bytes = bytesOf(length)
    const expected = createHash('sha256').update(bytes).digest('hex')
    assert.is(sha256([bytes]), expected, `${length} bytes`)
    const [first, second] = [random.integer(0, length + 1), random.integer(0, length + 1)].sort((a, b) => a - b)
    const parts = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)]
    assert.is(sha256(parts), expected, `${length} bytes in parts`)
  }
})

test('CRC-32 of every length around four bytes, from odd places', () => {
  const bytes = bytesOf(5000)
  for (const [from, to] of [
    [0, 0],
    [0, 1],
    [1, 4],
    [3, 8],
    [2, 11],
    [0, 5000],
    [7, 4993],
  ] as const) {
    const part = bytes.subarray(from, to)
    assert.is(crc32(part), reference(part), `${from} to ${to}`)
  }
})

test.run()
