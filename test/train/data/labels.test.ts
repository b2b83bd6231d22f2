import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encode } from 'fast-png'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Config, loadConfig, parseConfig } from '#dist/train/config/load.js'
import { knownClasses, paletteOf, vocPalette } from '#dist/train/data/classes.js'
import { readList } from '#dist/train/data/dataset.js'
import { labelRules, usedBytes } from '#dist/train/data/label-rules.js'
import { readLabel } from '#dist/train/data/labels.js'
import { createLoader } from '#dist/train/data/loader.js'
import { labeledStream } from '#dist/train/methods/supervised.js'
import { Random } from '#dist/train/random.js'
import { refuses } from '../../support/refuses.js'

const test = suite('labels')
const folder = mkdtempSync(join(tmpdir(), 'labels-'))
const at = (name: string) => join(folder, name)
test.after(() => rmSync(folder, { recursive: true }))

const config = (keys: Record<string, unknown>): Config =>
  parseConfig({ crop_size: 9, epochs: 1, batch_size: 1, lr: 0.1, data_root: folder, ...keys }, 'the test')

function write(name: string, width: number, data: Uint8Array | Uint16Array, channels: 1 | 2 | 3 | 4 = 1): void {
  const height = data.length / width / channels
  const depth = data instanceof Uint16Array ? 16 : 8
  writeFileSync(at(name), encode({ width, height, channels, depth, data }))
}

const read = async (name: string, keys: Record<string, unknown>) =>
  Array.from((await readLabel(at(name), labelRules(config(keys)))).data)

const red = [255, 0, 0]
const blue = [0, 0, 255]
const white = [255, 255, 255]

test('black and white masks become classes by a map, and are refused without one', async () => {
  write('binary.png', 2, Uint8Array.of(0, 255, 255, 0))
  assert.equal(await read('binary.png', { nclass: 2, label_map: { 0: 0, 255: 1 } }), [0, 1, 1, 0])
  assert.equal(await read('binary.png', { nclass: 2, label_map: { 0: 255, 255: 1 } }), [255, 1, 1, 255])
  assert.equal(await read('binary.png', { nclass: 2 }), [0, 255, 255, 0])
  await refuses(() => read('binary.png', { nclass: 2, ignore_index: 200 }), 'value 255', 'x=1, y=0', 'label_map')
})

test('values that the map lacks are refused, but for ignore_index', async () => {
  write('three.png', 3, Uint8Array.of(0, 7, 255))
  await refuses(() => read('three.png', { nclass: 2, label_map: { 0: 1 } }), 'three.png', 'value 7', '7: 255')
  assert.equal(await read('three.png', { nclass: 2, label_map: { 0: 1, 7: 0 } }), [1, 0, 255])
})

test('16-bit values are classes, or become some by a map', async () => {
  write('deep.png', 3, Uint16Array.of(0, 1, 2))
  assert.equal(await read('deep.png', { nclass: 3 }), [0, 1, 2])
  write('high.png', 3, Uint16Array.of(1000, 256, 65535))
  assert.equal(await read('high.png', { nclass: 2, label_map: { 1000: 1, 256: 0, 65535: 255 } }), [1, 0, 255])
  await refuses(() => read('high.png', { nclass: 2 }), 'value 1000', '0 to 1')
})

test('colours are looked up in the palette, with and without alpha', async () => {
  const palette = [white, red]
  write('rgb.png', 2, Uint8Array.of(...red, ...white, ...white, ...red), 3)
  assert.equal(await read('rgb.png', { nclass: 2, palette }), [1, 0, 0, 1])
  assert.equal(await read('rgb.png', { nclass: 2, palette: ['#ffffff', '#FF0000'] }), [1, 0, 0, 1])
  write('rgba.png', 1, Uint8Array.of(...red, 255, ...white, 0), 4)
  assert.equal(await read('rgba.png', { nclass: 2, palette }), [1, 0])
  write('alpha.png', 2, Uint8Array.of(1, 255, 0, 9), 2)
  assert.equal(await read('alpha.png', { nclass: 2, palette }), [1, 0])
  await refuses(() => read('rgb.png', { nclass: 2 }), 'rgb.png', 'colours', "'palette'")
})

test('further colours are named in the map, unknown ones refused by name', async () => {
  write('rgb3.png', 3, Uint8Array.of(...red, ...white, ...blue), 3)
  const keys = { nclass: 2, palette: [white, red] }
  await refuses(() => read('rgb3.png', keys), 'rgb3.png', '#0000ff', 'x=2, y=0', "'#0000ff': 255")
  assert.equal(await read('rgb3.png', { ...keys, label_map: { '#0000ff': 255 } }), [1, 0, 255])
  assert.equal(await read('rgb3.png', { ...keys, label_map: { '#0000FF': 1 } }), [1, 0, 1])
})

const black = [0, 0, 0]
const grey = (level: number) => [level, level, level]

/** A PNG with a palette, a row of indices. */
function writeIndexed(name: string, palette: number[][], ...indices: number[]): void {
  const all = Array.from({ length: 256 }, (_, i) => palette[i] ?? [9, 99, 199])
  const data = Uint8Array.from(indices)
  writeFileSync(at(name), encode({ width: indices.length, height: 1, channels: 1, data, palette: all }))
}

test('of a palette PNG the indices count where no colours are configured, or values are mapped', async () => {
  writeIndexed('indexed.png', [red, black, blue], 0, 2, 255)
  assert.equal(await read('indexed.png', { nclass: 3 }), [0, 2, 255])
  assert.equal(
    await read('indexed.png', { nclass: 3, palette: [white, red, blue], label_map: { 0: 2, 2: 0 } }),
    [2, 0, 255],
  )
})

test('a palette in another order is the same picture where colours are configured', async () => {
  const keys = { nclass: 3, palette: [black, red, blue], label_map: { '#ffffff': 255 } }
  writeIndexed('order.png', [black, red, blue, white], 0, 1, 2, 3)
  writeIndexed('other.png', [blue, white, black, red], 2, 3, 0, 1)
  writeIndexed('twice.png', [blue, blue, white, red, black, black], 4, 3, 1, 2)
  for (const name of ['order.png', 'other.png', 'twice.png']) assert.equal(await read(name, keys), [0, 1, 2, 255], name)
  assert.equal(
    await read('other.png', { nclass: 2, label_map: { '#000000': 0, '#ff0000': 1, '#0000ff': 1, '#ffffff': 0 } }),
    [0, 1, 1, 0],
  )
  assert.equal(
    await read('other.png', { nclass: 3, label_map: { 0: 0, 1: 1, 2: 2, 3: 255 }, palette: [black, red, blue] }),
    [2, 255, 0, 1],
  )
})

test('a grey image is the same picture as one in colours that are greys, where a map names them', async () => {
  const keys = { nclass: 2, label_map: { '#000000': 0, '#ffffff': 1 } }
  write('bw.png', 2, Uint8Array.of(0, 255, 255, 0))
  write('bw-rgb.png', 2, Uint8Array.of(...black, ...white, ...white, ...black), 3)
  writeIndexed('bw-palette.png', [white, black], 1, 0, 0, 1)
  for (const name of ['bw.png', 'bw-rgb.png', 'bw-palette.png'])
    assert.equal(await read(name, keys), [0, 1, 1, 0], name)
  // Others are indices.
  write('indices.png', 2, Uint8Array.of(0, 1, 255, 0))
  assert.equal(await read('indices.png', keys), [0, 1, 255, 0])
})

test('a colour without a class is refused beside others in another order, and void keeps its index beside the same order', async () => {
  const keys = { nclass: 3, palette: [black, red, blue] }
  writeIndexed('stray.png', [red, white, black], 0, 1, 2)
  await refuses(
    () => read('stray.png', keys),
    'stray.png',
    '#ffffff at x=1',
    "'#ffffff': 255",
    'indices of its palette',
  )
  writeIndexed('void.png', [black, red, blue], 0, 1, 2, 255)
  assert.equal(await read('void.png', keys), [0, 1, 2, 255])
  // A palette that ends before the index of what is ignored: no black is meant.
  const data = Uint8Array.of(0, 1, 2, 255)
  writeFileSync(at('short.png'), encode({ width: 4, height: 1, channels: 1, data, palette: [black, red, blue] }))
  assert.equal(await read('short.png', keys), [0, 1, 2, 255])
})

test('greys in a palette are the values of a grey image, unless the palette has nothing to do with the classes', async () => {
  const keys = { nclass: 4, palette: [black, red, blue, white] }
  writeIndexed('greys.png', [grey(1), grey(3), grey(0), grey(2), grey(255)], 0, 1, 2, 3, 4)
  // White is a class here, as all other colours are not.
  assert.equal(await read('greys.png', keys), [1, 3, 0, 2, 255])
  assert.equal(await read('greys.png', { nclass: 5 }), [0, 1, 2, 3, 4])
  writeIndexed('show.png', [black, grey(80), grey(160), grey(240)], 0, 1, 2, 3)
  assert.equal(await read('show.png', keys), [0, 1, 2, 3])
})

test('labels that count from 1 are told by a key, or by the name of the data set', async () => {
  write('from1.png', 4, Uint8Array.of(0, 1, 3, 255))
  assert.equal(await read('from1.png', { nclass: 3, reduce_zero_label: true }), [255, 0, 2, 255])
  assert.equal(await read('from1.png', { dataset: 'ade20k', nclass: 150 }), [255, 0, 2, 255])
  assert.equal(await read('from1.png', { dataset: 'ade20k', nclass: 150, reduce_zero_label: false }), [0, 1, 3, 255])
})

test('the values of a label are found wherever it begins in memory, and however long it is', () => {
  const random = new Random(3)
  for (let length = 0; length < 40; length++) {
    for (let start = 0; start < 4; start++) {
      const values = new Uint8Array(50).fill(99).subarray(start, start + length)
      for (let i = 0; i < length; i++)
        values[i] = random.integer(0, 4) === 0 ? random.integer(0, 256) : (values[i - 1] ?? 7)
      assert.equal(
        usedBytes(values),
        [...new Set(values)].sort((a, b) => a - b),
      )
    }
  }
})

test('what damages a label is named', async () => {
  await sharp(Buffer.alloc(48, 9), { raw: { width: 4, height: 4, channels: 3 } }).toFile(at('mask.jpg'))
  await refuses(() => read('mask.jpg', { nclass: 2 }), 'mask.jpg', 'not a PNG')
  const png = encode({ width: 4, height: 4, channels: 3, depth: 8, data: new Uint8Array(48) })
  png[png.length - 5] = (png[png.length - 5] ?? 0) ^ 1
  writeFileSync(at('crc.png'), png)
  await refuses(() => read('crc.png', { nclass: 2, palette: [white, red] }), 'crc.png', 'replace the file')
  writeFileSync(at('deep-rgb.png'), encode({ width: 1, height: 1, channels: 3, depth: 16, data: new Uint16Array(3) }))
  await refuses(() => read('deep-rgb.png', { nclass: 2, palette: [white, red] }), 'deep-rgb.png', '16 bits')
})

test('the map and the palette hold in the threads of the loader', async () => {
  const width = 16
  await sharp(Buffer.alloc(width * width * 3, 90), { raw: { width, height: width, channels: 3 } }).toFile(at('x.png'))
  const pixels = Uint8Array.from({ length: width * width * 3 }, (_, i) => (i % 3 === 0 || i < 300 ? 255 : 0))
  write('x.label.png', width, pixels, 3)
  writeFileSync(at('one.txt'), 'x.png x.label.png\n')
  const keys = { classes: ['a', 'b'], palette: [red, blue], label_map: { '#ffffff': 1 } }
  const loader = createLoader({
    config: config(keys),
    labeled: readList(at('one.txt'), folder, 'required'),
    unlabeled: [],
    seed: 1,
    workers: 1,
    layout: [labeledStream],
  })
  try {
    for await (const batch of loader.epoch(0)) {
      const found = new Set(batch.mask_x)
      assert.ok(found.has(0) || found.has(1))
      assert.ok([...found].every((value) => value === 0 || value === 1 || value === 255))
    }
  } finally {
    await loader.close()
  }
})

test('classes, palettes and maps are checked', async () => {
  await refuses(() => config({}), "'nclass' is missing", 'classes')
  await refuses(() => config({ classes: ['a'] }), "'classes' has 1 names")
  await refuses(() => config({ classes: ['a', 'b'], class_names: ['a', 'c'] }), 'leave one of them out')
  await refuses(() => config({ nclass: 2, palette: [red] }), "'palette' has 1 colours")
  await refuses(() => config({ nclass: 2, palette: [red, 'red'] }), "'palette.1'", '#rrggbb')
  await refuses(() => config({ nclass: 2, palette: [red, red] }), 'classes 0 and 1', '#ff0000')
  await refuses(() => config({ nclass: 2, label_map: { x: 1 } }), '"x"', '#rrggbb')
  await refuses(() => config({ nclass: 2, label_map: { 70000: 1 } }), '70000')
  await refuses(() => config({ nclass: 2, label_map: { 1: 7 } }), '1 into 7')
  await refuses(() => config({ nclass: 2, label_map: { 1: 1 }, reduce_zero_label: true }), 'exclude each other')
  await refuses(() => config({ nclass: 2, multi_grid: true }), "'multi_grid' is true", 'false')
  await refuses(() => config({ nclass: 2, val_id_path: { image: 'a' } }), "'val_id_path.images'")
  await refuses(() => config({ nclass: 2, val_id_path: { images: 'a', label: 'b' } }), 'val_id_path.label')
  await refuses(() => config({ nclass: 2, val_id_path: 3 }), "'val_id_path' is 3", 'list', 'folders')
  assert.equal(config({ classes: ['a', 'b'] }).class_names, ['a', 'b'])
  assert.is(config({ classes: ['a', 'b'] }).nclass, 2)
  assert.equal(config({ nclass: 2 }).class_names, ['0', '1'])
  assert.equal(config({ dataset: 'pascal' }).class_names[20], 'tv/monitor')
})

test('a resolved configuration can be read again', () => {
  const first = config({ classes: ['a', 'b'], palette: ['#010203', red], label_map: { 0: 1, '#ffffff': 255 } })
  assert.equal(parseConfig(JSON.parse(JSON.stringify(first)), 'the copy'), first)
})

test('the known data sets have as many names as colours', () => {
  for (const [name, count] of Object.entries({ pascal: 21, cityscapes: 19, coco: 81, ade20k: 150 })) {
    const classes = knownClasses(name)
    assert.is(classes?.names.length, count, name)
    assert.is(classes?.palette.length, count, name)
    assert.is(new Set(classes?.names).size, count, name)
    const loaded = loadConfig(join('configs', `${name}.yaml`))
    assert.is(loaded.nclass, count)
    assert.equal(loaded.class_names, classes?.names)
    assert.is(loaded.reduce_zero_label, name === 'ade20k')
  }
  assert.is(knownClasses('constructor'), undefined)
  assert.equal(vocPalette(256)[255], [224, 224, 192])
  assert.equal(vocPalette(21)[20], [0, 64, 128])
  assert.equal(knownClasses('ade20k')?.palette[149], [92, 0, 255])
  assert.equal(paletteOf(config({ dataset: 'cityscapes' }))[13], [0, 0, 142])
  assert.equal(paletteOf(config({ dataset: 'cityscapes', nclass: 3 }))[1], [128, 0, 0])
  assert.equal(paletteOf(config({ nclass: 2, palette: [red, blue] })), [red, blue])
  assert.is(loadConfig('configs/custom.yaml').nclass, 2)
  assert.is(loadConfig('configs/camvid.yaml').nclass, 11)
})

test('lists of the reference code, and folders, give images and labels', async () => {
  for (const name of ['JPEGImages', 'SegmentationClass', 'my masks']) mkdirSync(at(name))
  for (const name of ['JPEGImages/a.jpg', 'JPEGImages/b b.JPG', 'SegmentationClass/a.png', 'my masks/a_m.png']) {
    writeFileSync(at(name), '')
  }
  writeFileSync(at('voc.txt'), 'JPEGImages/a.jpg SegmentationClass/a.png\r\n')
  assert.equal(readList(at('voc.txt'), folder, 'required'), [
    { name: 'JPEGImages/a.jpg', image: at('JPEGImages/a.jpg'), label: at('SegmentationClass/a.png') },
  ])
  writeFileSync(at('tab.txt'), 'JPEGImages/b b.JPG\tSegmentationClass/a.png\nJPEGImages/b b.JPG\t\n')
  assert.equal(
    readList(at('tab.txt'), folder, 'unused').map(({ name }) => name),
    ['JPEGImages/b b.JPG', 'JPEGImages/b b.JPG'],
  )
  const suffix = { image_suffix: '', label_suffix: '' }
  const images = { images: 'JPEGImages', ...suffix }
  assert.is(readList(images, folder, 'unused').length, 2)
  await refuses(() => readList(images, folder, 'required'), "'labels'")
  await refuses(
    () => readList({ ...images, labels: 'SegmentationClass' }, folder, 'required'),
    '1 of 2 images',
    'b b.JPG',
    'the command split',
  )
  rmSync(at('JPEGImages/b b.JPG'))
  const masks = { ...images, labels: 'my masks', label_suffix: '_m' }
  assert.equal(readList(masks, folder, 'required'), [
    { name: 'JPEGImages/a.jpg', image: at('JPEGImages/a.jpg'), label: at('my masks/a_m.png') },
  ])
  await refuses(() => readList({ ...images, images: 'nowhere' }, folder, 'unused'), 'nowhere', 'data_root')
  await refuses(() => readList({ ...images, images: '..' }, folder, 'unused'), 'outside')
  await refuses(() => readList(images, folder, 'unused', 5), 'has 1 images', 'batch of 5')
})

test('paths that lead out of the data folder are refused', async () => {
  for (const path of ['../x.png', 'a/../../x.png', '/etc/passwd', '..', `${folder}-other/x.png`]) {
    writeFileSync(at('out.txt'), `x.png x.label.png\n${path} x.label.png\n`)
    await refuses(() => readList(at('out.txt'), folder, 'required'), 'out.txt line 2', path, 'outside of data_root')
    writeFileSync(at('out.txt'), `x.png ${path}\n`)
    await refuses(() => readList(at('out.txt'), folder, 'unused'), 'out.txt line 1', path)
  }
  writeFileSync(at('in.txt'), `${at('x.png')} a/../x.label.png\n`)
  assert.is(readList(at('in.txt'), folder, 'required').length, 1)
})

test.run()
