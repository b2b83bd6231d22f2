import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encode } from 'fast-png'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { DataReport } from '#dist/train/data/checks.js'

const test = suite('check-data')
const folder = mkdtempSync(join(tmpdir(), 'check-'))
const at = (...names: string[]) => join(folder, ...names)

const writeImage = (name: string, width: number, height: number) =>
  sharp(Buffer.from(Array.from({ length: width * height * 3 }, (_, i) => (i * 37) % 251)), {
    raw: { width, height, channels: 3 },
  }).toFile(at(name))

function writeLabel(name: string, width: number, height: number, value: (i: number) => number): void {
  const data = Uint8Array.from({ length: width * height }, (_, i) => value(i))
  writeFileSync(at(name), encode({ width, height, channels: 1, data }))
}

const list = (name: string, ...pairs: string[]) => writeFileSync(at(name), `${pairs.join('\n')}\n`)

test.before(async () => {
  mkdirSync(at('good'))
  for (let i = 0; i < 3; i++) {
    await writeImage(`good/${i}.jpg`, 10 + 2 * Math.floor(i / 2), 8)
    // Half of image 0 is class 1, everything else class 0; the first row of image 2 is ignored.
    writeLabel(`good/${i}.png`, 10 + 2 * Math.floor(i / 2), 8, (p) =>
      i === 0 && p < 40 ? 1 : i === 2 && p < 12 ? 255 : 0,
    )
  }
  list('good.txt', ...[0, 1, 2].map((i) => `good/${i}.jpg good/${i}.png`))
  const keys = { classes: ['sky', 'tree', 'boat'], crop_size: 9, epochs: 1, batch_size: 1, lr: 0.1, data_root: folder }
  writeFileSync(at('x.yaml'), JSON.stringify(keys))
})
test.after(() => rmSync(folder, { recursive: true }))

function check(...args: string[]) {
  const result = spawnSync(process.execPath, [join('dist', 'check-data.js'), '--config', at('x.yaml'), ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { code: result.status, stdout: result.stdout, errors: result.stderr.split('\n').filter((l) => l !== '') }
}

test('counts classes, sizes and ignored pixels', () => {
  const { code, stdout, errors } = check('--labeled-id-path', at('good.txt'), '--json', at('report.json'))
  assert.is(code, 0, errors.join('\n'))
  const report = JSON.parse(readFileSync(at('report.json'), 'utf8')) as Record<string, DataReport>
  const labeled = report.labeled as DataReport
  assert.equal(labeled.sizes, [
    { width: 10, height: 8, images: 2 },
    { width: 12, height: 8, images: 1 },
  ])
  assert.equal(labeled.classes, [
    { name: 'sky', share: 204 / 244, images: 3 },
    { name: 'tree', share: 40 / 244, images: 1 },
    { name: 'boat', share: 0, images: 0 },
  ])
  assert.equal(labeled.ignored, { share: 12 / 256, whole: 0 })
  assert.equal(labeled.doubts, [])
  assert.match(stdout, /labeled: 3 images, 3 usable labels/)
  assert.match(stdout, /0 {2}sky +83\.61 % +3/)
  assert.match(stdout, /note: never shown: boat/)
  assert.match(stdout, /everything can be used/)
})

test('unlabeled images need no labels; images in two lists are noted', () => {
  list('bare.txt', 'good/0.jpg', 'good/1.jpg absent.png')
  const { code, stdout, errors } = check('--unlabeled-id-path', at('bare.txt'), '--val-id-path', at('good.txt'))
  assert.is(code, 0, errors.join('\n'))
  assert.match(stdout, /unlabeled: 2 images\n/)
  assert.match(stdout, /2 unlabeled images are validation images, too, the first is good\/0\.jpg/)
})

test('every fault is named with its file, and the exit code is 1', async () => {
  mkdirSync(at('bad'))
  const noise = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * i * 7919) >> 3)
  const jpeg = await sharp(noise, { raw: { width: 64, height: 64, channels: 3 } })
    .jpeg()
    .toBuffer()
  writeFileSync(at('bad/cut.jpg'), jpeg.subarray(0, jpeg.length / 2))
  writeLabel('bad/cut.png', 64, 64, () => 0)
  await writeImage('bad/size.jpg', 8, 10)
  writeLabel('bad/size.png', 10, 8, () => 0)
  await writeImage('bad/value.jpg', 4, 4)
  writeLabel('bad/value.png', 4, 4, (i) => (i === 6 ? 9 : 0))
  await writeImage('bad/crc.jpg', 4, 4)
  writeLabel('bad/crc.png', 4, 4, () => 0)
  const png = readFileSync(at('bad/crc.png'))
  // The last byte of the checksum, before the 12 bytes of the last chunk.
  png.writeUInt8(png.readUInt8(png.length - 13) ^ 1, png.length - 13)
  writeFileSync(at('bad/crc.png'), png)
  list('bad.txt', 'good/0.jpg good/0.png', ...['cut', 'size', 'value', 'crc'].map((n) => `bad/${n}.jpg bad/${n}.png`))
  const { code, stdout, errors } = check('--val-id-path', at('bad.txt'), '--workers', '2')
  assert.is(code, 1)
  assert.equal(errors, ['error: 4 things are wrong, see WRONG above'], stdout)
  assert.match(stdout, /WRONG: cannot read the image .*cut\.jpg/)
  assert.match(stdout, /WRONG: .*size\.jpg has 8x10 pixels, but its label .*size\.png has 10x8: turn/)
  assert.match(stdout, /WRONG: cannot read the label .*crc\.png/)
  assert.match(
    stdout,
    /WRONG: value 9 in 1 labels \(1 pixels\), first in .*value\.png at x=2, y=1: the classes are 0 to 2/,
  )
})

test('guesses how labels are stored', () => {
  mkdirSync(at('guess'))
  writeLabel('guess/binary.png', 10, 8, (i) => (i < 9 ? 255 : 0))
  list('binary.txt', 'good/0.jpg guess/binary.png')
  const two = ['--set', 'classes=[a, b]', '--labeled-id-path', at('binary.txt')]
  assert.match(check(...two).stdout, /note: .*label_map: \{0: 0, 255: 1\}/)
  const mapped = check(...two, '--set', 'label_map={0: 0, 255: 1}')
  assert.is(mapped.code, 0)
  assert.match(mapped.stdout, /1 {2}b +11\.25 % +1/)
  writeLabel('guess/from1.png', 10, 8, (i) => (i % 3) + 1)
  list('from1.txt', 'good/0.jpg guess/from1.png')
  assert.match(check('--labeled-id-path', at('from1.txt')).stdout, /note: .*reduce_zero_label: true/)
})

test('bad input is refused with one line', () => {
  const refuses = (pattern: RegExp, ...args: string[]) => {
    const { code, errors } = check(...args)
    assert.is(code, 1)
    assert.is(errors.length, 1, errors.join('\n'))
    assert.match(errors[0] ?? '', pattern)
  }
  refuses(/nothing to check/)
  refuses(/none\.txt/, '--val-id-path', at('none.txt'))
  list('outside.txt', '../../etc/passwd good/0.png')
  refuses(/outside\.txt line 1.*outside of data_root/, '--val-id-path', at('outside.txt'))
  refuses(/'nclas'.*nclass/, '--val-id-path', at('good.txt'), '--set', 'nclas=3')
})

test('help shows examples', () => {
  const { code, stdout } = check('--help')
  assert.is(code, 0)
  assert.match(stdout, /Examples:\n {2}node dist\/check-data\.js/)
})

test.run()
