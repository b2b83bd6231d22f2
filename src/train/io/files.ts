import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  open,
  openSync,
  read,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { DamagedFileError, reasonOf, WriteError } from '../error.js'
import type { ByteSource } from './byte-source.js'

export { reasonOf } from '../error.js'

// Opening a pipe without the second flag would wait for its other end.
const READ_ONLY = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)

const [openFile, readFile] = [promisify(open), promisify(read)]

/**
 * The bytes of a file, or undefined where it has more than `maxBytes`.
 * @throws Error that says why it cannot be read, or that it is no file but a pipe, which may have no end
 */
export async function readWhole(path: string, maxBytes: number): Promise<Buffer | undefined> {
  const handle = await openFile(path, READ_ONLY)
  try {
    // Neither this nor closing waits for the disk: less work than having another thread do it.
    const stat = fstatSync(handle)
    if (!stat.isFile()) throw new Error('it is not a file')
    if (stat.size > maxBytes) return undefined
    const bytes = Buffer.allocUnsafeSlow(stat.size)
    let end = 0
    for (let count = 1; count > 0 && end < bytes.length; end += count) {
      count = (await readFile(handle, bytes, end, bytes.length - end, null)).bytesRead
    }
    return bytes.subarray(0, end)
  } finally {
    closeSync(handle)
  }
}

/**
 * Opens a file for as long as `body` runs.
 * @throws DamagedFileError if it cannot be opened, or is no file
 */
export function withFile<T>(path: string, body: (source: ByteSource) => T): T {
  let handle: number
  try {
    handle = openSync(path, READ_ONLY)
  } catch (error) {
    throw new DamagedFileError(`cannot open ${path}: ${reasonOf(error)}`)
  }
  try {
    const stat = fstatSync(handle)
    if (!stat.isFile()) throw new DamagedFileError(`cannot read ${path}: it is not a file`)
    return body({ name: path, size: stat.size, read: (position, length) => readAt(handle, position, length) })
  } finally {
    closeSync(handle)
  }
}

function readAt(handle: number, position: number, length: number): Uint8Array<ArrayBuffer> {
  const target = new Uint8Array(length)
  let done = 0
  while (done < length) {
    // One read call moves at most 2 GiB.
    const count = readSync(handle, target, done, Math.min(length - done, 2 ** 30), position + done)
    if (count === 0) return target.slice(0, done)
    done += count
  }
  return target
}

/** Writes all bytes at the place where the file stands. */
export function writeFully(file: number, bytes: Uint8Array): void {
  let done = 0
  while (done < bytes.length) done += writeSync(file, bytes, done, Math.min(bytes.length - done, 2 ** 30))
}

/** Flushes the directory entry of a renamed file, where the system can (Windows cannot). */
function syncFolder(folder: string): void {
  try {
    const handle = openSync(folder, 'r')
    try {
      fsyncSync(handle)
    } finally {
      closeSync(handle)
    }
  } catch {
    // The rename has happened; only its durability across a power cut is left to the system.
  }
}

export interface WriteOptions {
  /** The name under which the file that stood there before is kept. */
  readonly backup?: string | undefined
}

/** The name under which a file is written until it is complete. */
export const temporaryOf = (path: string): string => join(dirname(path), `.${basename(path)}.${process.pid}.tmp`)

/** Whether a name is one of `temporaryOf`. */
export const isTemporary = (name: string): boolean => /^\..+\.\d+\.tmp$/.test(name)

/** Renames a file, in the place of one that has the name, and flushes the folder's entry. Throws the system's error. */
export function renameDurably(from: string, to: string): void {
  renameSync(from, to)
  syncFolder(dirname(to))
}

/**
 * Writes a file that appears under its name only when complete and on the disk (temporary file in the same folder,
 * flushed, renamed, the folder flushed), so that a crash or a power cut leaves the previous one.
 * @throws WriteError if it cannot be written; a previous file is then untouched
 */
export function writeAtomically(path: string, parts: Iterable<Uint8Array>, { backup }: WriteOptions = {}): void {
  const temporary = temporaryOf(path)
  try {
    const file = openSync(temporary, 'w')
    try {
      for (const part of parts) writeFully(file, part)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    if (backup !== undefined && existsSync(path)) keepAs(path, backup)
    renameDurably(temporary, path)
  } catch (error) {
    removeQuietly(temporary)
    throw new WriteError(path, reasonOf(error))
  }
}

/**
 * Writes a file into a folder, which is made where it is missing; the file is complete or absent.
 * @throws WriteError where that is impossible
 */
export function writeOutput(folder: string, name: string, content: Uint8Array | string): void {
  makeFolder(folder)
  writeAtomically(join(folder, name), [typeof content === 'string' ? Buffer.from(content) : content])
}

/** Gives a file a second name, in the place of the one that has it. */
function keepAs(path: string, backup: string): void {
  const temporary = temporaryOf(backup)
  try {
    rmSync(temporary, { force: true })
    linkSync(path, temporary)
  } catch {
    // No hard links on this file system: the file is missing under its own name until the new one takes it.
    renameSync(path, backup)
    return
  }
  renameSync(temporary, backup)
  // Where both names are the same file already, rename leaves both.
  rmSync(temporary, { force: true })
}

/**
 * Makes a folder, with those above it, where it is missing.
 * @throws WriteError if it cannot be made
 */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true })
  } catch {
    try {
      // Of a read-only file system the recursive call says that there is no such folder.
      mkdirSync(path)
    } catch (error) {
      throw new WriteError(path, reasonOf(error))
    }
  }
}

/** Removes a file, if that is possible. */
export function removeQuietly(path: string): void {
  try {
    rmSync(path, { force: true })
  } catch {
    // What made the writing of a file fail may hinder this, too; the next run removes what is left.
  }
}

/** The first line of what an error says: libraries add stacks, source lines and hints below it. */
export const firstLineOf = (error: unknown): string => (reasonOf(error).trim().split('\n')[0] ?? '').replace(/:$/, '')
