import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseCheckpoint } from '#dist/train/checkpoint/parse.js'
import { readCheckpoint } from '#dist/train/checkpoint/read.js'
import { UserError } from '#dist/train/error.js'
import { sourceOf } from '#dist/train/io/byte-source.js'
import { withFile } from '#dist/train/io/files.js'
import { parsePth } from '#dist/train/io/pth.js'
import { type FileTensor, readSafetensors, toFloat32 } from '#dist/train/io/safetensors.js'
import { findState } from '#dist/train/io/state-dict.js'
import { skipUnless } from '../../support/skip.js'
import { type Member, pickle, pthOf, zipOf } from '../../support/torch-file.js'

const test = suite('pth')
const fixtures = 'test/fixtures/checkpoint'
const golden = '../shared/golden'
const goldenTest = skipUnless(existsSync(golden), `${golden} is absent`, test)
const folder = mkdtempSync(join(tmpdir(), 'atrous-pth-'))
test.after(() => rmSync(folder, { recursive: true }))

const readPth = (path: string) => withFile(path, parsePth)

/** Path of a file with these bytes. */
function fileOf(bytes: Uint8Array, name = 'x.pth'): string {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}

/** Checks that reading ends with one line that matches. */
function refuses(bytes: Uint8Array, pattern: RegExp): void {
  const path = fileOf(bytes)
  try {
    readCheckpoint(path)
  } catch (error) {
    assert.instance(error, UserError, String(error))
    const { message } = error as UserError
    assert.match(message, pattern)
    assert.ok(message.startsWith(path), message)
    assert.not.match(message, /\n/)
    assert.throws(
      () => parseCheckpoint(sourceOf(bytes, path)),
      (same: Error) => same.message === message,
    )
    return
  }
  assert.unreachable(`not refused: ${pattern}`)
}

const bitsOf = ({ data }: FileTensor) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength)

function assertSame(actual: ReadonlyMap<string, FileTensor>, expected: ReadonlyMap<string, FileTensor>): void {
  assert.equal([...actual.keys()].sort(), [...expected.keys()].sort())
  for (const [name, tensor] of expected) {
    const other = actual.get(name)
    assert.ok(other)
    assert.is(other.dtype, tensor.dtype, name)
    assert.equal([...other.shape], [...tensor.shape], name)
    assert.equal(bitsOf(other), bitsOf(tensor), name)
  }
}

for (const name of ['odd_tensors', 'odd_tensors_legacy']) {
  test(`${name}: views, shared data and number types are read bit for bit`, () => {
    const { tensors } = readCheckpoint(join(fixtures, `${name}.pth`))
    assertSame(tensors, readSafetensors(join(fixtures, 'odd_tensors.safetensors')).tensors)
  })
}

test('bfloat16, int32 and a permuted tensor', () => {
  const { state } = readPth(join(fixtures, 'types.pth'))
  const values = (name: string) => [...toFloat32(state.get(name) as FileTensor)]
  // 3e38 with eight bits is 226 * 2 ** 120.
  assert.equal(values('bf16'), [1, -2.5, 226 * 2 ** 120])
  assert.equal([...(state.get('int32')?.data ?? [])], [-7, 2 ** 31 - 1])
  assert.equal(state.get('permuted')?.shape, [4, 2, 3])
  // Element [i, j, k] of the result is element [j, k, i] of 0 ... 23 in the shape [2, 3, 4].
  const expected = [0, 1, 2, 3].flatMap((i) => [0, 1].flatMap((j) => [0, 1, 2].map((k) => j * 12 + k * 4 + i)))
  assert.equal(values('permuted'), expected)
})

for (const name of ['training', 'training_protocol5']) {
  test(`${name}: weights without module., momentum buffers by parameter, epoch and best score`, () => {
    const { tensors, momentumBuffers, metadata } = readCheckpoint(join(fixtures, `${name}.pth`))
    assert.equal(metadata, { epoch: '8', bestMiou: '71.25' })
    assert.is(tensors.size, 8)
    assert.equal(
      [...momentumBuffers].map(([key, tensor]) => [key, toFloat32(tensor)[0], tensor.shape]),
      [
        ['backbone.0.weight', 1, [2, 3, 1, 1]],
        ['backbone.1.weight', 2, [2]],
        ['backbone.1.bias', 3, [2]],
        ['classifier.weight', 4, [3, 2, 1, 1]],
        ['classifier.bias', 5, [3]],
      ],
    )
    const bias = [...toFloat32(tensors.get('classifier.bias') as FileTensor)]
    assert.equal(bias, [-0.1454697549343109, 0.35973623394966125, 0.09829985350370407])
  })
}

test('the content decides about the format, not the name', () => {
  const copies = [
    ['training.pth', 'a.safetensors'],
    ['odd_tensors.safetensors', 'b.bin'],
  ] as const
  for (const [from, to] of copies) {
    const path = fileOf(readFileSync(join(fixtures, from)), to)
    assert.ok(readCheckpoint(path).tensors.size > 5)
  }
  refuses(Buffer.from('<!DOCTYPE html><html>not found</html>'), /holds no weights: it is a web page/)
})

test('zip64', () => {
  const values = Float32Array.of(1, -2, 3.5)
  const { tensors } = readCheckpoint(fileOf(pthOf(values, undefined, { zip64: true })))
  assert.equal([...(tensors.get('w')?.data ?? [])], [...values])
})

for (const [name, expected] of [
  ['plain', 'plain.pth'],
  ['with module.', 'module_prefix.pth'],
  ['legacy', 'legacy_state_dict.pth'],
] as const) {
  goldenTest(`${name}: a whole model is equal to its safetensors bit for bit`, () => {
    const checkpoint = readCheckpoint(join(golden, 'checkpoint', expected))
    const reference = readCheckpoint(join(golden, 'tiny-prevmatch/pascal-like/final.safetensors'))
    assertSame(checkpoint.tensors, reference.tensors)
    if (name === 'legacy') return assert.is(checkpoint.momentumBuffers.size, 0)
    assertSame(checkpoint.momentumBuffers, reference.momentumBuffers)
    const { optimizer_param_names_by_index: names } = JSON.parse(
      readFileSync(join(golden, 'checkpoint/expected.json'), 'utf8'),
    ) as { optimizer_param_names_by_index: string[] }
    assert.equal([...checkpoint.momentumBuffers.keys()], names)
    assert.equal(checkpoint.metadata, { epoch: '5', bestMiou: '35' })
  })
}

test('code in a pickle is refused by its name, and does not run', () => {
  const mark = '/tmp/atrous-was-here'
  rmSync(mark, { force: true })
  for (const [file, name] of [
    ['hostile_system', 'posix.system'],
    ['hostile_system_legacy', 'posix.system'],
    ['hostile_eval', 'builtins.eval'],
  ]) {
    refuses(readFileSync(join(fixtures, `${file}.pth`)), new RegExp(`names "${name}", which is not read`))
  }
  assert.not.ok(existsSync(mark))
  refuses(readFileSync(join(fixtures, 'whole_module.pth')), /names "torch\.nn\.modules.*save only the state_dict/)
})

const values = Float32Array.of(1, 2, 3, 4)
const withRoot = (root: Buffer) => pthOf(values, root)
const tensorOf = (offset: number, shape: number[], strides: number[]) =>
  withRoot(pickle.dict(['w', pickle.tensor(pickle.storage('0', 4), offset, shape, strides)]))

const tensor = pickle.tensor(pickle.storage('0', 4), 0, [4], [1])
const weights = pickle.dict(['w', tensor])
const stateOf = (root: Buffer) => {
  const { state, keys } = readPth(fileOf(withRoot(root)))
  assert.equal([...state.keys()], ['w'])
  return keys.join('.')
}

test('weights are found under the usual keys, or under the only key that has any', () => {
  assert.is(stateOf(weights), '')
  for (const key of ['model', 'state_dict', 'model_state', 'model_state_dict', 'net', 'ema', 'student']) {
    assert.is(stateOf(pickle.dict(['epoch', pickle.int(3)], [key, weights])), key)
  }
  assert.is(stateOf(pickle.dict(['state_dict', pickle.dict(['model', weights])])), 'state_dict.model')
  const scalar = pickle.tensor(pickle.storage('0', 4), 0, [], [])
  assert.is(stateOf(pickle.dict(['best', scalar], ['model', weights])), 'model', 'the root holds tensors, too')
  assert.is(
    stateOf(pickle.dict(['model', pickle.dict(['depth', pickle.int(50)])], ['state_dict', weights])),
    'state_dict',
  )
  assert.is(stateOf(pickle.dict(['model', weights], ['model_ema', weights])), 'model')
  refuses(
    withRoot(pickle.dict(['student', weights], ['teacher', pickle.dict(['w', scalar])])),
    /several models.*"student", "teacher"/,
  )
  const optimizer = pickle.dict(['state', pickle.dict()], ['param_groups', Buffer.from(']')])
  refuses(withRoot(optimizer), /the state of an optimizer and no weights/)
  refuses(withRoot(pickle.dict(['optimizer', weights], ['epoch', pickle.int(1)])), /its keys are "optimizer", "epoch"/)
})

test('objects of other programs beside the weights stay empty, and none of their code runs', () => {
  const beside: [string, Buffer][] = [
    ['hyper_parameters', pickle.object('argparse', 'Namespace', ['lr', pickle.int(1)])],
    ['path', pickle.call(pickle.global('pathlib', 'PosixPath'), pickle.text('x'))],
    ['device', pickle.call(pickle.global('torch', 'device'), pickle.text('cuda'))],
    ['set', Buffer.from('\x8f(K\x01\x90', 'latin1')],
  ]
  assert.is(stateOf(pickle.dict(...beside, ['state_dict', weights])), 'state_dict')
  const extra = pickle.object('a', 'B')
  assert.is(stateOf(pickle.dict(['epoch', pickle.int(3)], ['w', tensor], ['conv._extra_state', extra])), '')
  refuses(withRoot(pickle.dict(['w', tensor], ['v', extra])), /its entry "v" is no tensor: its pickle names "a\.B"/)
  const complex = pickle.tensor(pickle.storage('1', 4, 'ComplexFloatStorage'), 0, [4], [1])
  assert.is(stateOf(pickle.dict(['model', weights], ['spectrum', complex])), 'model')
  refuses(withRoot(pickle.dict(['v', complex], ['w', tensor])), /"v" is no tensor: .*torch\.ComplexFloatStorage/)
  refuses(
    withRoot(pickle.dict(['model', pickle.object('ultralytics.nn', 'Model')])),
    /names "ultralytics\.nn\.Model".*save only the/,
  )
  refuses(
    withRoot(pickle.dict(['model', pickle.dict(['w', pickle.object('a', 'Quantized')], ['v', weights])])),
    /holds no weights/,
  )
  for (const [module, name] of [
    ['builtins', 'exec'],
    ['subprocess', 'Popen'],
    ['torch.hub', 'load'],
  ] as const) {
    const call = pickle.call(pickle.global(module, name), pickle.text('x'))
    refuses(
      withRoot(pickle.dict(['x', call], ['model', weights])),
      new RegExp(`names "${module}\\.${name}", which is not read`),
    )
  }
})

test('opcodes and calls that data do not need are refused', () => {
  // INST and OBJ make instances of classes.
  refuses(withRoot(Buffer.from('(ios\nsystem\n')), /opcode 0x69 'i'/)
  refuses(
    withRoot(Buffer.concat([Buffer.from('('), pickle.global('collections', 'OrderedDict'), Buffer.from('o')])),
    /opcode 0x6f 'o'/,
  )
  refuses(withRoot(Buffer.from([0x82, 1])), /opcode 0x82/)
  refuses(withRoot(pickle.call(pickle.text('os.system'), pickle.text('true'))), /calls what is no function/)
  refuses(withRoot(pickle.call(pickle.global('torch', 'FloatStorage'), pickle.int(9))), /calls what is no function/)
  refuses(withRoot(pickle.global('collections', 'OrderedDict\u001b[31m')), /names "collections.OrderedDict\\u001b/)
  refuses(withRoot(pickle.global('torch', 'ComplexFloatStorage')), /names "torch\.ComplexFloatStorage"/)
})

test('nesting, stacks and texts are limited', () => {
  refuses(withRoot(Buffer.alloc(100_000, '(')), /nested more than 1000 deep/)
  refuses(withRoot(Buffer.alloc(1_000_000, 'N')), /stacks more than/)
  refuses(withRoot(Buffer.concat([Buffer.from(')'), Buffer.alloc(900_000, 0x85)])), /holds no weights/)
  const full = Buffer.concat([Buffer.from('('), Buffer.alloc(99_000, '}'), Buffer.from('t')])
  refuses(withRoot(Buffer.concat(Array(11).fill(full))), /takes more than 1000000 steps/)
  refuses(withRoot(Buffer.from([0x8d, 0, 0, 0, 0, 0, 0, 0, 0x10])), /breaks off/)
  refuses(withRoot(Buffer.from([0x8b, 0xff, 0xff, 0xff, 0x7f])), /integer of 2147483647 bytes/)
  refuses(withRoot(Buffer.from('h\x05')), /never stored/)
  refuses(withRoot(Buffer.from('0')), /opcode 0x30 '0'/)
  refuses(zipOf([{ name: 'a/data.pkl', data: new Uint8Array(9 * 2 ** 20) }]), /its pickle has 9437184 bytes/)
})

test('dictionaries within each other under many keys are looked at once', () => {
  /** Counts how often its keys are looked at, as whatever looks for tensors in it begins with. */
  class Counted extends Map<string, unknown> {
    looks = 0
    override keys() {
      this.looks += 1
      return super.keys()
    }
  }
  // Four of the usual keys at each of three levels: 64 ways lead to the innermost.
  const usual = ['model', 'state_dict', 'net', 'module']
  const inner = new Counted([['epoch', 1]])
  const around = (value: unknown) => new Map(usual.map((key) => [key, value]))
  const isTensor = (value: unknown): value is never => value === weights
  const refused = (message: string): never => {
    throw new Error(message)
  }
  assert.throws(() => findState(around(around(around(inner))), isTensor, refused), /holds no weights/)
  assert.is(inner.looks, 1)
})

test('values that are recalled and copied again and again are refused before they fill the memory', () => {
  // Memo 0: a text of a million letters, 1: the arguments that turn it into bytes, 2: the function, called twice.
  const encode = [pickle.text('x'.repeat(600_000)), pickle.text('latin1'), Buffer.from([0x86, 0x71, 1])]
  const call = Buffer.from('h\x02h\x01R')
  const codecs = pickle.global('_codecs', 'encode')
  refuses(
    withRoot(Buffer.concat([...encode, codecs, Buffer.from('q\x02'), call, call])),
    /takes more than 1000000 steps/,
  )
  // Memo 1: a list of pairs as the arguments of an OrderedDict, which copies it.
  const pairs = Buffer.concat(
    Array.from({ length: 20_000 }, (_, i) => Buffer.concat([pickle.int(i), Buffer.from('N\x86', 'latin1')])),
  )
  const list = Buffer.concat([Buffer.from(']('), pairs, Buffer.from([0x65, 0x85, 0x71, 1])])
  const dict = Buffer.concat([pickle.global('collections', 'OrderedDict'), Buffer.from('q\x02')])
  const calls = Buffer.concat(Array(60).fill(call))
  refuses(withRoot(Buffer.concat([list, dict, calls])), /takes more than 1000000 steps/)
})

test('tensors that leave their data are refused before memory is spent', () => {
  refuses(tensorOf(0, [2 ** 40], [0]), /leaves its 4 values/)
  refuses(tensorOf(0, [2 ** 40, 2 ** 40], [0, 0]), /leaves its 4 values/)
  refuses(tensorOf(1, [4], [1]), /leaves its 4 values/)
  refuses(tensorOf(0, [2, 2], [3, 1]), /leaves its 4 values/)
  refuses(tensorOf(0, [2], [-1]), /without a valid storage, offset, shape or stride/)
  refuses(tensorOf(0, [2], []), /leaves its 4 values/)
  const huge = pickle.tensor(pickle.storage('0', 2 ** 40), 0, [2 ** 40], [1])
  refuses(withRoot(pickle.dict(['w', huge])), /should have|need \d+ bytes/)
})

test('tensors that share data cannot multiply it', () => {
  const shared = Array.from({ length: 5000 }, (_, i): [string, Buffer] => [
    `w${i}`,
    pickle.tensor(pickle.storage('0', 250_000), 0, [250_000], [1]),
  ])
  refuses(
    pthOf(new Float32Array(250_000), pickle.dict(...shared)),
    /its tensors need 5001000000 bytes, but it has only/,
  )
})

const member = (claims: NonNullable<Member['claims']>): Buffer =>
  zipOf([
    { name: 'a/data.pkl', data: pickle.file(pickle.dict(['w', pickle.tensor(pickle.storage('0', 4), 0, [4], [1])])) },
    { name: 'a/data/0', data: new Uint8Array(values.buffer), claims },
  ])

test('a zip archive that lies about its members is refused', () => {
  // Deflated zeros can be a thousand times their size.
  refuses(member({ method: 8, size: 2 ** 32 - 2, compressed: 16 }), /"a\/data\/0" is compressed/)
  refuses(member({ size: 2 ** 32 - 2 }), /claims 4294967294 bytes, which it does not have/)
  refuses(member({ size: 12 }), /should have 16 bytes, but has 12/)
  refuses(member({ compressed: 15 }), /has two sizes/)
  refuses(member({ crc: 1 }), /damaged/)
  const document = { name: 'word/document.xml', data: Uint8Array.of(1), claims: { method: 8 } }
  refuses(zipOf([document]), /without data\.pkl, with "word\/document\.xml": not written by torch\.save/)
  refuses(zipOf([{ name: 'a/w.npy', data: Uint8Array.of(1) }]), /of NumPy arrays without data\.pkl/)
  refuses(zipOf([document, { name: 'x/best.pth', data: Uint8Array.of(1) }]), /unpack "x\/best\.pth" from it/)
  const twice = { name: 'a/data.pkl', data: Uint8Array.of(1) }
  refuses(zipOf([twice, twice]), /there twice/)
  const pkl = { name: 'a/data.pkl', data: pickle.file(Buffer.from('N')) }
  refuses(zipOf([pkl, { name: 'a/constants.pkl', data: Uint8Array.of(1) }]), /TorchScript/)
  refuses(zipOf([pkl, { name: 'a/byteorder', data: Buffer.from('big') }]), /big-endian/)
})

test('values that are not finite are refused by the name of the tensor', () => {
  refuses(pthOf(Float32Array.of(1, Number.NaN)), /tensor 'w' holds values that are not finite/)
  refuses(pthOf(Float32Array.of(Number.POSITIVE_INFINITY)), /tensor 'w'/)
})

for (const name of ['training.pth', 'odd_tensors_legacy.pth', 'odd_tensors.safetensors']) {
  test(`${name}, cut off anywhere, is refused in one line`, () => {
    const whole = readFileSync(join(fixtures, name))
    for (let length = 0; length < whole.length; length += 13) {
      const path = fileOf(whole.subarray(0, length))
      assert.throws(
        () => readCheckpoint(path),
        (error: unknown) => error instanceof UserError && !/\n/.test(error.message),
        `${length} bytes`,
      )
    }
  })

  test(`${name} with a damaged byte is read or refused, but nothing else happens`, () => {
    const whole = readFileSync(join(fixtures, name))
    let refused = 0
    for (let i = 0; i < 800; i++) {
      const damaged = Buffer.from(whole)
      damaged[(i * 7919) % whole.length] = (i * 104729) % 256
      const path = fileOf(damaged)
      try {
        readCheckpoint(path)
      } catch (error) {
        refused++
        assert.instance(error, UserError, `change ${i}: ${error instanceof Error ? error.stack : error}`)
        assert.not.match((error as UserError).message, /\n/)
      }
    }
    assert.ok(refused > 100)
  })
}

test.run()
