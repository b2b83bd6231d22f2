// ?at=N: the power fails before the N-th change of files of the checkpoints; a write counts once per file, and is left in
// its midst. The process kills itself, and what it has not flushed is lost.
import { truncateSync } from 'node:fs'
import { beforeChanges } from './files.js'

const at = Number(new URL(import.meta.url).searchParams.get('at'))
const unflushed = new Set<string>()
let changes = 0
let last = ''
beforeChanges(
  (path) => /(latest|best|iteration-\d+)[.\w]*\.safetensors/.test(path),
  (operation, path, from) => {
    const change = `${operation} ${path}`
    if (operation === 'writeSync' && change === last) return
    last = change
    if (operation === 'writeSync') unflushed.add(path)
    if (++changes === at) {
      for (const file of unflushed) truncateSync(file)
      process.kill(process.pid, 'SIGKILL')
    }
    if (operation === 'fsyncSync') unflushed.delete(path)
    else if (from !== undefined && unflushed.has(from)) unflushed.add(path)
    if (operation === 'renameSync' && from !== undefined) unflushed.delete(from)
  },
)
