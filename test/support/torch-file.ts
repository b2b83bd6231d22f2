import { crc32 } from 'node:zlib'

export interface Member {
  readonly name: string
  readonly data: Uint8Array
  /** What the directory says instead of the truth. */
  readonly claims?: {
    readonly size?: number
    readonly compressed?: number
    readonly method?: number
    readonly crc?: number
  }
}

/** A zip archive of stored members. With `zip64` all sizes and positions are in the 64-bit extensions. */
export function zipOf(members: readonly Member[], { zip64 = false } = {}): Buffer {
  const locals: Buffer[] = []
  const directory: Buffer[] = []
  let at = 0
  for (const { name, data, claims = {} } of members) {
    const { size = data.length, compressed = size, method = 0, crc = crc32(data) } = claims
    const bytes = Buffer.from(name)
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt16LE(method, 8)
    local.writeUInt32LE(crc, 14)
    local.writeUInt16LE(bytes.length, 26)
    const entry = Buffer.alloc(46)
    entry.writeUInt32LE(0x02014b50, 0)
    entry.writeUInt16LE(method, 10)
    entry.writeUInt32LE(crc, 16)
    entry.writeUInt16LE(bytes.length, 28)
    for (const [field, value] of [
      [20, compressed],
      [24, size],
      [42, at],
    ] as const) {
      entry.writeUInt32LE(zip64 ? 0xffffffff : value, field)
    }
    const extra = zip64 ? [u16(1), u16(24), u64(size), u64(compressed), u64(at)] : []
    entry.writeUInt16LE(Buffer.concat(extra).length, 30)
    locals.push(local, bytes, Buffer.from(data))
    directory.push(entry, bytes, ...extra)
    at += local.length + bytes.length + data.length
  }
  const length = Buffer.concat(directory).length
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  const record = Buffer.alloc(56)
  if (zip64) {
    end.fill(0xff, 8, 20)
    record.writeUInt32LE(0x06064b50, 0)
    record.writeBigUInt64LE(44n, 4)
    for (const [field, value] of [
      [24, members.length],
      [32, members.length],
      [40, length],
      [48, at],
    ] as const) {
      record.writeBigUInt64LE(BigInt(value), field)
    }
    const locator = Buffer.concat([
      Buffer.from('PK\x06\x07'),
      Buffer.alloc(4),
      u64(at + length),
      Buffer.from([1, 0, 0, 0]),
    ])
    return Buffer.concat([...locals, ...directory, record, locator, end])
  }
  end.writeUInt16LE(members.length, 8)
  end.writeUInt16LE(members.length, 10)
  end.writeUInt32LE(length, 12)
  end.writeUInt32LE(at, 16)
  return Buffer.concat([...locals, ...directory, end])
}

const u16 = (value: number) => Buffer.from([value & 255, value >> 8])
const u64 = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** Pieces of a pickle of protocol 2. */
export const pickle = {
  text: (value: string) => Buffer.concat([Buffer.from('X'), u32(Buffer.byteLength(value)), Buffer.from(value)]),
  /** Up to eight bytes, signed. */
  int: (value: number) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt(value))
    return Buffer.concat([Buffer.from([0x8a, 8]), bytes])
  },
  global: (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`),
  tuple: (...items: Buffer[]) => Buffer.concat([Buffer.from('('), ...items, Buffer.from('t')]),
  call: (target: Buffer, ...args: Buffer[]) => Buffer.concat([target, pickle.tuple(...args), Buffer.from('R')]),
  dict: (...entries: [string, Buffer][]) =>
    Buffer.concat([
      Buffer.from('}('),
      ...entries.flatMap(([key, value]) => [pickle.text(key), value]),
      Buffer.from('u'),
    ]),
  /** An object that a class makes without arguments, and its state. */
  object: (module: string, name: string, ...state: [string, Buffer][]) =>
    Buffer.concat([
      pickle.global(module, name),
      Buffer.from(')\x81', 'latin1'),
      pickle.dict(...state),
      Buffer.from('b'),
    ]),
  /** The whole: protocol, value, stop. */
  file: (value: Buffer) => Buffer.concat([Buffer.from([0x80, 2]), value, Buffer.from('.')]),
  storage: (key: string, count: number, type = 'FloatStorage') =>
    Buffer.concat([
      pickle.tuple(
        pickle.text('storage'),
        pickle.global('torch', type),
        pickle.text(key),
        pickle.text('cpu'),
        pickle.int(count),
      ),
      Buffer.from('Q'),
    ]),
  tensor: (storage: Buffer, offset: number, shape: number[], strides: number[]) =>
    pickle.call(
      pickle.global('torch._utils', '_rebuild_tensor_v2'),
      storage,
      pickle.int(offset),
      pickle.tuple(...shape.map(pickle.int)),
      pickle.tuple(...strides.map(pickle.int)),
      Buffer.from([0x89]),
      pickle.call(pickle.global('collections', 'OrderedDict')),
    ),
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/** A checkpoint with one tensor `w` of float32, or with the pickle that is given. */
export function pthOf(values: Float32Array, root?: Buffer, options: { zip64?: boolean } = {}): Buffer {
  const one = pickle.dict(['w', pickle.tensor(pickle.storage('0', values.length), 0, [values.length], [1])])
  const data = new Uint8Array(values.buffer)
  return zipOf(
    [
      { name: 'archive/data.pkl', data: pickle.file(root ?? one) },
      { name: 'archive/data/0', data },
    ],
    options,
  )
}
