import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { crc32, deflateSync } from 'node:zlib'
import { type BitDepth, encode } from 'fast-png'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Config, parseConfig } from '#dist/train/config/load.js'
import type { Batch } from '#dist/train/data/batch.js'
import { evaluationSamples, readImage, readList, readPair, type Sample } from '#dist/train/data/dataset.js'
import { readLabel } from '#dist/train/data/labels.js'
import { createLoader, type Loader, type LoaderOptions } from '#dist/train/data/loader.js'
import { labeledStream } from '#dist/train/methods/supervised.js'
import { unimatchLayout } from '#dist/train/methods/unimatch.js'
import { philox4x32, Random } from '#dist/train/random.js'
import { checkSamples } from '#dist/train/run/check-samples.js'
import { refuses } from '../../support/refuses.js'

const test = suite('data')
const folder = mkdtempSync(join(tmpdir(), 'data-'))
const at = (name: string) => join(folder, name)
const rules = { nclass: 5, ignoreIndex: 255, reduceZero: false }
const SIZE = 24

/** A smooth picture that differs from number to number. */
function pixelsOf(width: number, height: number, number: number): Uint8Array {
  return Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const x = Math.floor(i / 3) % width
    const y = Math.floor(i / (3 * width))
    return 128 + 90 * Math.sin((x * (1 + (i % 3)) + y * 2 + number * 7) / 9)
  })
}

async function writeImage(name: string, width: number, height: number, number: number): Promise<void> {
  await sharp(pixelsOf(width, height, number), { raw: { width, height, channels: 3 } }).toFile(at(name))
}

function writeLabel(name: string, width: number, height: number, values: (i: number) => number): void {
  const data = Uint8Array.from({ length: width * height }, (_, i) => values(i))
  writeFileSync(at(name), encode({ width, height, data, channels: 1, depth: 8 }))
}

test.before(async () => {
  mkdirSync(at('set'))
  for (let i = 0; i < 7; i++) {
    const [width, height] = [30 + 3 * i, 40 - 2 * i]
    await writeImage(`set/${i}.png`, width, height, i)
    writeLabel(`set/${i}.label.png`, width, height, (p) => (p % 11 === 0 ? 255 : (p + i) % 5))
  }
  writeFileSync(at('labeled.txt'), 'set/0.png set/0.label.png\n\nset/1.png set/1.label.png\n')
  writeFileSync(
    at('unlabeled.txt'),
    'set/2.png\nset/3.png absent.png\nset/4.png\nset/5.png\r\nset/6.png set/6.label.png',
  )
})
test.after(() => rmSync(folder, { recursive: true }))

test('Philox4x32-10 gives the vectors of its authors', () => {
  assert.equal(philox4x32([0, 0, 0, 0], [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8])
  const ones = 0xffffffff
  assert.equal(philox4x32([ones, ones, ones, ones], [ones, ones]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd])
  assert.equal(
    philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  )
})

test('random draws have the right moments and continue from a state', () => {
  const random = new Random(7, 1)
  const draws = Array.from({ length: 20000 }, () => random.normal())
  const mean = draws.reduce((a, b) => a + b) / draws.length
  const variance = draws.reduce((a, b) => a + b * b, 0) / draws.length
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(variance - 1) < 0.04, `mean ${mean}, variance ${variance}`)
  random.word()
  const state = JSON.parse(JSON.stringify(random.state))
  assert.equal(Array.from(Random.from(state).permutation(9)), Array.from(random.permutation(9)))
  assert.not.equal(Array.from(new Random(7, 1).permutation(99)), Array.from(new Random(7, 2).permutation(99)))
  assert.not.equal(new Random(7).word(), new Random(7 + 2 ** 32).word())
  assert.equal(
    Array.from(random.permutation(50)).sort((a, b) => a - b),
    Array.from({ length: 50 }, (_, i) => i),
  )
  const weights = random.dirichlet(3)
  assert.ok(Math.abs(weights.reduce((a, b) => a + b) - 1) < 1e-12 && weights.every((w) => w > 0))
  assert.throws(() => random.integer(3, 3), /no integer/)
  assert.throws(() => new Random(-1), /seed -1/)
})

test('lists skip empty lines and take labels only where they are wanted', () => {
  const labeled = readList(at('labeled.txt'), folder, 'required')
  assert.equal(labeled[1], { name: 'set/1.png', image: at('set/1.png'), label: at('set/1.label.png') })
  const unlabeled = readList(at('unlabeled.txt'), folder, 'unused')
  assert.equal(
    unlabeled.map((sample) => sample.name),
    [2, 3, 4, 5, 6].map((i) => `set/${i}.png`),
  )
  assert.ok(unlabeled.every((sample) => sample.label === null))
})

test('lists are read in UTF-16 and with backslashes, unless these are in the name of a file', async () => {
  const expected = readList(at('labeled.txt'), folder, 'required')
  const text = 'set\\0.png set\\0.label.png\r\nset\\1.png\tset\\1.label.png\r\n'
  const little = Buffer.from(`\uFEFF${text}`, 'utf16le')
  for (const bytes of [Buffer.from(text), Buffer.from(`\uFEFF${text}`), little, Buffer.from(little).swap16()]) {
    writeFileSync(at('other.txt'), bytes)
    assert.equal(readList(at('other.txt'), folder, 'required'), expected)
  }
  writeFileSync(at('other.txt'), Buffer.from(text, 'utf16le'))
  await refuses(() => readList(at('other.txt'), folder, 'required'), 'other.txt', 'save it as UTF-8')
  writeFileSync(at('other.txt'), Buffer.from('caf\u00e9.png\n', 'latin1'))
  await refuses(() => readList(at('other.txt'), folder, 'unused'), 'other.txt line 1', 'save the list as UTF-8')
  if (process.platform === 'win32') return
  writeFileSync(at('odd\\name.png'), readFileSync(at('set/0.png')))
  writeFileSync(at('other.txt'), 'odd\\name.png\n')
  assert.is(readList(at('other.txt'), folder, 'unused')[0]?.name, 'odd\\name.png')
})

test('faults of lists name the file and the line', async () => {
  const list = (text: string, minimum = 1) => {
    writeFileSync(at('list.txt'), text)
    return readList(at('list.txt'), folder, 'required', minimum)
  }
  await refuses(() => readList(at('no.txt'), folder, 'required'), 'no.txt')
  await refuses(() => list('\n \n'), 'list.txt', 'empty')
  await refuses(() => list('set/0.png set/0.label.png', 2), 'list.txt', 'has 1 lines', 'batch of 2')
  await refuses(() => list('set/0.png'), 'list.txt line 1', 'no label')
  await refuses(() => list('\nset/0.png set/9.label.png'), 'list.txt line 2', 'set/9.label.png', 'data_root')
  await refuses(() => list('a b c'), 'list.txt line 1', 'two words')
  await refuses(() => readList(at('labeled.txt'), at('nowhere'), 'required'), 'nowhere', 'data_root')
})

test('damaged and foreign images are refused by name', async () => {
  await sharp(pixelsOf(64, 64, 1), { raw: { width: 64, height: 64, channels: 3 } }).toFile(at('whole.jpg'))
  const bytes = readFileSync(at('whole.jpg'))
  writeFileSync(at('cut.jpg'), bytes.subarray(0, bytes.length / 2))
  await refuses(() => readImage(at('cut.jpg')), 'cut.jpg')
  const png = readFileSync(at('set/1.png'))
  const checksum = png.indexOf('IEND') - 5
  png.writeUInt8(png.readUInt8(checksum) ^ 1, checksum)
  writeFileSync(at('crc-image.png'), png)
  await refuses(() => readImage(at('crc-image.png')), 'crc-image.png', 'replace the file')
  writeFileSync(at('text.jpg'), 'not a picture')
  await refuses(() => readImage(at('text.jpg')), 'text.jpg')
  writeFileSync(at('x.svg'), '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
  await refuses(() => readImage(at('x.svg')), 'x.svg')
  await refuses(() => readImage(at('absent.jpg')), 'absent.jpg')
})

test('a thread that starts takes no decoder away from the others', async () => {
  // The decoders are of the whole process: where the thread set them anew, this one would be blocked again.
  const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="3" height="2"/>')
  await sharp(svg)
    .raw()
    .toBuffer()
    .then(
      () => assert.unreachable('decoders of other files are not blocked'),
      () => {},
    )
  sharp.unblock({ operation: ['VipsForeignLoadSvg'] })
  try {
    const module = JSON.stringify(import.meta.resolve('#dist/train/data/loader-worker.js'))
    const worker = new Worker(`import(${module}).then(() => require('node:worker_threads').parentPort.close())`, {
      eval: true,
      workerData: { rules: {} },
    })
    await once(worker, 'exit')
    assert.is((await sharp(svg).raw().toBuffer({ resolveWithObject: true })).info.width, 3)
  } finally {
    sharp.block({ operation: ['VipsForeignLoadSvg'] })
  }
})

test('labels are read from every bit depth, from palettes as indices', async () => {
  const read = async (depth: BitDepth, data: Uint8Array | Uint16Array, palette?: number[][]) => {
    const image = { width: 5, height: 2, channels: 1, depth, data }
    writeFileSync(at('label.png'), encode(palette ? { ...image, palette } : image))
    return Array.from((await readLabel(at('label.png'), rules)).data)
  }
  const values = [0, 1, 2, 3, 4, 255, 1, 0, 4, 2]
  assert.equal(await read(8, Uint8Array.from(values)), values)
  const palette = Array.from({ length: 256 }, (_, i) => [255 - i, 7, 7])
  assert.equal(await read(8, Uint8Array.from(values), palette), values)
  const nibbles = Uint8Array.of(0x01, 0x23, 0x40, 0x21, 0x04, 0x20)
  assert.equal(await read(4, nibbles), [0, 1, 2, 3, 4, 2, 1, 0, 4, 2])
  assert.equal(await read(4, nibbles, palette.slice(0, 16)), [0, 1, 2, 3, 4, 2, 1, 0, 4, 2])
  assert.equal(await read(1, Uint8Array.of(0b10110000, 0b01001000)), [1, 0, 1, 1, 0, 0, 1, 0, 0, 1])
})

test('a 0 that is no class is ignored where the data set says so', async () => {
  writeLabel('zero.png', 4, 1, (i) => [0, 1, 5, 255][i] as number)
  const { data } = await readLabel(at('zero.png'), { ...rules, reduceZero: true })
  assert.equal(Array.from(data), [255, 0, 4, 255])
})

test('impossible labels are refused with value and place', async () => {
  writeLabel('big.png', 4, 3, (i) => (i === 6 ? 12 : i === 9 ? 13 : 0))
  await refuses(() => readLabel(at('big.png'), rules), 'big.png', 'value 12', 'x=2, y=1', '0 to 4', 'nclass')
  writeFileSync(at('rgb.png'), encode({ width: 1, height: 1, channels: 3, depth: 8, data: new Uint8Array(3) }))
  await refuses(() => readLabel(at('rgb.png'), rules), 'rgb.png', 'colours')
  await refuses(() => readLabel(at('whole.jpg'), rules), 'whole.jpg', 'not a PNG')
  const broken = readFileSync(at('set/0.label.png'))
  const inData = broken.indexOf('IDAT') + 20
  broken.writeUInt8(broken.readUInt8(inData) ^ 0x10, inData)
  writeFileSync(at('crc.png'), broken)
  await refuses(() => readLabel(at('crc.png'), rules), 'crc.png')
  const whole = readFileSync(at('set/0.label.png'))
  writeFileSync(at('cut.png'), whole.subarray(0, whole.length - 40))
  await refuses(() => readLabel(at('cut.png'), rules), 'cut.png')
})

test('labels that would fill the memory are refused before they are inflated', async () => {
  const chunk = (type: string, data: Buffer) => {
    const head = Buffer.alloc(8)
    head.writeUInt32BE(data.length)
    head.write(type, 4, 'latin1')
    const sum = Buffer.alloc(4)
    sum.writeUInt32BE(crc32(Buffer.concat([head.subarray(4), data])))
    return Buffer.concat([head, data, sum])
  }
  const png = (width: number, height: number, data: Buffer) => {
    const header = Buffer.alloc(13)
    header.writeUInt32BE(width)
    header.writeUInt32BE(height, 4)
    header.writeUInt8(8, 8)
    const signature = Buffer.from('89504e470d0a1a0a', 'hex')
    return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', data), chunk('IEND', Buffer.alloc(0))])
  }
  writeFileSync(at('large.png'), png(100000, 100000, Buffer.alloc(8)))
  await refuses(() => readLabel(at('large.png'), rules), 'large.png', '100000x100000')
  writeFileSync(at('bomb.png'), png(2, 2, deflateSync(Buffer.alloc(80 * 2 ** 20))))
  await refuses(() => readLabel(at('bomb.png'), rules), 'bomb.png', 'more data than its pixels need')
})

test('image and label must have the same size', async () => {
  const pair = (image: string, label: string) => () => readPair({ name: '', image: at(image), label: at(label) }, rules)
  await refuses(pair('set/0.png', 'set/1.label.png'), 'set/0.png has 30x40', 'set/1.label.png has 33x38')
  writeLabel('lying.png', 40, 30, () => 0)
  await refuses(pair('set/0.png', 'lying.png'), 'turn one of them', 'EXIF')
})

const config: Config = parseConfig({ nclass: 5, crop_size: SIZE, epochs: 1, batch_size: 2, lr: 0.1 }, 'the test')

function options(changes: Partial<LoaderOptions> = {}): LoaderOptions {
  const labeled = readList(at('labeled.txt'), folder, 'required')
  const unlabeled = readList(at('unlabeled.txt'), folder, 'unused')
  return { config, labeled, unlabeled, seed: 5, workers: 1, layout: unimatchLayout, ...changes }
}

/** Runs `body` with a loader that is closed afterwards. */
async function withLoader<T>(changes: Partial<LoaderOptions>, body: (loader: Loader) => Promise<T>): Promise<T> {
  const loader = createLoader(options(changes))
  try {
    return await body(loader)
  } finally {
    await loader.close()
  }
}

/** A field of a batch, which must be there. */
function field(batch: Batch, name: string): Uint8Array {
  const data = batch[name]
  assert.instance(data, Uint8Array, name)
  return data as Uint8Array
}

/** The batches of an epoch, copied. */
async function collect(loader: Loader, epoch: number, start = 0): Promise<Batch[]> {
  const batches: Batch[] = []
  for await (const batch of loader.epoch(epoch, start)) {
    batches.push(Object.fromEntries(Object.entries(batch).map(([name, data]) => [name, new Uint8Array(data)])) as Batch)
  }
  return batches
}

test('batches have the promised shapes and values', () =>
  withLoader({}, async (loader) => {
    assert.is(loader.iterationsPerEpoch, 2)
    const batches = await collect(loader, 0)
    assert.is(batches.length, 2)
    for (const batch of batches) {
      const area = 2 * SIZE * SIZE
      for (const name of [
        'img_x',
        'img_u_w',
        'img_u_s1',
        'img_u_s2',
        'img_u_w_mix',
        'img_u_s1_mix',
        'img_u_s2_mix',
      ] as const) {
        const image = field(batch, name)
        assert.is(image.length, area * 3, name)
        assert.ok(
          image.some((value) => value > 100),
          name,
        )
      }
      assert.ok(field(batch, 'mask_x').every((value) => value < 5 || value === 255))
      assert.ok(field(batch, 'ignore_mask').every((value) => value === 0 || value === 255))
      assert.ok(['cutmix_box1', 'cutmix_box2'].every((name) => field(batch, name).every((value) => value <= 1)))
      assert.not.equal(batch.img_u_s1, batch.img_u_w)
      assert.not.equal(batch.img_u_w_mix, batch.img_u_w)
    }
  }))

test('the same bits for any number of workers, with and without the cache, from any start', async () => {
  const reference = await withLoader({ cacheBytes: 0 }, (loader) => collect(loader, 3))
  await withLoader({ workers: 3 }, async (loader) => {
    const other = await collect(loader, 4)
    assert.not.equal(other, reference)
    assert.equal(await collect(loader, 3), reference)
    assert.equal(await collect(loader, 3, 1), reference.slice(1))
  })
  await withLoader({ seed: 6 }, async (loader) => assert.not.equal(await collect(loader, 3), reference))
})

test('an epoch can be left early', () =>
  withLoader({ workers: 2 }, async (loader) => {
    for await (const batch of loader.epoch(0)) {
      assert.ok(field(batch, 'img_x').length > 0)
      break
    }
    assert.is((await collect(loader, 0)).length, 2)
  }))

test('workers that come too late for a task of a batch go on to the next batch', () =>
  withLoader({ workers: 3, layout: [labeledStream], config: { ...config, batch_size: 1 } }, async (loader) => {
    for (let epoch = 0; epoch < 3; epoch++) assert.is((await collect(loader, epoch)).length, 5)
  }))

test('supervised batches hold the labeled part alone', () =>
  withLoader({ layout: [labeledStream] }, async (loader) => {
    assert.is(loader.iterationsPerEpoch, 2)
    const batches = await collect(loader, 3)
    const full = await withLoader({}, (other) => collect(other, 3))
    assert.equal(
      batches.map((batch) => batch.mask_x),
      full.map((batch) => batch.mask_x),
    )
    assert.equal(Object.keys(batches[0] ?? {}), ['img_x', 'mask_x'])
  }))

test('a file that breaks during the run ends it with its name', async () => {
  writeFileSync(at('broken.png'), readFileSync(at('set/2.png')).subarray(0, 100))
  const broken: Sample = { name: 'broken.png', image: at('broken.png'), label: null }
  const { unlabeled } = options()
  await withLoader({ workers: 2, unlabeled: [...unlabeled, broken] }, async (loader) => {
    await refuses(() => collect(loader, 0), 'broken.png')
    await refuses(() => collect(loader, 1), 'broken.png')
  })
})

test('the check before the first step reads pairs, and images without labels', async () => {
  const { labeled, unlabeled } = options()
  await checkSamples([...labeled, ...unlabeled], config)
  writeFileSync(at('broken.png'), readFileSync(at('set/2.png')).subarray(0, 100))
  const broken = { name: 'broken.png', image: at('broken.png'), label: null }
  await refuses(() => checkSamples([...labeled, ...unlabeled, broken], config), 'broken.png')
  const wrong = { name: 'x', image: at('set/0.png'), label: at('set/1.label.png') }
  await refuses(() => checkSamples([...labeled, wrong], config), 'set/1.label.png')
})

test('lists that do not fill a batch are refused', async () => {
  await refuses(() => createLoader(options({ unlabeled: [] })), 'unlabeled')
  await refuses(() => createLoader(options({ labeled: [] })), 'labeled')
  await refuses(() => createLoader(options({ unlabeled: options().unlabeled.slice(1, 2) })), 'batch of 2')
})

test('a closed loader refuses to read instead of waiting', async () => {
  const loader = createLoader(options())
  await loader.close()
  try {
    await collect(loader, 0)
  } catch (error) {
    assert.match(String(error), /closed/)
    return
  }
  assert.unreachable('the closed loader gave an epoch')
})

test('evaluation samples come in order, faults in their turn', async () => {
  const list = readList(at('labeled.txt'), folder, 'required')
  const names: string[] = []
  for await (const { image, label, name } of evaluationSamples(list, config)) {
    assert.is(image.data.length, label.data.length * 3)
    names.push(name)
  }
  assert.equal(names, ['set/0.png', 'set/1.png'])
  const wrong: Sample = { name: 'x', image: at('set/0.png'), label: at('set/1.label.png') }
  let read = 0
  await refuses(async () => {
    for await (const sample of evaluationSamples([...list, wrong], config)) read += Number(sample.label.width > 0)
  }, 'set/0.png')
  assert.is(read, 2)
})

test.run()
