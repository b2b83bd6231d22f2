import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { crc32c, createEventWriter, scalarsOf, tfRecord } from '#dist/train/logging/tensorboard.js'
import { prevmatchMetrics } from '#dist/train/methods/prevmatch.js'

const folder = mkdtempSync(join(tmpdir(), 'atrous-events-'))
test.after(() => rmSync(folder, { recursive: true }))

test('CRC-32C of the vectors of RFC 3720', () => {
  assert.is(crc32c(new Uint8Array(32)), 0x8a9136aa)
  assert.is(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43)
  assert.is(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e)
  assert.is(crc32c(Buffer.from('123456789')), 0xe3069283)
})

test('the same events give the bytes that TensorBoard itself writes', () => {
  const times = [1700000000, 1700000000.25, 1700000001.5, 1700000002, 1700000003, 1700000004, 1700000005, 1700000006]
  const writer = createEventWriter(join(folder, 'known'), { resumedAt: 3, now: () => times.shift() ?? Number.NaN })
  writer.scalar('train/Total loss', 1.25, 3)
  writer.scalar('train/Loss x', 0.1, 300)
  writer.scalar('eval/mIoU', 0, 0)
  writer.scalar('eval/traffic light_IoU', 71.5, 123456789012)
  writer.scalar('eval/Straße_IoU', Number.POSITIVE_INFINITY, 70000)
  writer.close()
  const expected = readFileSync('test/fixtures/tensorboard/known.tfevents')
  assert.is(readFileSync(writer.path).toString('hex'), expected.toString('hex'))
})

test('a record frames its bytes with length and checksums', () => {
  const record = Buffer.from(tfRecord(Buffer.from('abc')))
  assert.is(record.length, 8 + 4 + 3 + 4)
  assert.is(record.readBigUInt64LE(), 3n)
  const unmask = (value: number) => {
    const rotated = (value - 0xa282ead8) >>> 0
    return ((rotated << 15) | (rotated >>> 17)) >>> 0
  }
  assert.is(unmask(record.readUInt32LE(8)), crc32c(record.subarray(0, 8)))
  assert.is(unmask(record.readUInt32LE(15)), crc32c(Buffer.from('abc')))
})

test('every writer begins a file of its own, and a scalar is there at once', () => {
  const at = join(folder, 'resumed', 'deep')
  const first = createEventWriter(at, { now: () => 1700000000 })
  first.scalar('a', 1, 0)
  const before = readFileSync(first.path)
  assert.ok(before.length > 40, 'written without close')
  const second = createEventWriter(at, { now: () => 1700000000, resumedAt: 1 })
  second.scalar('a', 2, 1)
  assert.equal(readFileSync(first.path), before)
  // TensorBoard finds files by this part of their name, and reads them in the order of the names.
  const names = readdirSync(at).sort()
  assert.equal(
    names.map((name) => join(at, name)),
    [first.path, second.path],
  )
  assert.ok(names.every((name) => name.includes('tfevents')))
  first.close()
  first.close()
  second.close()
  assert.throws(() => first.scalar('a', 3, 2), /closed/)
})

test('steps that are no counts, and a folder that cannot be made, are refused', () => {
  const writer = createEventWriter(join(folder, 'steps'))
  for (const step of [-1, 0.5, Number.NaN, 2 ** 53]) assert.throws(() => writer.scalar('a', 1, step), /step/)
  writer.close()
  const file = join(folder, 'file')
  writeFileSync(file, '')
  assert.throws(() => createEventWriter(join(file, 'below')), /cannot write .*tfevents/)
  assert.ok(existsSync(file))
})

test('lines of the log become the scalars of the PrevMatch code', () => {
  const fields = { epoch: 1, iteration: 20, lr: 0.5, total_loss: 1, loss_x: 2, seconds: 3, data: 1 }
  assert.equal(scalarsOf('train', fields, prevmatchMetrics), [
    { tag: 'train/Total loss', value: 1, step: 19 },
    { tag: 'train/Loss x', value: 2, step: 19 },
    { tag: 'train/iter time', value: 2, step: 19 },
    { tag: 'train/lr', value: 0.5, step: 19 },
  ])
  assert.equal(scalarsOf('train', { iteration: 3, loss_scale: 32768, skipped_steps: 1 }, prevmatchMetrics), [
    { tag: 'train/loss scale', value: 32768, step: 2 },
    { tag: 'train/skipped steps', value: 1, step: 2 },
  ])
  const more = { loss_s1: 1, loss_s2: 2, loss_fp: 3, mask_ratio: 4 }
  const previous = { loss_s1_prev: 5, loss_s2_prev: 7, loss_fp_prev: 8, mask_ratio_prev: 9 }
  const line = { iteration: 1, ...more, ...previous }
  const all = scalarsOf('train', line, prevmatchMetrics).map(({ tag, value }) => [tag, value])
  assert.equal(all, [
    ['train/Loss s', 1.5],
    ['train/Loss w_fp', 3],
    ['train/Mask ratio', 4],
    ['train/Loss s_prev', 6],
    ['train/Loss w_fp_prev', 8],
    ['train/Mask ratio_prev', 9],
  ])
  assert.equal(scalarsOf('evaluation', { epoch: 2, iteration: 60, miou: 50, iou: [40, 60, 0] }, [], ['sky', 'tree']), [
    { tag: 'eval/mIoU', value: 50, step: 2 },
    { tag: 'eval/sky_IoU', value: 40, step: 2 },
    { tag: 'eval/tree_IoU', value: 60, step: 2 },
    { tag: 'eval/2_IoU', value: 0, step: 2 },
  ])
  assert.equal(scalarsOf('start', { epoch: 0, miou: 1 }), [])
})

test.run()
