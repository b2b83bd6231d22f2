import type { ByteSource, Fail } from './byte-source.js'
import { crc32 } from './crc32.js'

/** A member of a zip archive. */
export interface ZipEntry {
  readonly name: string
  /** Of the local header, which stands before the data. */
  readonly position: number
  readonly size: number
  readonly crc: number
  readonly compressed: boolean
}

const maxDirectory = 32 * 2 ** 20
const END_BYTES = 22
const END_SIGNATURE = 0x06054b50
const END64_LOCATOR_BYTES = 20
const END64_BYTES = 56
const ENTRY_BYTES = 46
const LOCAL_BYTES = 30
/** In a field of 32 bits: the value is in the zip64 extension. */
const SATURATED = 0xffffffff

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

function count(value: bigint, fail: Fail): number {
  return value > Number.MAX_SAFE_INTEGER ? fail(`its directory claims ${value} bytes`) : Number(value)
}

interface Directory {
  readonly entries: number
  readonly position: number
  readonly size: number
}

/** The end record, behind which there is at most a comment of 64 KiB. */
function findDirectory(file: ByteSource, fail: Fail): Directory {
  const length = Math.min(file.size, END_BYTES + 0xffff)
  const start = file.size - length
  const view = viewOf(file.read(start, length))
  for (let at = length - END_BYTES; at >= 0; at--) {
    if (view.getUint32(at, true) !== END_SIGNATURE || at + END_BYTES + view.getUint16(at + 20, true) !== length)
      continue
    const entries = view.getUint16(at + 10, true)
    const size = view.getUint32(at + 12, true)
    const position = view.getUint32(at + 16, true)
    const zip64 = entries === 0xffff || size === SATURATED || position === SATURATED
    return zip64 ? directory64(file, start + at, fail) : { entries, position, size }
  }
  return fail('the end of the zip archive is missing: truncated?')
}

/** The zip64 end record, to which a locator in front of the end record points. */
function directory64(file: ByteSource, end: number, fail: Fail): Directory {
  if (end < END64_LOCATOR_BYTES + END64_BYTES) return fail('its zip64 directory is missing')
  const locator = viewOf(file.read(end - END64_LOCATOR_BYTES, END64_LOCATOR_BYTES))
  if (locator.getUint32(0, true) !== 0x07064b50) return fail('its zip64 directory is missing')
  const record = viewOf(file.read(count(locator.getBigUint64(8, true), fail), END64_BYTES))
  if (record.getUint32(0, true) !== 0x06064b50) return fail('its zip64 directory is missing')
  const [entries, size, position] = [32, 40, 48].map((at) => count(record.getBigUint64(at, true), fail))
  return { entries: entries ?? 0, size: size ?? 0, position: position ?? 0 }
}

/** The 64-bit fields of the zip64 extension, in the order of the fields that are saturated. */
function zip64Fields(extra: DataView, fail: Fail): number[] {
  for (let at = 0; at + 4 <= extra.byteLength; ) {
    const length = extra.getUint16(at + 2, true)
    if (at + 4 + length > extra.byteLength) break
    if (extra.getUint16(at, true) === 1) {
      return Array.from({ length: Math.floor(length / 8) }, (_, i) =>
        count(extra.getBigUint64(at + 4 + 8 * i, true), fail),
      )
    }
    at += 4 + length
  }
  return []
}

/**
 * Members of a zip archive by their names, zip64 included.
 * @param file one that gives all that is asked for, see `demanding`
 */
export function readZipDirectory(file: ByteSource, fail: Fail): Map<string, ZipEntry> {
  const directory = findDirectory(file, fail)
  if (directory.size > maxDirectory) {
    return fail(`its directory claims ${directory.size} bytes (the limit is ${maxDirectory})`)
  }
  const bytes = file.read(directory.position, directory.size)
  const view = viewOf(bytes)
  const members = new Map<string, ZipEntry>()
  let at = 0
  for (let i = 0; i < directory.entries; i++) {
    if (at + ENTRY_BYTES > bytes.length || view.getUint32(at, true) !== 0x02014b50) {
      return fail(`its directory breaks off after ${i} of ${directory.entries} members`)
    }
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => view.getUint16(at + field, true))
    const nameEnd = at + ENTRY_BYTES + (nameLength ?? 0)
    const extraEnd = nameEnd + (extraLength ?? 0)
    if (extraEnd > bytes.length) return fail(`its directory breaks off after ${i} of ${directory.entries} members`)
    const name = new TextDecoder().decode(bytes.subarray(at + ENTRY_BYTES, nameEnd))
    const shown = JSON.stringify(name)
    if ((view.getUint16(at + 8, true) & 1) !== 0) return fail(`its member ${shown} is encrypted`)
    const compressed = view.getUint16(at + 10, true) !== 0
    const wide = zip64Fields(viewOf(bytes.subarray(nameEnd, extraEnd)), fail)
    const field = (offset: number): number => {
      const value = view.getUint32(at + offset, true)
      return value === SATURATED ? (wide.shift() ?? fail(`its member ${shown} lacks the zip64 extension`)) : value
    }
    const [size, stored] = [field(24), field(20)]
    if (!compressed && stored !== size) return fail(`its member ${shown} is stored, but has two sizes`)
    const position = field(42)
    if (position + LOCAL_BYTES + stored > directory.position) {
      return fail(`its member ${shown} claims ${stored} bytes, which it does not have`)
    }
    if (members.has(name)) return fail(`its member ${shown} is there twice`)
    members.set(name, { name, position, size, crc: view.getUint32(at + 16, true), compressed })
    at = extraEnd + (commentLength ?? 0)
  }
  return members
}

/**
 * The data of a member, its checksum verified. Only a stored one is read, as PyTorch writes them: a compressed one could
 * be a thousand times the size of the file.
 */
export function readZipEntry(file: ByteSource, entry: ZipEntry, fail: Fail): Uint8Array<ArrayBuffer> {
  if (entry.compressed) {
    const shown = JSON.stringify(entry.name)
    return fail(`its member ${shown} is compressed, which PyTorch never does: save it again with torch.save`)
  }
  const local = viewOf(file.read(entry.position, LOCAL_BYTES))
  if (local.getUint32(0, true) !== 0x04034b50)
    return fail(`its member ${JSON.stringify(entry.name)} is not where it says`)
  const start = entry.position + LOCAL_BYTES + local.getUint16(26, true) + local.getUint16(28, true)
  const data = file.read(start, entry.size)
  if (crc32(data) !== entry.crc) return fail(`its member ${JSON.stringify(entry.name)} is damaged (wrong checksum)`)
  return data
}
