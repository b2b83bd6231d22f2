import { Float16Array } from '@petamoriken/float16'
import { elements } from '../../engine/shape.js'
import { DamagedFileError } from '../error.js'
import { isRecord } from '../record.js'
import { type ByteSource, demanding, type Fail } from './byte-source.js'
import { sha256 } from './sha256.js'

/** Element types, their typed arrays and sizes. F16 and BF16 are kept as their bits; `toFloat32` converts. */
export const ARRAYS = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  U64: BigUint64Array,
  I32: Int32Array,
  U32: Uint32Array,
  I16: Int16Array,
  U16: Uint16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
} as const

export type Dtype = keyof typeof ARRAYS

export type TensorData =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array

/** A tensor of a file: row-major values. A scalar has the shape []. */
export interface FileTensor {
  dtype: Dtype
  shape: readonly number[]
  data: TensorData
}

export interface Safetensors {
  tensors: Map<string, FileTensor>
  /** Without the checksum. */
  metadata: Record<string, string>
  /** Whether the file carried a checksum; it then holds. Files of other programs carry none. */
  verified: boolean
}

/** Ten thousand tensors take one. */
const maxHeader = 4 * 2 ** 20
export const maxRank = 8

interface Entry {
  name: string
  dtype: Dtype
  shape: readonly number[]
  begin: number
  end: number
}

/** Whether a value of a file is a number of things. */
export const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

function parseEntry(name: string, value: unknown, fail: Fail): Entry {
  const wrong = (what: string) => fail(`tensor '${name}' ${what}`)
  if (!isRecord(value)) return wrong('has no description')
  const { dtype, shape, data_offsets: offsets } = value
  if (typeof dtype !== 'string' || !Object.hasOwn(ARRAYS, dtype)) {
    return wrong(`has the element type ${JSON.stringify(dtype)}; readable are ${Object.keys(ARRAYS).join(', ')}`)
  }
  if (!Array.isArray(shape) || shape.length > maxRank || !shape.every(isCount)) {
    return wrong(`has an invalid shape (up to ${maxRank} sizes are possible)`)
  }
  const [begin, end] = Array.isArray(offsets) && offsets.length === 2 ? (offsets as unknown[]) : []
  if (!isCount(begin) || !isCount(end) || end < begin) return wrong('has invalid offsets')
  const bytes = elements(shape) * ARRAYS[dtype as Dtype].BYTES_PER_ELEMENT
  if (end - begin !== bytes) {
    return wrong(`of shape [${shape}] needs ${bytes} bytes of ${dtype}, but its offsets span ${end - begin}`)
  }
  return { name, dtype: dtype as Dtype, shape, begin, end }
}

function parseHeader(text: string, fail: Fail): { entries: Entry[]; metadata: Record<string, string> } {
  let header: unknown
  try {
    header = JSON.parse(text)
  } catch {
    return fail('its header is not JSON')
  }
  if (!isRecord(header)) return fail('its header is not a JSON object')
  const metadata: Record<string, string> = {}
  const entries: Entry[] = []
  for (const [name, value] of Object.entries(header)) {
    if (name !== '__metadata__') {
      entries.push(parseEntry(name, value, fail))
      continue
    }
    if (!isRecord(value)) return fail('its __metadata__ is not an object')
    for (const [key, text] of Object.entries(value)) {
      if (typeof text !== 'string') return fail(`its __metadata__ entry '${key}' is not a text`)
      metadata[key] = text
    }
  }
  return { entries, metadata }
}

/** Every byte of the data belongs to exactly one tensor. */
function checkRanges(entries: Entry[], dataLength: number, fail: Fail): void {
  const inOrder = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)
  let end = 0
  for (const entry of inOrder) {
    if (entry.begin < end) fail(`the data of tensor '${entry.name}' overlaps that of another`)
    if (entry.begin > end) fail(`there are ${entry.begin - end} unused bytes before tensor '${entry.name}'`)
    if (entry.end > dataLength) {
      fail(`tensor '${entry.name}' ends at byte ${entry.end} of the data, but there are only ${dataLength}: truncated?`)
    }
    end = entry.end
  }
  if (end !== dataLength) fail(`there are ${dataLength - end} unused bytes after the last tensor`)
}

/**
 * Key of the metadata under which our files carry the SHA-256 of all their bytes, computed with zeros in the place of its
 * own 64 digits.
 */
const CHECKSUM = 'atrous.sha256'
const noDigest = '0'.repeat(64)

/** SHA-256 of parts one after another, as 64 hexadecimal digits. */
export type DigestOf = (parts: Iterable<Uint8Array>) => string

/** Where the digits are in the start of a file, length and header; -1 where `digest` is not stated there. */
function findDigits(start: Uint8Array, digest: string): number {
  const key = `"${CHECKSUM}":"`
  const wanted = asciiOf(`${key}${digest}"`)
  for (let at = start.indexOf(wanted[0] as number); at >= 0; at = start.indexOf(wanted[0] as number, at + 1)) {
    if (wanted.every((byte, i) => start[at + i] === byte)) return at + key.length
  }
  return -1
}

const asciiOf = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Checks the bytes of a file against the digest that its header states. */
function verify(start: Uint8Array, data: Iterable<Uint8Array>, digest: string, digestOf: DigestOf, fail: Fail): void {
  const at = findDigits(start, digest)
  if (!/^[0-9a-f]{64}$/.test(digest) || at < 0) fail('its checksum cannot be read: it is damaged')
  const blank = Uint8Array.from(start)
  blank.set(asciiOf(noDigest), at)
  if (digestOf([blank, ...data]) !== digest) fail('its checksum does not hold: it is damaged')
}

const bytesOf = ({ data }: FileTensor): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength)

/**
 * Reads a safetensors file. Nothing of the file is trusted: header length, shapes, offsets and ranges are checked
 * before memory is allocated, and the checksum where the file carries one.
 * @throws DamagedFileError naming the source and what is wrong with it
 */
export function parseSafetensors(source: ByteSource, digestOf: DigestOf = sha256): Safetensors {
  const fail = (what: string): never => {
    throw new DamagedFileError(`${source.name} is not a usable safetensors file: ${what}`)
  }
  const file = demanding(source, fail)
  if (file.size < 8) return fail(`it has only ${file.size} bytes`)
  const headerLength = new DataView(file.read(0, 8).buffer).getBigUint64(0, true)
  if (headerLength > maxHeader) return fail(`its header claims ${headerLength} bytes (the limit is ${maxHeader})`)
  if (Number(headerLength) > file.size - 8) {
    return fail(`its header claims ${headerLength} bytes, but the file has only ${file.size}: truncated?`)
  }
  const dataStart = 8 + Number(headerLength)
  const start = file.read(0, dataStart)
  const { entries, metadata } = parseHeader(new TextDecoder().decode(start.subarray(8)), fail)
  checkRanges(entries, file.size - dataStart, fail)
  const tensors = new Map<string, FileTensor>()
  for (const { name, dtype, shape, begin, end } of entries) {
    const data = new ARRAYS[dtype](file.read(dataStart + begin, end - begin).buffer)
    tensors.set(name, { dtype, shape, data })
  }
  const { [CHECKSUM]: digest, ...rest } = metadata
  const inOrder = [...entries].sort((a, b) => a.begin - b.begin)
  if (digest !== undefined) {
    const data = inOrder.map(({ name }) => bytesOf(tensors.get(name) as FileTensor))
    verify(start, data, digest, digestOf, fail)
  }
  return { tensors, metadata: rest, verified: digest !== undefined }
}

/** Values as float32; for integers and F64 with the usual rounding. */
export function toFloat32(tensor: FileTensor): Float32Array {
  const { dtype, data } = tensor
  if (data instanceof Float32Array) return data
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) return Float32Array.from(data, Number)
  // A bfloat16 is the upper half of a float32.
  if (dtype === 'BF16') return new Float32Array(Uint32Array.from(data, (bits) => bits << 16).buffer)
  if (dtype === 'F16') return Float32Array.from(new Float16Array(data.buffer, data.byteOffset, data.length))
  return Float32Array.from(data)
}

function checkTensor(name: string, { dtype, shape, data }: FileTensor): void {
  if (!(data instanceof ARRAYS[dtype]) || elements(shape) !== data.length) {
    throw new TypeError(`tensor '${name}': ${data.length} values do not fit ${dtype} of shape [${shape}]`)
  }
}

/** The bytes of a safetensors file with a checksum, in parts. Every tensor starts on a multiple of its item size. */
export function safetensorsParts(
  tensors: Iterable<readonly [string, FileTensor]>,
  metadata: Readonly<Record<string, string>> = {},
  digestOf: DigestOf = sha256,
): Uint8Array[] {
  const list = [...tensors]
  for (const [name, tensor] of list) checkTensor(name, tensor)
  // Large items first: then no padding is needed between tensors, which the format does not allow.
  list.sort(([, a], [, b]) => ARRAYS[b.dtype].BYTES_PER_ELEMENT - ARRAYS[a.dtype].BYTES_PER_ELEMENT)
  const header: [string, unknown][] = [['__metadata__', { ...metadata, [CHECKSUM]: noDigest }]]
  let offset = 0
  for (const [name, { dtype, shape, data }] of list) {
    header.push([name, { dtype, shape, data_offsets: [offset, offset + data.byteLength] }])
    offset += data.byteLength
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)))
  const start = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20)
  new DataView(start.buffer).setBigUint64(0, BigInt(start.length - 8), true)
  start.set(json, 8)
  const data = list.map(([, tensor]) => bytesOf(tensor))
  start.set(asciiOf(digestOf([start, ...data])), findDigits(start, noDigest))
  return [start, ...data]
}
