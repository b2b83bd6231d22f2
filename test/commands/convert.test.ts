import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { readCheckpoint } from '#dist/train/checkpoint/read.js'
import { readSafetensors, writeSafetensors } from '#dist/train/io/safetensors.js'
import { skipUnless } from '../support/skip.js'
import { pthOf, zipOf } from '../support/torch-file.js'

const test = suite('convert')
const fixtures = 'test/fixtures/checkpoint'
const folder = mkdtempSync(join(tmpdir(), 'atrous-convert-'))
test.after(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)

function convert(...args: string[]) {
  const result = spawnSync(process.execPath, [join('dist', 'convert.js'), ...args], { encoding: 'utf8' })
  return { code: result.status, stdout: result.stdout, errors: result.stderr.split('\n').filter((line) => line !== '') }
}

function refuses(pattern: RegExp, ...args: string[]): void {
  const before = readdirSync(folder)
  const { code, errors, stdout } = convert(...args)
  assert.is(code, 1, stdout)
  assert.is(errors.length, 1, errors.join('\n'))
  assert.match(errors[0] ?? '', pattern)
  assert.equal(readdirSync(folder), before, 'something was written')
}

test('a checkpoint of PyTorch becomes safetensors with the same bits', () => {
  const output = at('training.safetensors')
  const { code, stdout } = convert(join(fixtures, 'training.pth'), output)
  assert.is(code, 0)
  assert.match(stdout, /8 tensors, 5 momentum buffers/)
  // What is converted carries a checksum, as a file of PyTorch's does not.
  const { names: _, note, ...expected } = readCheckpoint(join(fixtures, 'training.pth'))
  assert.match(note ?? '', /training\.pth: weights of the key 'model'; prefix 'module\.' taken off/)
  assert.ok(stdout.startsWith(`${note}\n`), stdout)
  const { names: __, note: none, ...actual } = readCheckpoint(output)
  assert.equal(actual, { ...expected, verified: true })
  assert.is(none, undefined)
  assert.ok(readSafetensors(output).tensors.has('momentum/classifier.bias'))
  refuses(/is there already: .*--overwrite/, join(fixtures, 'training.pth'), output)
  assert.is(convert(join(fixtures, 'training.pth'), output, '--overwrite', '--weights-only').code, 0)
  assert.is(readSafetensors(output).tensors.size, 8)
  rmSync(output)
})

test('what cannot be written, or makes no sense, is refused', () => {
  const pth = join(fixtures, 'training.pth')
  refuses(/\.safetensors .* or \.onnx/, pth, at('x.pth'))
  refuses(/--size concerns ONNX/, pth, at('x.safetensors'), '--size', '33')
  refuses(/--set changes a configuration: give --config/, pth, at('x.onnx'), '--set', 'nclass=3')
  refuses(/does not hold a whole DeepLabV3\+/, pth, at('x.onnx'))
  refuses(/cannot open .*none\.pth/, 'none.pth', at('x.safetensors'))
  refuses(/cannot open .*none\.pth/, 'none.pth', at('missing/x.safetensors'))
  writeFileSync(at('file'), '')
  refuses(/cannot write .*file/, pth, at('file/x.safetensors'))
})

test('the folder of the result is made where it is missing', () => {
  const output = at('new/folder/x.safetensors')
  assert.is(convert(join(fixtures, 'training.pth'), output).code, 0)
  assert.is(readSafetensors(output).tensors.size, 13)
})

test('hostile files give one line and exit code 1', () => {
  const hostile = (name: string, bytes: Uint8Array, pattern: RegExp) => {
    writeFileSync(at(name), bytes)
    refuses(pattern, at(name), at('x.safetensors'))
  }
  const bomb = {
    name: 'a/data.pkl',
    data: new Uint8Array(64),
    claims: { method: 8, size: 2 ** 32 - 2, compressed: 64 },
  }
  hostile('bomb.pth', zipOf([bomb]), /^error: .*bomb\.pth .* is compressed/)
  hostile('system.pth', readFileSync(join(fixtures, 'hostile_system.pth')), /^error: .*names "posix\.system"/)
  hostile('nested.pth', pthOf(Float32Array.of(1), Buffer.alloc(5000, '(')), /nested more than 1000 deep/)
  hostile('nan.pth', pthOf(Float32Array.of(Number.NaN)), /tensor 'w' holds values that are not finite/)
  const header = Buffer.alloc(64)
  header.writeBigUInt64LE(2n ** 60n)
  hostile('header.safetensors', header, /header claims 1152921504606846976 bytes/)
})

test('help shows examples', () => {
  const { code, stdout } = convert('--help')
  assert.is(code, 0)
  assert.match(stdout, /Examples:\n {2}node dist\/convert\.js/)
})

const golden = '../shared/golden'
const goldenTest = skipUnless(existsSync(golden), `${golden} is absent`, test)

goldenTest('a whole checkpoint becomes safetensors that know their dilations, and ONNX', () => {
  const pth = join(golden, 'checkpoint/plain.pth')
  const plain = convert(pth, at('plain.onnx'))
  assert.is(plain.code, 0, plain.errors.join('\n'))
  assert.match(plain.stdout, /does not say its dilations: taking \[6,12,18\]/)
  const widths = JSON.parse(readFileSync(join(golden, 'tiny-prevmatch/pascal-like/config.json'), 'utf8')) as {
    model: Record<string, unknown>
  }
  const { nclass, ...model } = { ...widths.model, dilations: [2, 4, 6] } as Record<string, unknown>
  const config = at('narrow.yaml')
  const settings = { nclass, model, crop_size: 65, epochs: 1, batch_size: 1, lr: 0.1 }
  writeFileSync(config, JSON.stringify(settings))
  const named = convert(pth, at('named.safetensors'), '--config', config)
  assert.is(named.code, 0, named.errors.join('\n'))
  const { metadata } = readCheckpoint(at('named.safetensors'))
  assert.equal(JSON.parse(metadata.model ?? ''), { ...model, multi_grid: [1, 1, 1], nclass })
  assert.is((JSON.parse(metadata.class_names ?? '') as string[]).length, nclass)
  assert.equal((JSON.parse(metadata.palette ?? '') as number[][])[1], [128, 0, 0])
  const silent = convert(at('named.safetensors'), at('named.onnx'), '--size', '65x97')
  assert.is(silent.code, 0, silent.errors.join('\n'))
  assert.not.match(silent.stdout, /does not say/)
  const contents = readFileSync(at('named.onnx')).toString('latin1')
  assert.match(contents, '"dilations":[2,4,6]')
  refuses(
    /trained with nclass 5, but .*narrow\.yaml asks for 7/,
    pth,
    at('x.onnx'),
    '--config',
    config,
    '--set',
    'nclass=7',
  )
  const other = ['--set', 'model.dilations=[1,2,3]']
  refuses(/trained with dilations \[2,4,6\]/, at('named.safetensors'), at('x.onnx'), '--config', config, ...other)
})

test('weights of 16 bits stay so', () => {
  const half = { dtype: 'BF16', shape: [2], data: Uint16Array.of(0x3f80, 0xc000) } as const
  writeSafetensors(at('half.safetensors'), [['w', half]])
  assert.is(convert(at('half.safetensors'), at('again.safetensors')).code, 0)
  assert.equal(readSafetensors(at('again.safetensors')).tensors.get('w'), half)
})

test.run()
