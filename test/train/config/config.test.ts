import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { stringify } from 'yaml'
import { parseBytes } from '#dist/train/config/bytes.js'
import { type Config, loadConfig, withAbsolutePaths } from '#dist/train/config/load.js'
import type { Settings } from '#dist/train/methods/method.js'
import type { prevmatch } from '#dist/train/methods/prevmatch.js'
import { refuses } from '../../support/refuses.js'

const test = suite('config')
const folder = mkdtempSync(join(tmpdir(), 'config-'))
const path = join(folder, 'x.yaml')
test.after(() => rmSync(folder, { recursive: true }))

const minimal = 'nclass: 5\ncrop_size: 65\nepochs: 2\nbatch_size: 2\nlr: 0.01\n'

function load(text: string, ...overrides: string[]): Config {
  writeFileSync(path, text)
  return loadConfig(path, overrides)
}

/** The keys of PrevMatch. */
const prevOf = (config: Config) => (config as Config & Settings<typeof prevmatch.keys>).prev

test('fills in the defaults', () => {
  const config = load(minimal)
  assert.is(config.ignore_index, 255)
  assert.is(config.method, 'prevmatch')
  assert.is(config.eval_mode, 'original')
  assert.equal(config.dilations, [6, 12, 18])
  assert.is(prevOf(config).list_max_len, 8)
  assert.is(config.amp, false)
  assert.is(load(minimal, 'amp=auto').amp, 'auto')
  assert.is(load(`${minimal}dataset: cityscapes`).eval_mode, 'sliding_window')
})

test('what a run writes of its configuration reads as the same one', () => {
  for (const more of [
    '',
    'dataset: ade20k\nnclass: 150\ncriterion: { name: OHEM, kwargs: { thresh: 0.7, min_kept: 9 } }',
    'classes: [a, b, c, d, e]\npalette: [[0, 0, 0], "#ff0000", [0, 1, 0], [1, 0, 0], [0, 0, 2]]\nlabel_map: { "#010203": 4, 9: 255 }',
    'method: supervised\namp: auto\nmodel: { stem: [4, 4, 8] }\ncheckpoint: [layer1]\nval_id_path: { images: i, labels: l }',
  ]) {
    const config = load(minimal.replace('nclass: 5\n', more.includes('nclass') ? '' : 'nclass: 5\n') + more)
    const written = stringify({ ...config, run: { versions: { node: 'v20' }, lists: {} } })
    assert.equal(load(written), config, more)
  }
})

test('paths of a run mean the same files in any folder', () => {
  const lists = 'labeled_id_path: a/l.txt\nval_id_path: { images: i, labels: l }\npretrained: ../w.pth\n'
  const config = withAbsolutePaths(load(minimal + lists))
  assert.is(config.labeled_id_path, resolve('a/l.txt'))
  assert.is(config.pretrained, resolve('../w.pth'))
  assert.is(config.data_root, resolve('.'))
  assert.is(config.unlabeled_id_path, undefined)
  assert.is((config.val_id_path as { images: string }).images, 'i', 'relative to data_root')
})

test('reads the keys of a PrevMatch configuration', () => {
  const config = load(`
dataset: cityscapes
nclass: 19
crop_size: 801
data_root: ../data/cityscapes
epochs: 240
batch_size: 4 # per GPU
lr: 0.005
lr_multi: 1.0
criterion:
  name: OHEM
  kwargs:
    ignore_index: 255
    thresh: 0.7
    min_kept: 200000
conf_thresh: 0
amp: True
prev:
  list_max_len: 8
  model_num: 3
  random_select: True
  conf_thresh: 0
  base_only_epoch: 0
model: deeplabv3plus
backbone: resnet101
replace_stride_with_dilation: [False, False, True]
dilations: [6, 12, 18]
save_map: False
`)
  assert.equal(config.criterion, { name: 'OHEM', kwargs: { ignore_index: 255, thresh: 0.7, min_kept: 200000 } })
  assert.is(config.amp, true)
  assert.is(config.backbone, 'resnet101')
  assert.equal(config.model, {})
})

test('applies --set after the file, with YAML values', () => {
  const overrides = ['lr=1e-3', 'prev.model_num=2', 'model.stem=[8, 8, 16]', 'class_names=[a, b, c, d, e=f]']
  const config = load(`${minimal}model: deeplabv3plus`, ...overrides)
  assert.is(config.lr, 0.001)
  assert.is(prevOf(config).model_num, 2)
  assert.is(prevOf(config).list_max_len, 8)
  assert.equal(config.model.stem, [8, 8, 16])
  assert.equal(config.class_names, ['a', 'b', 'c', 'd', 'e=f'])
})

test('names unknown keys and the nearest valid ones', async () => {
  await refuses(() => load(`${minimal}crop_sise: 3`), path, "'crop_sise'", 'crop_size')
  await refuses(() => load(`${minimal}prev: {modelnum: 3}`), "'prev.modelnum'", 'prev.model_num')
  await refuses(() => load(minimal, 'prev.modelnum=3'), '--set', "'prev.modelnum'", 'prev.model_num')
  await refuses(() => load(minimal, 'learning_rate=3'), '--set', "'learning_rate'")
  await refuses(() => load(minimal, 'lr.x=3'), "'lr.x'")
  await refuses(() => load(minimal, '__proto__.x=3'), "'__proto__.x'")
})

test('says what was found and what is expected', async () => {
  await refuses(() => load('nclass: 4'), path, "'crop_size' is missing", 'number')
  await refuses(() => load(minimal, 'lr=abc'), '--set lr=abc', '"abc"', 'number')
  await refuses(() => load(`${minimal}lr_multi: -1`, 'lr=1'), path, "'lr_multi' is -1", '>0')
  await refuses(() => load(minimal, 'dilations=[1, 2]'), "'dilations' is [1,2]", '3 items')
  await refuses(() => load(minimal, 'dilations=[1, 2, 2000]'), "'dilations.2' is 2000", '1000')
  await refuses(() => load(minimal, 'method=foo'), '"foo"', 'supervised', 'prevmatch')
  await refuses(
    () => load(minimal, 'checkpoint=[layer1, layer5]'),
    "'activation_checkpointing.1'",
    '"layer5"',
    '"stem"|"layer1"',
    '"decoder"',
  )
  await refuses(() => load(minimal, 'nclass=2.5'), "'nclass' is 2.5", 'int')
  await refuses(() => load(minimal, 'amp=half'), `'amp' is "half"`, 'true', 'false', 'auto')
  await refuses(() => load(minimal, 'val_id_path=3'), "'val_id_path' is 3", 'path of a list', 'folders')
  await refuses(() => load(minimal, 'lr=.inf'), "'lr' is Infinity")
  await refuses(() => load(minimal, 'prev=3'), "'prev' is 3", 'object')
  await refuses(() => load(minimal, 'lr'), '--set lr', 'key=value')
})

test('memory is a number of bytes', async () => {
  const sizes = { '8GiB': 2 ** 33, '1.5 GiB': 1.5 * 2 ** 30, '800MiB': 800 * 2 ** 20, '8GB': 8e9, '0.5MB': 5e5 }
  for (const [text, bytes] of Object.entries(sizes))
    assert.is(parseBytes(load(minimal, `memory=${text}`).memory ?? ''), bytes)
  for (const wrong of [
    '8',
    '8G',
    '8gib',
    '-1GiB',
    '0GiB',
    '0.0000001MB',
    '1e3GiB',
    '[8GiB]',
    'true',
    '8GiB of it',
    '8TiB',
  ]) {
    const expected = 'expected a size such as 8GiB, 800MiB, 8GB or 800MB'
    await refuses(() => load(minimal, `memory=${wrong}`), '--set memory', "'memory' is", expected)
  }
})

test('a colour without quotes is named, however it spoils the text', async () => {
  const wrong = [
    'palette: [#ff0000, "#00ff00"]',
    'palette: ["#00ff00", #ff0000]',
    'palette:\n  - #ff0000',
    'label_map:\n  #ff0000: 1',
  ]
  for (const text of wrong) {
    await refuses(() => load(`${minimal}${text}\n`), path, 'has the colour #ff0000 without quotes', 'write "#ff0000"')
  }
  await refuses(() => load(minimal, 'palette=[#ff0000]'), '--set', 'write "#ff0000"')
  const right = 'palette: ["#00ff00", [0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]] #ff0000 was red\n#ff0000: 1\n'
  assert.equal(load(`${minimal}${right}`).palette?.[0], [0, 255, 0])
  await refuses(() => load(`${minimal}palette: [null]`), "'palette.0' is null", 'in quotes')
})

test('a configuration in UTF-16 is read', () => {
  writeFileSync(path, Buffer.from(`\uFEFF${minimal}`, 'utf16le'))
  assert.is(loadConfig(path).nclass, 5)
})

test('checks keys against each other', async () => {
  await refuses(() => load(minimal, 'ignore_index=3'), "'ignore_index' is 3", '5 classes')
  await refuses(() => load(minimal, 'model.nclass=3'), "'model.nclass' is 3")
  await refuses(() => load(minimal, 'class_names=[a]'), 'class_names', '1 names')
  await refuses(() => load(minimal, 'criterion.name=OHEM'), 'criterion.kwargs.thresh')
  await refuses(() => load(minimal, 'ignore_index=200', 'criterion.kwargs.ignore_index=255'), '200', '255')
})

test('refuses files that are no configuration', async () => {
  await refuses(() => loadConfig(join(folder, 'absent.yaml')), 'absent.yaml')
  await refuses(() => loadConfig(folder), folder)
  await refuses(() => load('a: ['), path, 'YAML')
  await refuses(() => load('- 1'), path, '[1]')
  await refuses(() => load(`${minimal}lr: 3`), path, 'unique')
  await refuses(() => load(`${minimal}#${' '.repeat(2 ** 20)}`), path, '1 MiB')
  const bomb = [
    'a: &a [x,x,x,x,x,x,x,x]',
    'b: &b [*a,*a,*a,*a,*a,*a,*a,*a]',
    'c: &c [*b,*b,*b,*b,*b,*b,*b,*b]',
    'd: [*c,*c]',
  ]
  await refuses(() => load(bomb.join('\n')), path, 'alias')
})

test.run()
