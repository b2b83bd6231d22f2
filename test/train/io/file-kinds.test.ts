// Files that are given where weights are expected.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { otherKind, START_BYTES } from '#dist/train/io/file-kinds.js'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')

test('kinds of files are named', () => {
  const tar = Buffer.alloc(512)
  tar.write('ustar', 257)
  for (const [start, kind] of [
    [Buffer.alloc(0), /^empty$/],
    [Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:00'), /Git LFS .*git lfs pull/],
    [Buffer.from('\n<!DOCTYPE html>\n'), /web page/],
    [Buffer.from('<html>'), /web page/],
    [hex('0808 1207 7079746f726368'), /ONNX/],
    [hex('89504e47 0d0a1a0a'), /image/],
    [hex('ffd8ffe0 00104a46'), /image/],
    [hex('49492a00 08000000'), /image/],
    [Buffer.from('RIFF\0\0\0\0WEBPVP8 '), /image/],
    [gzipSync('x'), /compressed archive: unpack it/],
    [tar, /tar archive/],
    [hex('89484446 0d0a1a0a'), /HDF5/],
    [hex('934e554d5059 0100'), /NumPy/],
    [hex('80049500 00000000'), /pickle of Python/],
    [Buffer.from('{"metadata": {"total_size": 1}, "weight_map": {}}'), /index of weights in several files/],
    [Buffer.from('lr: 0.1\nepochs: 3\n'), /a text/],
  ] as const) {
    assert.match(otherKind(Uint8Array.from(start)) ?? '', kind)
  }
})

test('checkpoints are none of them', () => {
  const folder = 'test/fixtures/checkpoint'
  const files = readdirSync(folder)
  assert.ok(files.length > 5)
  for (const file of files) {
    const start = readFileSync(join(folder, file)).subarray(0, START_BYTES)
    assert.is(otherKind(Uint8Array.from(start)), undefined, file)
  }
  // The least and the greatest headers of safetensors.
  for (const length of [2, 0x0280, 0x0480, 0x120408, 0x4d42, 0x8b1f, 0x7b20, 4 * 2 ** 20]) {
    const start = Buffer.alloc(512, '{"a": 1}')
    start.writeBigUInt64LE(BigInt(length))
    assert.is(otherKind(Uint8Array.from(start)), undefined, String(length))
  }
})

test.run()
