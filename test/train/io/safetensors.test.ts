import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { UserError } from '#dist/train/error.js'
import { sourceOf } from '#dist/train/io/byte-source.js'
import { type FileTensor, readSafetensors, toFloat32, writeSafetensors } from '#dist/train/io/safetensors.js'
import { parseSafetensors, safetensorsParts } from '#dist/train/io/safetensors-format.js'

const test = suite('safetensors')
const folder = mkdtempSync(join(tmpdir(), 'safetensors-'))
const path = join(folder, 'x.safetensors')
test.after(() => rmSync(folder, { recursive: true }))

const everyType: [string, FileTensor][] = [
  ['bytes', { dtype: 'U8', shape: [3], data: Uint8Array.of(1, 2, 255) }],
  ['flags', { dtype: 'BOOL', shape: [1, 1], data: Uint8Array.of(1) }],
  ['half', { dtype: 'F16', shape: [3], data: Uint16Array.of(0x3c00, 0xc000, 0x0001) }],
  ['single', { dtype: 'F32', shape: [2, 2], data: Float32Array.of(1.5, -0, Number.NaN, 1e-40) }],
  ['double', { dtype: 'F64', shape: [1], data: Float64Array.of(0.1) }],
  ['long', { dtype: 'I64', shape: [2], data: BigInt64Array.of(-1n, 2n ** 62n) }],
  ['int', { dtype: 'I32', shape: [1], data: Int32Array.of(-7) }],
  ['scalar', { dtype: 'F32', shape: [], data: Float32Array.of(2) }],
  ['empty', { dtype: 'F32', shape: [0, 3], data: new Float32Array(0) }],
]

test('gives back what was written', () => {
  writeSafetensors(path, everyType, { epoch: '3', é: '"\n' })
  const { tensors, metadata } = readSafetensors(path)
  assert.equal(metadata, { epoch: '3', é: '"\n' })
  assert.is(tensors.size, everyType.length)
  for (const [name, expected] of everyType) {
    const actual = tensors.get(name)
    assert.ok(actual)
    assert.is(actual.dtype, expected.dtype)
    assert.equal(actual.shape, expected.shape)
    assert.is(actual.data.constructor, expected.data.constructor)
    assert.equal(new Uint8Array(actual.data.buffer), new Uint8Array(expected.data.buffer), name)
  }
})

test('writes every tensor at a multiple of its item size', () => {
  writeSafetensors(path, everyType)
  const bytes = readFileSync(path)
  const headerLength = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength)) as Record<string, { data_offsets: number[] }>
  for (const [name, { data }] of everyType) {
    const start = 8 + headerLength + (header[name]?.data_offsets[0] ?? Number.NaN)
    assert.is(start % data.BYTES_PER_ELEMENT, 0, name)
  }
})

test('converts to float32', () => {
  const converted = new Map(everyType.map(([name, tensor]) => [name, Array.from(toFloat32(tensor))]))
  assert.equal(converted.get('half'), [1, -2, 2 ** -24])
  assert.equal(converted.get('double'), [Math.fround(0.1)])
  assert.equal(converted.get('long'), [-1, 2 ** 62])
  assert.equal(converted.get('bytes'), [1, 2, 255])
})

test('leaves the previous file and no other when writing fails', () => {
  writeSafetensors(path, everyType, { generation: '1' })
  const wrong: FileTensor = { dtype: 'F32', shape: [3], data: new Float32Array(2) }
  assert.throws(() => writeSafetensors(path, [['wrong', wrong]]), /wrong/)
  assert.is(readSafetensors(path).metadata.generation, '1')
  assert.equal(readdirSync(folder), ['x.safetensors'])
  const nowhere = join(folder, 'absent', 'y.safetensors')
  assert.throws(
    () => writeSafetensors(nowhere, everyType),
    (error: unknown) => {
      return error instanceof UserError && error.message.includes(nowhere)
    },
  )
})

/** A file with the given header and data; `claimed` overrides the header length. */
function craft(header: unknown, dataBytes: number, claimed?: bigint): void {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(claimed ?? BigInt(json.length))
  writeFileSync(path, Buffer.concat([length, json, Buffer.alloc(dataBytes)]))
}

const tensor = (dtype: unknown, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
})

const malformed: [string, () => void, RegExp][] = [
  ['an empty file', () => writeFileSync(path, ''), /0 bytes/],
  ['a huge header', () => craft({}, 0, 2n ** 60n), /header claims 1152921504606846976/],
  ['a header longer than the file', () => craft({}, 0, 1000n), /truncated/],
  ['a header that is not JSON', () => craft('{"a":', 0), /not JSON/],
  ['a header that is a list', () => craft([], 0), /not a JSON object/],
  ['metadata that are no text', () => craft({ __metadata__: { a: 1 } }, 0), /__metadata__ entry 'a'/],
  ['a tensor without description', () => craft({ w: 3 }, 0), /'w' has no description/],
  ['an unknown type', () => craft({ w: tensor('Q4', [1], 0, 4) }, 4), /"Q4"/],
  ['a type named like a method', () => craft({ w: tensor('toString', [1], 0, 4) }, 4), /"toString"/],
  ['a negative size', () => craft({ w: tensor('F32', [-1], 0, 4) }, 4), /invalid shape/],
  ['a fractional size', () => craft({ w: tensor('F32', [0.5], 0, 2) }, 2), /invalid shape/],
  ['too many dimensions', () => craft({ w: tensor('U8', Array(100).fill(1), 0, 1) }, 1), /invalid shape/],
  ['a product that overflows', () => craft({ w: tensor('U8', [2 ** 40, 2 ** 40], 0, 1) }, 1), /needs/],
  ['offsets that do not fit the shape', () => craft({ w: tensor('F32', [2], 0, 4) }, 4), /needs 8 bytes/],
  ['reversed offsets', () => craft({ w: tensor('F32', [1], 4, 0) }, 4), /invalid offsets/],
  ['offsets that are texts', () => craft({ w: tensor('F32', [1], '0', '4') }, 4), /invalid offsets/],
  ['data beyond the end', () => craft({ w: tensor('F32', [4], 0, 16) }, 8), /'w' ends at byte 16.*only 8/],
  ['overlapping data', () => craft({ v: tensor('F32', [2], 0, 8), w: tensor('F32', [2], 4, 12) }, 12), /'w' overlaps/],
  ['a hole', () => craft({ v: tensor('F32', [1], 0, 4), w: tensor('F32', [1], 8, 12) }, 12), /4 unused bytes/],
  ['bytes after the last tensor', () => craft({ w: tensor('F32', [1], 0, 4) }, 9), /5 unused bytes/],
]

for (const [name, write, pattern] of malformed) {
  test(`refuses ${name}`, () => {
    write()
    assert.throws(
      () => readSafetensors(path),
      (error: unknown) => {
        assert.instance(error, UserError)
        const { message } = error as UserError
        assert.ok(message.includes(path), message)
        assert.match(message, pattern)
        const bytes = sourceOf(readFileSync(path), path)
        assert.throws(
          () => parseSafetensors(bytes),
          (same: Error) => same.message === message,
        )
        return true
      },
    )
  })
}

test('bytes in memory give what the file gives, and are written alike', () => {
  const tensors: [string, FileTensor][] = [
    ['a', { dtype: 'F32', shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) }],
    ['b', { dtype: 'U8', shape: [3], data: Uint8Array.of(7, 8, 9) }],
    ['c', { dtype: 'I64', shape: [], data: BigInt64Array.of(-1n) }],
  ]
  writeSafetensors(path, tensors, { key: 'text' })
  const parts = safetensorsParts(tensors, { key: 'text' })
  const bytes = Buffer.concat(parts)
  assert.equal(bytes, readFileSync(path))
  assert.equal(parseSafetensors(sourceOf(bytes, path)), readSafetensors(path))
  bytes[bytes.length - 1] = 3
  assert.throws(() => parseSafetensors(sourceOf(bytes, 'given bytes')), /^given bytes .*checksum does not hold/)
})

test('refuses what is not there or not a file', () => {
  assert.throws(() => readSafetensors(join(folder, 'absent')), /absent/)
  assert.throws(() => readSafetensors(folder), /not a file|directory/)
})

test.run()
