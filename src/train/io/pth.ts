import { elements } from '../../engine/shape.js'
import { UserError } from '../error.js'
import { type ByteSource, demanding, type Fail } from './byte-source.js'
import { Callable, Foreign, NumpyType, quoted, unpickle } from './pickle.js'
import { ARRAYS, type Dtype, type FileTensor, isCount, maxRank, type TensorData } from './safetensors-format.js'
import { findState } from './state-dict.js'
import { readZipDirectory, readZipEntry } from './zip.js'

/** What a PyTorch checkpoint holds that a training can use. */
export interface PthCheckpoint {
  /** The state_dict, in its order and under its names. */
  readonly state: Map<string, FileTensor>
  /** Keys that lead to it, from the outermost. */
  readonly keys: readonly string[]
  /** Momenta of SGD by the index of their parameter in the optimizer. */
  readonly momentumBuffers: Map<number, FileTensor>
  /** Number of the last epoch, counted from 0. */
  readonly epoch?: number
  /** mIoU in percent. */
  readonly previousBest?: number
}

const maxPickle = 8 * 2 ** 20
/** Tensors may share their data, but not so often that they take so many times the size of the file. */
const maxGrowth = 4

const LEGACY_MAGIC = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e]
const ZIP_MAGIC = [0x50, 0x4b, 0x03, 0x04]
const LEGACY_PROTOCOL = 1001

const startsWith = (bytes: Uint8Array, magic: readonly number[]): boolean => magic.every((byte, i) => bytes[i] === byte)

/** Whether a file begins as a PyTorch checkpoint does: a zip archive, or a pickle. */
export const isPth = (start: Uint8Array): boolean => startsWith(start, ZIP_MAGIC) || startsWith(start, [0x80, 0x02])

/** A run of numbers in a file, which tensors view. */
class Storage {
  constructor(
    readonly key: string,
    readonly dtype: Dtype,
    readonly count: number,
  ) {}

  get bytes(): number {
    return this.count * ARRAYS[this.dtype].BYTES_PER_ELEMENT
  }
}

/** A view of a storage. */
class StoredTensor {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}

  get bytes(): number {
    return elements(this.shape) * ARRAYS[this.storage.dtype].BYTES_PER_ELEMENT
  }
}

const isTensor = (value: unknown): value is StoredTensor => value instanceof StoredTensor
const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= maxRank && value.every(isCount)

const STORAGES: Record<string, Dtype> = {
  DoubleStorage: 'F64',
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
}

/** The element type that the name of a storage class stands for. */
class StorageType {
  constructor(readonly dtype: Dtype) {}
}

/** Globals that checkpoints of tensors need; their values do nothing but describe. */
function globalsFor(fail: Fail): Map<string, unknown> {
  const functions: Record<string, (args: readonly unknown[]) => unknown> = {
    'collections.OrderedDict': ([pairs]) => orderedDict(pairs, fail),
    'collections.defaultdict': () => new Map(),
    'torch.Size': ([sizes]) => sizes,
    'torch._utils._rebuild_tensor': (args) => rebuildTensor(args, fail),
    'torch._utils._rebuild_tensor_v2': (args) => rebuildTensor(args, fail),
    'torch._utils._rebuild_parameter': ([tensor]) => tensor,
    '_codecs.encode': ([text, encoding]) =>
      typeof text === 'string' && encoding === 'latin1'
        ? Uint8Array.from(text, (letter) => letter.charCodeAt(0))
        : fail('it encodes a text oddly'),
    'numpy.dtype': ([name]) => new NumpyType(typeof name === 'string' ? name : fail('it holds an odd numpy dtype')),
    'numpy.core.multiarray.scalar': (args) => numpyScalar(args, fail),
    'numpy._core.multiarray.scalar': (args) => numpyScalar(args, fail),
  }
  return new Map<string, unknown>([
    ...Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)] as const),
    ...Object.entries(STORAGES).map(([name, dtype]) => [`torch.${name}`, new StorageType(dtype)] as const),
  ])
}

function orderedDict(pairs: unknown, fail: Fail): Map<unknown, unknown> {
  if (pairs === undefined) return new Map()
  const isPair = (pair: unknown): pair is [unknown, unknown] => Array.isArray(pair) && pair.length === 2
  return Array.isArray(pairs) && pairs.every(isPair) ? new Map(pairs) : fail('it holds an odd OrderedDict')
}

function rebuildTensor([storage, offset, shape, strides]: readonly unknown[], fail: Fail): StoredTensor | Foreign {
  if (storage instanceof Foreign) return storage
  if (!(storage instanceof Storage) || !isCount(offset) || !isSizes(shape) || !isSizes(strides)) {
    return fail(`it holds a tensor without a valid storage, offset, shape or stride (up to ${maxRank} sizes are read)`)
  }
  const last = shape.reduce((at, size, axis) => at + (size - 1) * (strides[axis] ?? Number.NaN), offset)
  const count = elements(shape)
  if (shape.length !== strides.length || count > storage.count || (count > 0 && !(last < storage.count))) {
    return fail(
      `a tensor of shape [${shape}], strides [${strides}] and offset ${offset} leaves its ${storage.count} values`,
    )
  }
  return new StoredTensor(storage, offset, shape, strides)
}

function numpyScalar([type, bytes]: readonly unknown[], fail: Fail): number {
  if (!(type instanceof NumpyType) || !(bytes instanceof Uint8Array)) return fail('it holds an odd numpy scalar')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const read: Record<string, () => number> = {
    f8: () => view.getFloat64(0, true),
    f4: () => view.getFloat32(0, true),
    i8: () => Number(view.getBigInt64(0, true)),
    i4: () => view.getInt32(0, true),
  }
  if (!Object.hasOwn(read, type.name) || bytes.length !== Number(type.name[1])) {
    return fail(`it holds a numpy scalar of type ${quoted(type.name)}`)
  }
  return read[type.name]?.() ?? Number.NaN
}

/** The storages of a file by their keys, as its pickle announces them. */
class Storages {
  readonly known = new Map<string, Storage>()

  constructor(private readonly fail: Fail) {}

  /** The storage of a persistent id: ('storage', type, key, location, count[, view]). */
  readonly persistent = (id: unknown): Storage | Foreign => {
    const [kind, type, key, , count, view] = Array.isArray(id) ? (id as unknown[]) : []
    if (kind !== 'storage' || typeof key !== 'string' || !isCount(count)) return this.fail('it holds an odd storage')
    if (type instanceof Foreign) return type
    if (!(type instanceof StorageType)) return this.fail('it holds a storage without an element type')
    if (view !== undefined && view !== null) {
      return this.fail('its storages view each other, as those of PyTorch before 0.4: save it again with a newer one')
    }
    const known = this.known.get(key)
    if (known && (known.dtype !== type.dtype || known.count !== count)) {
      return this.fail(`its storage ${quoted(key)} is announced in two ways`)
    }
    const storage = known ?? new Storage(key, type.dtype, count)
    this.known.set(key, storage)
    return storage
  }
}

/** The pickled object of a file, and how to read a storage of it. */
interface Opened {
  readonly root: unknown
  readonly read: (storage: Storage) => Uint8Array<ArrayBuffer>
}

function openZip(file: ByteSource, fail: Fail): Opened {
  const members = readZipDirectory(file, fail)
  const pickle = [...members.values()].find(({ name }) => /^[^/]*\/data\.pkl$/.test(name))
  if (!pickle) return fail(explainZip([...members.keys()]))
  const folder = pickle.name.slice(0, -'data.pkl'.length)
  if (members.has(`${folder}constants.pkl`)) {
    return fail('it is a TorchScript program: save the state_dict of the model instead')
  }
  if (pickle.size > maxPickle && !pickle.compressed)
    return fail(`its pickle has ${pickle.size} bytes (the limit is ${maxPickle})`)
  const order = members.get(`${folder}byteorder`)
  if (order && order.size < 16 && new TextDecoder().decode(readZipEntry(file, order, fail)) !== 'little') {
    return fail('it holds big-endian numbers')
  }
  const { persistent } = new Storages(fail)
  const [root] = unpickle(readZipEntry(file, pickle, fail), 0, { globals: globalsFor(fail), persistent }, fail)
  const read = (storage: Storage) => {
    const member = members.get(`${folder}data/${storage.key}`)
    if (!member) return fail(`the data of its storage ${quoted(storage.key)} are missing`)
    if (member.size !== storage.bytes && !member.compressed) {
      return fail(`its storage ${quoted(storage.key)} should have ${storage.bytes} bytes, but has ${member.size}`)
    }
    return readZipEntry(file, member, fail)
  }
  return { root, read }
}

/** What a zip archive is that torch.save did not write. */
function explainZip(names: readonly string[]): string {
  const packed = names.find((name) => /\.(pth|pt|ckpt|safetensors)$/i.test(name))
  if (packed !== undefined) return `it is a zip archive: unpack ${quoted(packed)} from it`
  const numpy = names.some((name) => name.endsWith('.npy')) ? ' of NumPy arrays' : ''
  const first = names.length > 0 ? `, with ${quoted(names[0] ?? '')}` : ''
  return `it is a zip archive${numpy} without data.pkl${first}: not written by torch.save`
}

/** Four pickles (magic number, protocol, system, object), a fifth with the keys of the storages, and their data. */
function openLegacy(file: ByteSource, fail: Fail): Opened {
  const bytes = file.read(0, Math.min(file.size, maxPickle))
  const storages = new Storages(fail)
  const world = { globals: globalsFor(fail), persistent: storages.persistent }
  let at = LEGACY_MAGIC.length
  const next = (): unknown => {
    const [value, end] = unpickle(bytes, at, world, fail)
    at = end
    return value
  }
  if (next() !== LEGACY_PROTOCOL) return fail('it was written by an unknown version of PyTorch')
  const system = next()
  if (system instanceof Map && system.get('little_endian') === false) return fail('it holds big-endian numbers')
  const root = next()
  const keys = next()
  if (!Array.isArray(keys)) return fail('the list of its storages is missing')
  const places = new Map<string, number>()
  for (const key of keys) {
    const storage = typeof key === 'string' ? storages.known.get(key) : undefined
    if (!storage) return fail('it lists a storage that no tensor uses')
    const count = new DataView(file.read(at, 8).buffer).getBigInt64(0, true)
    if (count !== BigInt(storage.count)) {
      return fail(`its storage ${quoted(storage.key)} should have ${storage.count} values, but has ${count}`)
    }
    places.set(storage.key, at + 8)
    at += 8 + storage.bytes
  }
  const read = (storage: Storage) =>
    file.read(
      places.get(storage.key) ?? fail(`the data of its storage ${quoted(storage.key)} are missing`),
      storage.bytes,
    )
  return { root, read }
}

/** Copies the values that a tensor views into row-major order. */
function gather(values: TensorData, { offset, shape, strides, storage }: StoredTensor): TensorData {
  const count = elements(shape)
  let step = 1
  const dense = [...shape.keys()].reverse().every((axis) => {
    const fits = shape[axis] === 1 || strides[axis] === step
    step *= shape[axis] ?? 1
    return fits
  })
  if (dense && count === values.length) return values
  if (dense) return values.slice(offset, offset + count)
  const result = new ARRAYS[storage.dtype](count)
  const index = shape.map(() => 0)
  let from = offset
  for (let i = 0; i < count; i++) {
    result[i] = values[from] ?? 0
    // To the next element: the last axis first, carrying over where one is through.
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const stride = strides[axis] ?? 0
      const place = (index[axis] ?? 0) + 1
      if (place < (shape[axis] ?? 0)) {
        index[axis] = place
        from += stride
        break
      }
      from -= stride * (place - 1)
      index[axis] = 0
    }
  }
  return result
}

/** Momenta of torch.optim.SGD: `state[index]['momentum_buffer']`. */
function findMomentumBuffers(root: unknown): Map<number, StoredTensor> {
  const entry = (value: unknown, key: string): unknown => (value instanceof Map ? value.get(key) : undefined)
  const states = entry(entry(root, 'optimizer'), 'state')
  const momentumBuffers = new Map<number, StoredTensor>()
  if (!(states instanceof Map)) return momentumBuffers
  for (const [index, state] of states as Map<unknown, unknown>) {
    const momentum = entry(state, 'momentum_buffer')
    if (isCount(index) && momentum instanceof StoredTensor) momentumBuffers.set(index, momentum)
  }
  return momentumBuffers
}

/**
 * Reads a checkpoint that torch.save wrote: the zip form (from PyTorch 1.6 on) or the older one; a state_dict, or
 * `{model, optimizer, epoch, previous_best}`. Nothing in it is executed, and sizes are checked before memory is spent.
 *
 * @throws UserError naming the source and what is wrong with it, such as the global that its pickle must not name
 */
export function parsePth(source: ByteSource): PthCheckpoint {
  const fail = (what: string): never => {
    throw new UserError(`${source.name} is not a usable PyTorch checkpoint: ${what}`)
  }
  const file = demanding(source, fail)
  const start = file.read(0, Math.min(file.size, LEGACY_MAGIC.length))
  const { root, read } = startsWith(start, ZIP_MAGIC)
    ? openZip(file, fail)
    : startsWith(start, LEGACY_MAGIC)
      ? openLegacy(file, fail)
      : fail('it begins as neither form of a file of torch.save does')
  const { state, keys } = findState(root, isTensor, fail)
  const momentumBuffers = findMomentumBuffers(root)
  const tensors = [...state.values(), ...momentumBuffers.values()]
  const parts = [...tensors, ...new Set(tensors.map(({ storage }) => storage))]
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0)
  if (bytes > maxGrowth * file.size) return fail(`its tensors need ${bytes} bytes, but it has only ${file.size}`)
  const loaded = new Map<Storage, TensorData>()
  const load = (tensor: StoredTensor): FileTensor => {
    const { storage, shape } = tensor
    const values = loaded.get(storage) ?? new ARRAYS[storage.dtype](read(storage).buffer)
    loaded.set(storage, values)
    return { dtype: storage.dtype, shape, data: gather(values, tensor) }
  }
  const loadAll = <K>(tensors: Map<K, StoredTensor>) =>
    new Map([...tensors].map(([key, tensor]): [K, FileTensor] => [key, load(tensor)]))
  const number = (key: string) => {
    const value = root instanceof Map ? (root.get(key) as unknown) : undefined
    return typeof value === 'number' ? value : undefined
  }
  const [epoch, previousBest] = [number('epoch'), number('previous_best')]
  return {
    state: loadAll(state),
    keys,
    momentumBuffers: loadAll(momentumBuffers),
    ...(epoch === undefined ? {} : { epoch }),
    ...(previousBest === undefined ? {} : { previousBest }),
  }
}
