import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'

type Paths = (...args: readonly unknown[]) => string

/**
 * For modules that are loaded with `node --import` before a command: `before` is called before each change of a file whose
 * path matches, with the name of the operation, for a new name also with the old one; for a write when half of it is done.
 */
export function beforeChanges(
  matches: (path: string) => boolean,
  before: (operation: string, path: string, from?: string) => void,
) {
  const paths = new Map<unknown, string>()
  const ofHandle: Paths = (handle) => paths.get(handle) ?? ''
  const first: Paths = (path) => String(path)
  const second: Paths = (_, path) => String(path)
  const wrap = (
    name: 'writeSync' | 'fsyncSync' | 'linkSync' | 'renameSync' | 'rmSync' | 'ftruncateSync',
    of: Paths,
  ) => {
    const original = fs[name] as (...args: unknown[]) => unknown
    const wrapped = (...args: unknown[]) => {
      const path = of(...args)
      if (matches(path)) before(name, path, of === second ? first(...args) : undefined)
      return original(...args)
    }
    Object.assign(fs, { [name]: wrapped })
  }
  const { openSync } = fs
  fs.openSync = (path, flags, mode) => {
    const isChange = flags !== undefined && flags !== 'r' && typeof flags === 'string'
    if (isChange && matches(String(path))) before('openSync', String(path))
    const handle = openSync(path, flags, mode)
    paths.set(handle, String(path))
    return handle
  }
  wrap('fsyncSync', ofHandle)
  wrap('ftruncateSync', ofHandle)
  wrap('linkSync', second)
  wrap('renameSync', second)
  wrap('rmSync', first)
  const { writeSync } = fs
  const writeInHalves = (handle: number, bytes: Uint8Array, offset = 0, length = bytes.length - offset) => {
    const path = ofHandle(handle)
    if (!matches(path)) return writeSync(handle, bytes, offset, length)
    const half = Math.ceil(length / 2)
    const done = writeSync(handle, bytes, offset, half)
    before('writeSync', path)
    return done < half || half === length ? done : done + writeSync(handle, bytes, offset + half, length - half)
  }
  Object.assign(fs, { writeSync: writeInHalves })
  syncBuiltinESMExports()
}
