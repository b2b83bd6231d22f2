// ?from=N&to=M: the disk is full from the end of the N-th epoch on, when the report is written, up to that of the M-th.
import { isMainThread } from 'node:worker_threads'
import { beforeChanges } from './files.js'

const parameters = new URL(import.meta.url).searchParams
const [from, to] = [Number(parameters.get('from')), Number(parameters.get('to') ?? Number.POSITIVE_INFINITY)]
let epochs = 0
if (isMainThread) {
  beforeChanges(
    (path) => /(safetensors|jsonl|html|tfevents|tmp)/.test(path),
    (operation, path) => {
      if (operation === 'openSync' && /\.report\.html\.\d+\.tmp$/.test(path)) epochs++
      if (operation !== 'writeSync' || epochs < from || epochs > to) return
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
    },
  )
}
