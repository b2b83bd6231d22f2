// ?file=TEXT&how=hang|end|end-once: reading a file whose path holds TEXT never ends, or ends the loader thread that does
// it, each time or only in the first thread.
import promises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { isMainThread, threadId } from 'node:worker_threads'

const parameters = new URL(import.meta.url).searchParams
const file = parameters.get('file') ?? ''
const how = parameters.get('how')

const read = promises.readFile as (path: unknown, ...options: unknown[]) => Promise<unknown>
const faulty: typeof read = (path, ...options) => {
  if (!String(path).includes(file)) return read(path, ...options)
  if (how === 'hang') return new Promise(() => {})
  if (how === 'end' || threadId === 1) process.exit(7)
  return read(path, ...options)
}
if (!isMainThread) {
  Object.assign(promises, { readFile: faulty })
  syncBuiltinESMExports()
}
