// node build/test/support/as-torch.js IN.safetensors OUT.pth [key=value ...]: the same weights as another program saves them.
import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { type FileTensor, readSafetensors, toFloat32 } from '#dist/train/io/safetensors.js'
import { pickle, zipOf } from './torch-file.js'

export interface TorchOptions {
  /** What every name begins with. */
  readonly prefix?: string
  /** Keys around the state_dict, with dots between them. */
  readonly key?: string
  /** Element type of the counters: `float`, `half`, `int`, `short` or `long`. */
  readonly counters?: string
  /** Only tensors whose names begin so, without that beginning. */
  readonly only?: string
  /** Which beginnings of names become others: `from>to`, with commas between them; the first that fits counts. */
  readonly names?: string
  /** What stands beside the weights, such as `lightning`. */
  readonly beside?: string
}

const counterTypes: Readonly<Record<string, [storage: string, write: (n: number) => Uint8Array]>> = {
  float: ['FloatStorage', (n) => new Uint8Array(Float32Array.of(n).buffer)],
  // 1.0 and 0.0 of half precision.
  half: ['HalfStorage', (n) => new Uint8Array(Uint16Array.of(n > 0 ? 0x3c00 : 0).buffer)],
  int: ['IntStorage', (n) => new Uint8Array(Int32Array.of(n).buffer)],
  short: ['ShortStorage', (n) => new Uint8Array(Int16Array.of(n).buffer)],
  long: ['LongStorage', (n) => new Uint8Array(BigInt64Array.of(BigInt(n)).buffer)],
}

/** Objects of classes as a Lightning checkpoint holds them: none is a plain dictionary. */
const lightning = (): [string, Buffer][] => {
  const path = pickle.call(pickle.global('pathlib', 'PosixPath'), pickle.text('runs'))
  return [
    ['pytorch-lightning_version', pickle.text('2.4.0')],
    ['epoch', pickle.int(3)],
    ['callbacks', pickle.dict(['ModelCheckpoint', pickle.dict(['dirpath', path])])],
    ['hyper_parameters', pickle.object('lightning.fabric.utilities.data', 'AttributeDict', ['lr', pickle.int(1)])],
    ['options', pickle.object('argparse', 'Namespace', ['encoder', pickle.text('resnet50')])],
  ]
}

function renamed(name: string, { only = '', names = '', prefix = '' }: TorchOptions): string | undefined {
  if (!name.startsWith(only)) return undefined
  const rest = name.slice(only.length)
  const pairs = names.split(',').map((pair) => pair.split('>') as [string, string])
  const [from, to] = pairs.find(([start]) => names !== '' && rest.startsWith(start)) ?? ['', '']
  return prefix + to + rest.slice(from.length)
}

/** Tensors as a file of torch.save. */
export function asTorch(tensors: ReadonlyMap<string, FileTensor>, options: TorchOptions = {}): Buffer {
  const members: { name: string; data: Uint8Array }[] = []
  const [counterType, writeCounter] = counterTypes[options.counters ?? 'long'] ?? ['', () => new Uint8Array()]
  const entries = [...tensors].flatMap(([old, tensor]): [string, Buffer][] => {
    const name = renamed(old, options)
    if (name === undefined || old.includes('/')) return []
    const counter = old.endsWith('num_batches_tracked')
    const values = toFloat32(tensor)
    const data = counter
      ? writeCounter(values[0] ?? 0)
      : new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
    const storage = pickle.storage(String(members.length), values.length, counter ? counterType : 'FloatStorage')
    members.push({ name: `archive/data/${members.length}`, data })
    const { shape } = tensor
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1))
    return [[name, pickle.tensor(storage, 0, [...shape], strides)]]
  })
  const beside = options.beside === 'lightning' ? lightning() : []
  const keys = options.key?.split('.') ?? []
  const root = keys.reduceRight(
    (value, key, depth) => pickle.dict(...(depth === 0 ? beside : []), [key, value]),
    pickle.dict(...entries),
  )
  return zipOf([{ name: 'archive/data.pkl', data: pickle.file(root) }, ...members])
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [input = '', output = '', ...pairs] = process.argv.slice(2)
  const options = Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s, 2))) as TorchOptions
  writeFileSync(output, asTorch(readSafetensors(input).tensors, options))
}
