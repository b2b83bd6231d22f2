import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { writeScenes } from '#dist/demo/dataset.js'
import { readSafetensors } from '#dist/train/safetensors.js'

const folder = mkdtempSync(join(tmpdir(), 'atrous-commands-'))
const data = join(folder, 'data')
const configPath = join(folder, 'tiny.yaml')

const tiny = `
dataset: scenes
nclass: 6
crop_size: 33
data_root: ${data}
val_id_path: ${join(data, 'val.txt')}
labeled_id_path: ${join(data, 'labeled.txt')}
unlabeled_id_path: ${join(data, 'unlabeled.txt')}
epochs: 2
batch_size: 2
lr: 0.01
conf_thresh: 0.5
prev: { list_max_len: 2, model_num: 2, conf_thresh: 0.5 }
model: { stem: [4, 4, 8], planes: [4, 4, 8, 8], blocks: [1, 1, 1, 1], expansion: 2, reduce_channels: 4, aspp_channels: 8, fuse_channels: 8 }
dilations: [1, 2, 3]
log_interval: 1
`

test.before(async () => {
  await writeScenes(data, { seed: 3, size: 48, labeled: 2, unlabeled: 6, validation: 3 })
  writeFileSync(configPath, tiny)
})
test.after(() => rmSync(folder, { recursive: true }))

function run(script: string, args: readonly string[]) {
  const result = spawnSync(process.execPath, [join('dist', script), ...args], { encoding: 'utf8' })
  const errors = result.stderr.split('\n').filter((line) => line !== '' && !line.startsWith('Warning: '))
  return { code: result.status, stdout: result.stdout, errors }
}

const trainInto = (name: string, ...args: string[]) =>
  run('train.js', ['--config', configPath, '--save-path', join(folder, name), ...args])

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
  const again = trainInto('first')
  assert.is(again.code, 1)
  assert.match(again.errors.join('\n'), /holds a run already/)
})

test('doctor passes on this machine', () => {
  const { code, stdout } = run('doctor.js', [])
  assert.is(code, 0)
  assert.match(stdout, /self-test +65x130x67 matrix product correct/)
})

test('the embedding example learns', () => {
  const result = spawnSync(process.execPath, [join('build', 'examples', 'embed.js')], { encoding: 'utf8' })
  assert.is(result.status, 0, result.stderr)
  const losses = [...result.stdout.matchAll(/loss (\d+\.\d+)/g)].map(([, value]) => Number(value))
  assert.ok((losses.at(-1) ?? 1) < 0.3 * (losses[0] ?? 0), result.stdout)
})

test.run()
