import { once } from 'node:events'
import { closeSync, fsyncSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { createDeflate } from 'node:zlib'
import { WriteError } from '../error.js'
import { makeFolder, reasonOf, removeQuietly, renameDurably, temporaryOf, writeFully } from './files.js'
import { chunkOf, PNG_SIGNATURE } from './png.js'

/** How the rows of a PNG are prepared for compression: by the difference to the row above. */
const UP = 2

/**
 * Writes an 8-bit PNG row by row, so that an image of any size takes the memory of the rows that are given at a time. The
 * file appears under its name when it is complete.
 */
export class PngWriter {
  private readonly deflate = createDeflate({ chunkSize: 2 ** 18 })
  private readonly temporary: string
  private readonly file: number
  private isOpen = true
  private readonly written: Promise<void>
  /** The row above the next one. */
  private above: Uint8Array
  private failure: unknown

  /**
   * @param channels 1: grey, 3: RGB
   * @throws WriteError if the file cannot be made
   */
  constructor(
    private readonly path: string,
    { width, height }: { readonly width: number; readonly height: number },
    channels: 1 | 3,
  ) {
    this.above = new Uint8Array(width * channels)
    this.temporary = temporaryOf(path)
    makeFolder(dirname(path))
    const header = Buffer.alloc(13)
    header.writeUInt32BE(width, 0)
    header.writeUInt32BE(height, 4)
    header.set([8, channels === 1 ? 0 : 2], 8)
    try {
      this.file = openSync(this.temporary, 'w')
    } catch (error) {
      throw new WriteError(path, reasonOf(error))
    }
    this.written = this.drain(header)
    // It is told to whoever writes next.
    this.written.catch((error: unknown) => {
      this.failure = error
      this.deflate.destroy()
    })
  }

  /**
   * @param rows [h, W, channels]
   * @throws WriteError where the file cannot be written
   */
  async write(rows: Uint8Array): Promise<void> {
    if (this.failure !== undefined) throw this.failure
    const length = this.above.length
    const filtered = Buffer.alloc((rows.length / length) * (length + 1))
    let above = this.above
    for (let from = 0, to = 0; from < rows.length; from += length) {
      const row = rows.subarray(from, from + length)
      filtered[to++] = UP
      for (let i = 0; i < length; i++) filtered[to++] = (row[i] ?? 0) - (above[i] ?? 0)
      above = row
    }
    this.above = above.slice()
    if (!this.deflate.write(filtered)) await Promise.race([once(this.deflate, 'drain'), this.written])
  }

  /**
   * Completes the file.
   * @throws WriteError where it cannot be written; `discard` then removes what there is
   */
  async finish(): Promise<void> {
    this.deflate.end()
    await this.written
    try {
      writeFully(this.file, chunkOf('IEND', Buffer.alloc(0)))
      fsyncSync(this.file)
      this.close()
      renameDurably(this.temporary, this.path)
    } catch (error) {
      throw new WriteError(this.path, reasonOf(error))
    }
  }

  /** Leaves nothing of a file that will not be complete. */
  discard(): void {
    this.deflate.destroy()
    try {
      this.close()
    } catch {
      // What could not be written is not wanted.
    }
    removeQuietly(this.temporary)
  }

  /** Once: the number of a closed descriptor may be another file's already. */
  private close(): void {
    if (!this.isOpen) return
    this.isOpen = false
    closeSync(this.file)
  }

  private async drain(header: Buffer): Promise<void> {
    try {
      writeFully(this.file, Buffer.concat([PNG_SIGNATURE, chunkOf('IHDR', header)]))
      for await (const part of this.deflate) {
        if (!this.isOpen) return
        writeFully(this.file, chunkOf('IDAT', part as Buffer))
      }
    } catch (error) {
      throw new WriteError(this.path, reasonOf(error))
    }
  }
}
