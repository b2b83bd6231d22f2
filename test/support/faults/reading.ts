// ?file=TEXT&how=hang|end|end-once: reading a file whose path holds TEXT never ends, or ends the loader thread that does
// it, each time or only in the first thread.
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { isMainThread, threadId } from 'node:worker_threads'

const parameters = new URL(import.meta.url).searchParams
const file = parameters.get('file') ?? ''
const how = parameters.get('how')

const open = fs.open as (path: unknown, ...others: unknown[]) => void
const faulty: typeof open = (path, ...others) => {
  if (String(path).includes(file)) {
    if (how === 'hang') return
    if (how === 'end' || threadId === 1) process.exit(7)
  }
  open(path, ...others)
}
if (!isMainThread) {
  Object.assign(fs, { open: faulty })
  syncBuiltinESMExports()
}
