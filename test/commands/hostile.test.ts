// Files that are made to do harm: refused by limits, before memory or time is spent.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateSync } from 'node:zlib'
import { encode } from 'fast-png'
import sharp from 'sharp'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openModel, readModel } from '#dist/train/checkpoint/load-model.js'
import { loadConfig } from '#dist/train/config/load.js'
import { readEntries, readImage, readList } from '#dist/train/data/dataset.js'
import { readStoredLabel } from '#dist/train/data/labels.js'
import { UserError } from '#dist/train/error.js'
import { withFile } from '#dist/train/io/files.js'
import { parsePth } from '#dist/train/io/pth.js'
import { readSafetensors, writeSafetensors } from '#dist/train/io/safetensors.js'
import { pngOf } from '../support/fuzz/mutate.js'
import { nullDevice } from '../support/null-device.js'
import { skipUnless } from '../support/skip.js'
import { run } from '../support/tiny-run.js'
import { pickle, pthOf } from '../support/torch-file.js'

const test = suite('hostile')
const folder = mkdtempSync(join(tmpdir(), 'atrous-hostile-'))
const at = (name: string) => join(folder, name)
test.after(() => rmSync(folder, { recursive: true }))

const readPth = (path: string) => withFile(path, parsePth)

function fileOf(content: string | Uint8Array, name = 'x'): string {
  writeFileSync(at(name), content)
  return at(name)
}

/** Asserts a UserError of one line that matches, within the time that is given. */
async function refuses(action: () => unknown, pattern: RegExp, seconds = 5): Promise<void> {
  const started = performance.now()
  try {
    await action()
  } catch (error) {
    assert.instance(error, UserError, error instanceof Error ? (error.stack ?? '') : '')
    const { message } = error as UserError
    assert.match(message, pattern)
    assert.not.match(message, /\p{Cc}/u)
    assert.ok(performance.now() - started < seconds * 1000, `it took ${Math.round(performance.now() - started)} ms`)
    return
  }
  assert.unreachable(`not refused: ${pattern}`)
}

test('the message of an error is one line of bounded length, whatever names it holds', () => {
  assert.is(new UserError('a\nb\u001b[2J\u0085\u2028c').message, 'a\\u000ab\\u001b[2J\\u0085\\u2028c')
  assert.ok(new UserError('x'.repeat(1e6)).message.length < 2100)
})

test('YAML that costs more than its length suggests', async () => {
  const yaml = (text: string) => () => loadConfig(fileOf(text, 'x.yaml'))
  // Deep nesting would run out of stack within the parser's regular expressions, which ends the process.
  await refuses(yaml('['.repeat(10_000)), /nested more than 32 deep/)
  await refuses(yaml('{a: '.repeat(2000)), /nested more than 32 deep/)
  await refuses(yaml('- '.repeat(9000)), /nested more than 32 deep/)
  await refuses(
    yaml(Array.from({ length: 500 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')),
    /nested more than 32 deep/,
  )
  await refuses(yaml(`lr: ${'{a: '.repeat(33)}1${'}'.repeat(33)}`), /nested more than 32 deep/)
  // Every key is compared with every other.
  await refuses(yaml(Array.from({ length: 100_000 }, (_, i) => `k${i}: 1`).join('\n')), /more than 20000 words/)
  await refuses(yaml(`{${Array.from({ length: 6000 }, (_, i) => `k${i}`).join()}}`), /'crop_size' is missing/)
  await refuses(yaml('lr: &a [*a]\ncrop_size: *a'), /holds itself/)
  const needed = 'crop_size: 9\nepochs: 1\nbatch_size: 1\nlr: 1\n'
  await refuses(yaml(`%YAML 1.1\n---\n${needed}nclass: 2\npalette: [!!binary AAAA, !!binary BBBB]`), /'palette.0'/)
  await refuses(yaml(`${needed}dataset: !!set {a, b}`), /'dataset'/)
  const long = 'k'.repeat(1000)
  await refuses(yaml(`${needed}${long}: 1`), /unknown key 'kkk/)
  await refuses(() => loadConfig('configs/custom.yaml', [`lr=${'['.repeat(10_000)}`]), /--set lr=.* nested more than/)
})

const ihdr = (width: number, height: number, bits: number, type: number, interlace = 0) => {
  const data = Buffer.alloc(13)
  data.writeUInt32BE(width)
  data.writeUInt32BE(height, 4)
  data.set([bits, type, 0, 0, interlace], 8)
  return { type: 'IHDR', data }
}
const idat = (raw: Uint8Array) => ({ type: 'IDAT', data: deflateSync(raw) })
const iend = { type: 'IEND', data: Buffer.alloc(0) }

test('labels whose parts contradict each other, or hide what is inflated', async () => {
  const label =
    (...chunks: { type: string; data: Buffer }[]) =>
    () =>
      readStoredLabel(fileOf(pngOf(chunks), 'x.png'))
  const small = ihdr(2, 2, 8, 0)
  const pixels = idat(Buffer.alloc(6))
  await refuses(label(small, ihdr(60_000, 60_000, 8, 0), pixels, iend), /header is not in its place/)
  await refuses(label(pixels, small, iend), /header is not in its place/)
  await refuses(label(ihdr(0, 5, 8, 0), pixels, iend), /no pixels/)
  await refuses(label(ihdr(2 ** 31, 2 ** 31, 8, 0), pixels, iend), /pixels are more than/)
  await refuses(label(ihdr(2, 2, 3, 0), pixels, iend), /colour type is unknown/)
  await refuses(label(small, pixels), /truncated/)
  await refuses(label(small, idat(Buffer.alloc(5)), iend), /not complete/)
  await refuses(label(small, idat(Buffer.alloc(2 ** 28)), iend), /more data than its pixels need/)
  await refuses(label(small, idat(Buffer.alloc(6, 9)), iend), /damaged or not complete/)
  const texts = Array.from({ length: 140_000 }, () => ({ type: 'tEXt', data: Buffer.alloc(0) }))
  await refuses(() => readStoredLabel(fileOf(pngOf([small, ...texts, iend]))), /more than 131072/)
  // What a short stream of data holds beyond the pixels is not kept.
  const spare = await label(small, idat(Buffer.alloc(2 ** 24)), iend)()
  assert.equal([...spare.values], [0, 0, 0, 0])
  // A profile is not inflated at all.
  const bomb = { type: 'iCCP', data: Buffer.concat([Buffer.from('x\0\0'), deflateSync(Buffer.alloc(2 ** 28))]) }
  const { values } = await label(small, bomb, bomb, pixels, iend)()
  assert.equal([...values], [0, 0, 0, 0])
})

test('labels are read alike from every bit depth, plain and interlaced', async () => {
  const [width, height] = [13, 11]
  for (const [bits, channels, type] of [
    [1, 1, 0],
    [2, 1, 3],
    [4, 1, 0],
    [8, 1, 3],
    [16, 1, 0],
    [8, 2, 4],
    [8, 3, 2],
    [8, 4, 6],
  ] as const) {
    const sample = (x: number, y: number, c: number) => (x * 7 + y * 13 + c * 5) % (bits === 16 ? 60_000 : 2 ** bits)
    /** Rows of a pass, each with the filter 0. */
    const rows = (x0: number, y0: number, dx: number, dy: number): Buffer[] => {
      const found: Buffer[] = []
      for (let y = y0; y < height; y += dy) {
        let row = '0'.repeat(8)
        for (let x = x0; x < width; x += dx) {
          for (let c = 0; c < channels; c++) row += sample(x, y, c).toString(2).padStart(bits, '0')
        }
        if (row.length > 8)
          found.push(Buffer.from((row.match(/.{1,8}/g) ?? []).map((b) => Number.parseInt(b.padEnd(8, '0'), 2))))
      }
      return found
    }
    const adam7: [number, number, number, number][] = [
      [0, 0, 8, 8],
      [4, 0, 8, 8],
      [0, 4, 4, 8],
      [2, 0, 4, 4],
      [0, 2, 2, 4],
      [1, 0, 2, 2],
      [0, 1, 1, 2],
    ]
    const plain = pngOf([ihdr(width, height, bits, type), idat(Buffer.concat(rows(0, 0, 1, 1))), iend])
    const passes = Buffer.concat(adam7.flatMap((pass) => rows(...pass)))
    const interlaced = pngOf([ihdr(width, height, bits, type, 1), idat(passes), iend])
    const expected: number[] = []
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [a = 0, b = 0, c = 0] = [0, 1, 2].map((k) => sample(x, y, k))
        expected.push(channels > 2 ? (a << 16) | (b << 8) | c : a)
      }
    }
    for (const bytes of [plain, interlaced]) {
      const { values } = await readStoredLabel(fileOf(bytes, 'x.png'))
      assert.equal([...values], expected, `${bits} bits, ${channels} channels`)
    }
  }
})

test('labels are read alike with every filter', async () => {
  const [width, height] = [37, 29]
  const noise = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * i * 31 + (i >> 3)) % 256)
  const raw = () => sharp(noise, { raw: { width, height, channels: 3 } })
  const plain = await readStoredLabel(fileOf(encode({ width, height, channels: 3, data: noise }), 'x.png'))
  assert.is(plain.values[5], ((noise[15] ?? 0) << 16) | ((noise[16] ?? 0) << 8) | (noise[17] ?? 0))
  for (const options of [{ adaptiveFiltering: true }, { adaptiveFiltering: true, progressive: true }]) {
    const { values } = await readStoredLabel(fileOf(await raw().png(options).toBuffer(), 'x.png'))
    assert.equal(values, plain.values)
  }
})

test('images that are no photographs, whatever their names say', async () => {
  const raw = sharp(new Uint8Array(48), { raw: { width: 4, height: 4, channels: 3 } })
  await raw.toFile(at('x.v'))
  writeFileSync(at('x.pgm'), 'P2 1 1 1 1')
  for (const name of ['x.v', 'x.pgm']) await refuses(() => readImage(at(name)), /cannot read the image|is not read/)
  const huge = pngOf([ihdr(60_000, 60_000, 8, 0), idat(Buffer.alloc(9)), iend])
  await refuses(() => readImage(fileOf(huge, 'x.png')), /exceeds the pixel limit: .* 67108864 pixels/)
})

test('lists that leave the data folder, or have too many lines', async () => {
  const list = (text: string) => () => readEntries(fileOf(text, 'x.txt'), folder)
  for (const path of ['/etc/passwd', '../x', 'a/../../x', '.', './', 'a/..', '..', folder]) {
    await refuses(list(`${path}\n`), /is outside of data_root/)
    await refuses(list(`a.jpg ${path}\n`), /is outside of data_root/)
  }
  await refuses(list('\u001b[2J/../../x\n'), /line 1: \\u001b/)
  await refuses(list('\n'.repeat(2_000_001)), /more than 2000000 lines/)
  await refuses(() => readList(fileOf('a\0b.jpg c.png\n', 'x.txt'), folder, 'unused'), /zero bytes/)
  await refuses(list('..\\x\n'), /is outside of data_root/)
})

const isFifo = process.platform !== 'win32' && spawnSync('mkfifo', [at('pipe')]).status === 0
const pipeTest = skipUnless(isFifo, 'this system makes no pipes', test)
pipeTest('a pipe is refused instead of waited for', async () => {
  const path = at('pipe')
  for (const read of [loadConfig, readPth, readSafetensors, readStoredLabel, readImage]) {
    await refuses(() => read(path), /not a file/)
  }
  await refuses(() => readEntries(path, folder), /not a file/)
})

test('checkpoints that claim a large model do not get its memory', async () => {
  const wide = (name: string) =>
    [`${name}.weight`, { dtype: 'F32', shape: [2 ** 40, 0, 1, 1], data: new Float32Array() }] as const
  const layers = [1, 2, 3, 4].map((layer) => `backbone.layer${layer}.0.conv1`)
  const names = ['backbone.conv1.0', 'backbone.conv1.3', 'backbone.conv1.6', ...layers, 'backbone.layer1.0.conv3']
  const path = at('wide.safetensors')
  writeSafetensors(path, [...names, 'reduce.0', 'head.b0.0', 'fuse.0', 'classifier'].map(wide))
  await refuses(() => readModel(path), /whole DeepLabV3\+/)
  // Widths of real tensors, which multiply in the tensors that are missing.
  const real = (name: string) =>
    [`${name}.weight`, { dtype: 'F32', shape: [2 ** 15, 1, 1, 1], data: new Float32Array(2 ** 15) }] as const
  const heads = ['reduce.0', 'head.b0.0', 'fuse.0'].map(real)
  const one = { dtype: 'F32', shape: [1, 1, 1, 1], data: new Float32Array(1) } as const
  writeSafetensors(path, [...names.map(real), ...heads, ['classifier.weight', one]])
  const device = nullDevice()
  let bytes = 0
  const create = device.gpu.createBuffer.bind(device.gpu)
  device.gpu.createBuffer = (descriptor) => {
    bytes += descriptor.size
    return create(descriptor)
  }
  await refuses(() => openModel(device, readModel(path)), /do not fit the model/)
  // Its weights would take many gigabytes; a variable takes memory on its first use.
  assert.is(bytes, 0)
  writeSafetensors(path, [...names.map(real), ...heads, real('classifier')])
  await refuses(() => readModel(path), /32768 classes/)
})

test('texts in the metadata of a checkpoint may hold anything', () => {
  const one = { dtype: 'F32', shape: [1, 1, 1, 1], data: new Float32Array(1) } as const
  const layers = [1, 2, 3, 4].map((layer) => `backbone.layer${layer}.0.conv1`)
  const names = ['backbone.conv1.0', 'backbone.conv1.3', 'backbone.conv1.6', ...layers, 'backbone.layer1.0.conv3']
  const weights = [...names, 'reduce.0', 'head.b0.0', 'fuse.0', 'classifier'].map((n) => [`${n}.weight`, one] as const)
  const nested = `[${'['.repeat(20_000)}${']'.repeat(20_000)}]`
  for (const text of ['{', '"x"', 'null', '["\\u001b"]', nested]) {
    const metadata = { model: text, class_names: text, palette: text, epoch: text }
    writeSafetensors(at('x.safetensors'), weights, metadata)
    const { classNames } = readModel(at('x.safetensors'))
    assert.ok(classNames.every((name) => typeof name === 'string' && !/\p{Cc}/u.test(name)))
  }
})

test('headers of safetensors and pickles that unfold', async () => {
  const header = (json: string) => {
    const bytes = Buffer.from(json)
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(bytes.length))
    return () => readSafetensors(fileOf(Buffer.concat([length, bytes])))
  }
  await refuses(header('['.repeat(2 ** 21) + ']'.repeat(2 ** 21)), /not a JSON object/)
  await refuses(header(`{"a":${'['.repeat(3 * 2 ** 21)}`), /header claims/)
  await refuses(header('{"a\\n\\u001b[31m":3}'), /tensor 'a\\u000a/)
  const maps = Buffer.concat([Buffer.from('('), Buffer.alloc(99_000, '}'), Buffer.from('t')])
  const root = Buffer.concat(Array.from({ length: 20 }, () => maps))
  await refuses(() => readPth(fileOf(pthOf(Float32Array.of(1), root))), /takes more than 1000000 steps/)
  const recalled = Buffer.concat([
    pickle.text('x'.repeat(2 ** 20)),
    Buffer.from('q\0'),
    Buffer.from('h\0'.repeat(1000)),
  ])
  await refuses(() => readPth(fileOf(pthOf(Float32Array.of(1), recalled))), /holds no weights/)
})

test('through the commands: exit code 1, one line, nothing written', () => {
  const out = at('out')
  const bomb = fileOf(`lr: ${'['.repeat(10_000)}`, 'bomb.yaml')
  const aliases = fileOf('a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b]', 'aliases.yaml')
  const escaping = fileOf('../../etc/passwd\n/etc/passwd\n', 'escaping.txt')
  const config = (list: string, name: string) =>
    fileOf(
      `nclass: 2\ncrop_size: 9\nepochs: 1\nbatch_size: 1\nlr: 1\ndata_root: ${folder}\nlabeled_id_path: ${list}\n` +
        `unlabeled_id_path: ${list}\nval_id_path: ${list}`,
      name,
    )
  const good = config(escaping, 'good.yaml')
  const photo = fileOf(encode({ width: 2, height: 2, channels: 3, data: new Uint8Array(12) }), 'photo.png')
  const [whole, hidden] = [ihdr(2, 2, 8, 0), idat(Buffer.alloc(2 ** 28))]
  fileOf(pngOf([whole, hidden, iend]), 'label.png')
  fileOf(pngOf([ihdr(60_000, 60_000, 8, 2), hidden, iend]), 'huge.png')
  const unfolding = config(fileOf('photo.png label.png\n', 'unfolding.txt'), 'unfolding.yaml')
  const huge = config(fileOf('huge.png label.png\n', 'huge.txt'), 'huge.yaml')
  const claims = Buffer.alloc(8)
  claims.writeBigUInt64LE(2n ** 60n)
  const weights = fileOf(claims, 'claims.safetensors')
  const pth = 'test/fixtures/checkpoint/hostile_system.pth'
  for (const [script, args, pattern] of [
    ['convert.js', [pth, join(out, 'x.safetensors')], /posix\.system/],
    ['check-data.js', ['--config', bomb], /nested more than 32 deep/],
    ['check-data.js', ['--config', aliases], /alias/],
    ['check-data.js', ['--config', good], /line 1: .*passwd is outside of data_root/],
    ['train.js', ['--config', good, '--save-path', out], /line 1: .*passwd is outside of data_root/],
    ['train.js', ['--config', unfolding, '--save-path', out], /label\.png: it has more data than its pixels need/],
    ['train.js', ['--config', huge, '--save-path', out], /huge\.png.*pixel limit/],
    ['evaluate.js', ['--config', unfolding, '--ckpt-path', pth, '--out', out], /posix\.system/],
    ['evaluate.js', ['--config', unfolding, '--ckpt-path', weights, '--out', out], /header claims/],
    ['predict.js', ['--images', photo, '--ckpt-path', weights, '--out', out], /header claims/],
    ['split.js', ['--list', escaping, '--data-root', folder, '--labeled', '1', '--out', out], /outside of data_root/],
  ] as const) {
    const { code, errors } = run(script, args)
    assert.is(code, 1, `${script}: ${errors.join('\n')}`)
    assert.is(errors.length, 1, errors.join('\n'))
    assert.match(errors[0] ?? '', pattern)
    assert.not.ok(existsSync(out), `${script} wrote ${out}`)
  }
})

test.run()
