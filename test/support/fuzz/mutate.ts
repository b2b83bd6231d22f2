import { crc32, deflateSync, inflateSync } from 'node:zlib'
import type { Random } from '../../../cases/case.js'

/** Makes one damaged or hostile file of a good one. */
export type Mutation = (bytes: Buffer, random: Random) => Buffer

/** One of several, none of which is undefined. */
export const pick = <T>(list: readonly T[], random: Random): T => list[random.integer(list.length)] as T

/** Numbers at which sizes, counts and signs go wrong. */
const extremes = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]

const place = (bytes: Buffer, random: Random): number => random.integer(bytes.length + 1)

const insert = (bytes: Buffer, at: number, part: Uint8Array, instead = 0): Buffer =>
  Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at + instead)])

function flipBits(bytes: Buffer, random: Random): Buffer {
  const copy = Buffer.from(bytes)
  for (let i = random.integer(8); i >= 0 && copy.length > 0; i--) {
    const at = random.integer(copy.length)
    copy[at] = (copy[at] ?? 0) ^ (1 << random.integer(8))
  }
  return copy
}

const truncate: Mutation = (bytes, random) => bytes.subarray(0, place(bytes, random))
const remove: Mutation = (bytes, random) =>
  insert(bytes, place(bytes, random), Buffer.alloc(0), 1 + random.integer(random.integer(64) + 1))

/** Copies a part to another place. */
function duplicate(bytes: Buffer, random: Random): Buffer {
  const from = place(bytes, random)
  const part = bytes.subarray(from, from + 1 + random.integer(random.integer(256) + 1))
  return insert(bytes, place(bytes, random), part, pick([0, part.length], random))
}

/** Overwrites what may be a length field of 1 to 8 bytes, in either byte order. */
function overwriteNumber(bytes: Buffer, random: Random): Buffer {
  const field = Buffer.alloc(8)
  const value = BigInt(pick(extremes, random)) * BigInt(pick([1, 1, 1, 2 ** 20, 2 ** 31], random))
  const size = pick([1, 2, 4, 8], random)
  if (random.uniform() < 0.5) field.writeBigUInt64LE(BigInt.asUintN(64, value))
  else field.writeBigUInt64BE(BigInt.asUintN(8 * size, value) << BigInt(64 - 8 * size))
  return insert(bytes, place(bytes, random), field.subarray(0, size), size)
}

function randomBytes(bytes: Buffer, random: Random): Buffer {
  const part = Buffer.from(Array.from({ length: 1 + random.integer(16) }, () => random.integer(256)))
  return insert(bytes, place(bytes, random), part, pick([0, part.length], random))
}

/** Mutations that know nothing of the format. */
export const plain: readonly Mutation[] = [flipBits, truncate, remove, duplicate, overwriteNumber, randomBytes]

/** Inserts, in place of something or not, words that mean something in the format. */
export const words =
  (list: readonly (string | Buffer)[]): Mutation =>
  (bytes, random) => {
    const word = Buffer.from(pick(list, random))
    return insert(bytes, place(bytes, random), word, pick([0, 0, word.length, random.integer(8)], random))
  }

const hostileTexts = ['', '__proto__', 'constructor', 'a\nb', '\u001b[31m', '\u0000', '../../x', 'x'.repeat(300)]
const hostileNumbers = [...extremes, -1, 0.5, 1e308, 2 ** 53, 2 ** 63, 2 ** 64]

/** Changes one place of a JSON value: a part becomes another, goes, or is there twice. */
export function mutateJson(value: unknown, random: Random): unknown {
  const parts = (at: unknown): unknown[] => (typeof at === 'object' && at !== null ? Object.values(at) : [])
  if (parts(value).length > 0 && random.uniform() < 0.8) {
    if (Array.isArray(value)) {
      const copy: unknown[] = [...(value as unknown[])]
      const at = random.integer(copy.length)
      if (random.uniform() < 0.7) copy[at] = mutateJson(copy[at], random)
      else copy.splice(at, pick([0, 1], random), copy[random.integer(copy.length)])
      return copy
    }
    const entries = Object.entries(value as object) as [string, unknown][]
    const at = random.integer(entries.length)
    const [key, item] = entries[at] as [string, unknown]
    const choice = random.uniform()
    if (choice < 0.7) entries[at] = [key, mutateJson(item, random)]
    else if (choice < 0.8) entries[at] = [pick(hostileTexts, random), item]
    else if (choice < 0.9) entries.splice(at, 1)
    else entries.push([pick(hostileTexts, random), pick(entries, random)[1]])
    return Object.fromEntries(entries)
  }
  return pick<unknown>([pick(hostileNumbers, random), pick(hostileTexts, random), null, true, [], {}, [[]]], random)
}

/** A part of a PNG file. */
interface Chunk {
  readonly type: string
  readonly data: Buffer
}

function chunksOf(bytes: Buffer): Chunk[] {
  const chunks: Chunk[] = []
  for (let at = 8; at + 12 <= bytes.length; ) {
    const end = at + 12 + bytes.readUInt32BE(at)
    if (end > bytes.length) break
    chunks.push({ type: bytes.toString('latin1', at + 4, at + 8), data: bytes.subarray(at + 8, end - 4) })
    at = end
  }
  return chunks
}

/** A PNG file of these chunks, with their right checksums. */
export function pngOf(chunks: readonly Chunk[]): Buffer {
  const parts = chunks.flatMap(({ type, data }) => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)]
    length.writeUInt32BE(data.length)
    sum.writeUInt32BE(crc32(body))
    return [length, body, sum]
  })
  return Buffer.concat([Buffer.from('89504e470d0a1a0a', 'hex'), ...parts])
}

const chunkTypes = [
  'IHDR',
  'PLTE',
  'IDAT',
  'IEND',
  'tRNS',
  'iCCP',
  'zTXt',
  'iTXt',
  'tEXt',
  'eXIf',
  'acTL',
  'fdAT',
  'ABCD',
]

/** Changes a chunk, its order or its content, and corrects the checksums. */
export const pngChunks: Mutation = (bytes, random) => {
  const chunks = chunksOf(bytes)
  if (chunks.length === 0) return flipBits(bytes, random)
  const at = random.integer(chunks.length)
  const chunk = chunks[at] as Chunk
  const choice = random.integer(6)
  if (choice === 0) chunks.splice(at, 1)
  else if (choice === 1) chunks.splice(random.integer(chunks.length + 1), 0, chunk)
  else if (choice === 2) {
    const data = pick([chunk.data, Buffer.alloc(0), deflateSync(Buffer.alloc(2 ** 18)), Buffer.alloc(300)], random)
    chunks.splice(at, pick([0, 1], random), { type: pick(chunkTypes, random), data })
  } else if (choice === 3 && chunk.type === 'IHDR' && chunk.data.length === 13) {
    const data = Buffer.from(chunk.data)
    if (random.uniform() < 0.5) data.writeUInt32BE(pick(extremes, random), pick([0, 4], random))
    else data[8 + random.integer(5)] = pick([0, 1, 2, 3, 4, 6, 8, 16, 255], random)
    chunks[at] = { type: 'IHDR', data }
  } else if (choice === 4 && chunk.type === 'IDAT') {
    // The rows themselves, which no longer hide behind a damaged stream.
    try {
      const raw = inflateSync(chunk.data, { maxOutputLength: 2 ** 20 })
      chunks[at] = { type: 'IDAT', data: deflateSync(pick(plain, random)(raw, random)) }
    } catch {
      chunks[at] = { type: 'IDAT', data: deflateSync(Buffer.alloc(random.integer(4096))) }
    }
  } else chunks[at] = { ...chunk, data: pick(plain, random)(chunk.data, random) }
  return pngOf(chunks)
}
