import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync } from 'node:fs'
import { WriteError } from '../error.js'
import { reasonOf, writeFully } from './files.js'

/**
 * A file to which records are appended. What cannot be written is kept in memory, and goes first the next time; a record
 * that was written in part is cut off before. The file is opened anew each time, so that one that was removed comes back.
 */
export class AppendFile {
  private waiting: Uint8Array[] = []
  private torn = false

  /**
   * @param end length of the file so far
   * @param head written where the file is empty
   */
  constructor(
    readonly path: string,
    private end: number,
    private readonly head: Uint8Array = new Uint8Array(0),
  ) {}

  /** Length of the complete records in the file. */
  get bytes(): number {
    return this.end
  }

  /** @throws WriteError if the record is not in the file yet */
  append(record: Uint8Array): void {
    this.waiting.push(record)
    this.withFile((file) => this.write(file))
  }

  /**
   * Writes what waits, and flushes the file to the disk.
   * @throws WriteError if that is not possible
   */
  sync(): void {
    this.withFile((file) => {
      this.write(file)
      fsyncSync(file)
    })
  }

  private withFile(body: (file: number) => void): void {
    try {
      const file = openSync(this.path, 'a')
      try {
        body(file)
      } finally {
        closeSync(file)
      }
    } catch (error) {
      throw new WriteError(this.path, reasonOf(error))
    }
  }

  private write(file: number): void {
    const { size } = fstatSync(file)
    if (this.torn && size > this.end) ftruncateSync(file, this.end)
    else this.end = size
    const bytes = Buffer.concat(this.end === 0 ? [this.head, ...this.waiting] : this.waiting)
    this.torn = true
    writeFully(file, bytes)
    this.torn = false
    this.end += bytes.length
    this.waiting = []
  }
}
