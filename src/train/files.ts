import { closeSync, constants, fstatSync, fsyncSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { UserError } from './error.js'

/** Ends the reading of a file with an error that names the file. */
export type Fail = (what: string) => never

/** A file that is read piece by piece, so that what it claims is checked before memory is spent on it. */
export class BinaryFile {
  private constructor(
    private readonly handle: number,
    readonly size: number,
    private readonly fail: Fail,
  ) {}

  /**
   * Opens a file for as long as `body` runs.
   * @param fail called where the file is not one, or ends early
   * @throws UserError if it cannot be opened
   */
  static with<T>(path: string, fail: Fail, body: (file: BinaryFile) => T): T {
    let handle: number
    try {
      // Opening a pipe would wait for its other end.
      handle = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
    } catch (error) {
      throw new UserError(`cannot open ${path}: ${reasonOf(error)}`)
    }
    try {
      const stat = fstatSync(handle)
      if (!stat.isFile()) throw new UserError(`cannot read ${path}: it is not a file`)
      return body(new BinaryFile(handle, stat.size, fail))
    } finally {
      closeSync(handle)
    }
  }

  /** `length` bytes from `position`. Fails, before memory is spent, where the file does not have them. */
  read(position: number, length: number): Uint8Array<ArrayBuffer> {
    if (position + length > this.size) this.fail('it ends too early: truncated?')
    const target = new Uint8Array(length)
    this.readInto(target, position)
    return target
  }

  readInto(target: Uint8Array, position: number): void {
    let done = 0
    while (done < target.length) {
      // One read call moves at most 2 GiB.
      const length = Math.min(target.length - done, 2 ** 30)
      const count = readSync(this.handle, target, done, length, position + done)
      if (count === 0) this.fail('it ended while being read')
      done += count
    }
  }
}

function writeFully(file: number, bytes: Uint8Array): void {
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

/**
 * Writes a file that appears under its name only when complete (temporary file in the same folder, flushed, renamed),
 * so that a crash leaves the previous one.
 * @throws UserError if it cannot be written; a previous file is then untouched
 */
export function writeAtomically(path: string, parts: Iterable<Uint8Array>): void {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`)
  try {
    const file = openSync(temporary, 'w')
    try {
      for (const part of parts) writeFully(file, part)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw new UserError(`cannot write ${path}: ${reasonOf(error)}`)
  }
  syncFolder(dirname(path))
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
