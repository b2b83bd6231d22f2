import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { run, tinyData } from '../support/tiny-run.js'

const { folder, data, trainInto, remove } = await tinyData('commands')
test.after(remove)

/** One line on stderr that matches, exit code 1, and nothing in the output folder. */
function refuses(name: string, pattern: RegExp, ...args: string[]): void {
  const { code, errors } = trainInto(name, ...args)
  assert.is(code, 1, errors.join('\n'))
  assert.is(errors.length, 1, errors.join('\n'))
  assert.match(errors[0] ?? '', pattern)
  assert.not.ok(existsSync(join(folder, name)), 'something was written')
}

/** A copy of the data in which one thing is broken. */
function broken(name: string, change: (copy: string) => void): string {
  const copy = join(folder, name)
  cpSync(data, copy, { recursive: true })
  change(copy)
  return copy
}

const firstPair = (copy: string): [string, string] => {
  const [image = '', label = ''] = readFileSync(join(copy, 'labeled.txt'), 'utf8').split('\n')[0]?.split(' ') ?? []
  return [join(copy, image), join(copy, label)]
}

test('an unknown key of --set is named, with the nearest one', () => {
  refuses('a', /crop_sizes.*crop_size/, '--set', 'crop_sizes=33')
})

test('a missing configuration, list and file are named', () => {
  const missing = run('train.js', ['--config', join(folder, 'none.yaml'), '--save-path', join(folder, 'b')])
  assert.is(missing.code, 1)
  assert.match(missing.errors.join('\n'), /none\.yaml/)
  refuses('b', /there is no list .*none\.txt/, '--labeled-id-path', join(folder, 'none.txt'))
  const list = join(folder, 'dangling.txt')
  writeFileSync(list, 'images/nowhere.png labels/nowhere.png\n')
  refuses('b', /nowhere\.png/, '--labeled-id-path', list)
})

test('an empty list and one shorter than a batch are named', () => {
  const list = join(folder, 'empty.txt')
  writeFileSync(list, '\n')
  refuses('c', /empty\.txt/, '--labeled-id-path', list)
  refuses('c', /unlabeled\.txt.*batch/, '--set', 'batch_size=7')
})

test('a label value outside the classes is named with its file', () => {
  refuses('d', /label.*nclass/, '--set', 'nclass=2')
})

test('an image and a label of different sizes are named', () => {
  const copy = broken('sizes', (at) => {
    writeFileSync(firstPair(at)[1], encode({ width: 8, height: 4, data: new Uint8Array(32), channels: 1 }))
  })
  refuses('e', /48x48.*8x4|8x4.*48x48/, '--set', `data_root=${copy}`)
})

test('an unreadable image is named', () => {
  const copy = broken('truncated', (at) => truncateSync(firstPair(at)[0], 100))
  refuses('f', /images.*png/, '--set', `data_root=${copy}`)
})

test('an adapter that is not there is named, with those that are', () => {
  refuses('g', /no adapter is named 'abacus'; there is: /, '--gpu', 'abacus')
})

test('help shows examples', () => {
  const { code, stdout } = run('train.js', ['--help'])
  assert.is(code, 0)
  assert.match(stdout, /Examples:\n {2}node dist\/train\.js/)
})

test('a run leaves a log and checkpoints, gives the same bits again, and is not overwritten', () => {
  for (const name of ['first', 'second']) {
    const { code, stdout, errors } = trainInto(name)
    assert.is(code, 0, errors.join('\n'))
    assert.match(stdout, /6 iterations in .*; mIoU \d/)
  }
  const log = readFileSync(join(folder, 'first', 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
  const events = log.map((line) => JSON.parse(line) as { event: string; total_loss?: number; miou?: number })
  assert.is(events.filter(({ event }) => event === 'train').length, 6)
  assert.is(events.filter(({ event }) => event === 'evaluation').length, 2)
  assert.ok(events.every(({ total_loss: loss }) => loss === undefined || Number.isFinite(loss)))
  for (const file of ['latest.safetensors', 'best.safetensors']) {
    const first = readSafetensors(join(folder, 'first', file)).tensors
    const second = readSafetensors(join(folder, 'second', file)).tensors
    assert.ok(first.has('backbone.conv1.0.weight'))
    for (const [name, { data: values }] of first) assert.equal(values, second.get(name)?.data, name)
  }
  const files = readdirSync(join(folder, 'first'))
  assert.ok(files.some((file) => file.startsWith('events.out.tfevents')))
  assert.match(readFileSync(join(folder, 'first', 'report.html'), 'utf8'), /<h2[^>]*>Validation images/)
  assert.match(readFileSync(join(folder, 'first', 'config.yaml'), 'utf8'), /sha256: [0-9a-f]{64}/)
  const again = trainInto('first')
  assert.is(again.code, 1)
  assert.match(again.errors.join('\n'), /holds a run already/)
  writeFileSync(join(folder, 'first', 'notes.txt'), 'mine')
  const replaced = trainInto('first', '--overwrite', '--method', 'supervised', '--max-iters', '1')
  assert.is(replaced.code, 0, replaced.errors.join('\n'))
  const left = readdirSync(join(folder, 'first'))
  assert.ok(left.includes('notes.txt') && !left.includes('previous'), left.join())
  assert.is(left.filter((file) => file.startsWith('events.out.tfevents')).length, 1)
})

test('doctor passes on this machine', () => {
  const { code, stdout } = run('doctor.js', [])
  assert.is(code, 0)
  assert.match(stdout, /self-test +\d+ kernels correct, with tails and infinities/)
  assert.match(stdout, /backend +(Vulkan|Metal|Direct3D 12)\n/)
  assert.match(stdout, /stores of f16 +\w+/)
  assert.match(stdout, /matrices of f16, added up in f32 +(none|\d+x\d+x\d+)/)
})

test('the embedding example learns', () => {
  const result = spawnSync(process.execPath, [join('build', 'examples', 'embed.js')], { encoding: 'utf8' })
  assert.is(result.status, 0, result.stderr)
  const losses = [...result.stdout.matchAll(/loss (\d+\.\d+)/g)].map(([, value]) => Number(value))
  assert.ok((losses.at(-1) ?? 1) < 0.3 * (losses[0] ?? 0), result.stdout)
})

test.run()
