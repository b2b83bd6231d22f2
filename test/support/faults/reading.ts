// ?file=TEXT&how=hang|end|end-once: reading a file whose path holds TEXT never ends, or ends the loader thread that does
// it, each time or only in the first thread.
import { isMainThread, threadId } from 'node:worker_threads'
import sharp from 'sharp'

const parameters = new URL(import.meta.url).searchParams
const file = parameters.get('file') ?? ''
const how = parameters.get('how')

interface Reader {
  readonly options: { readonly input: { readonly file?: string } }
  toBuffer(...args: unknown[]): Promise<unknown>
}
const { prototype } = sharp as unknown as { prototype: Reader }
const { toBuffer } = prototype
if (!isMainThread) {
  prototype.toBuffer = function (...args) {
    if (!this.options.input.file?.includes(file)) return toBuffer.apply(this, args)
    if (how === 'hang') return new Promise(() => {})
    if (how === 'end' || threadId === 1) process.exit(7)
    return toBuffer.apply(this, args)
  }
}
