import { closeSync, fsyncSync, openSync, readFileSync, readlinkSync, renameSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { UserError, WriteError } from '../error.js'
import { reasonOf, removeQuietly, writeFully } from '../io/files.js'
import { isGone, statOf } from '../processes.js'

/** Who writes into a folder. */
interface Holder {
  readonly host: string
  readonly pid: number
  /** When the run began, ISO 8601. */
  readonly started: string
  /** Tells processes apart that had the same number one after the other; null where the system does not say. */
  readonly process: string | null
  /** Processes see each other by number within a namespace only; null where the system has none. */
  readonly namespace: string | null
}

function fromSystem(read: () => string): string | null {
  try {
    return read().trim()
  } catch {
    return null
  }
}

/** Boot of the machine and start of a process, on Linux. */
function identityOf(pid: number): string | null {
  return fromSystem(() => {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    // The start is the 22nd field.
    return `${boot} ${statOf(pid)[19] ?? ''}`
  })
}

const namespace = fromSystem(() => readlinkSync('/proc/self/ns/pid'))

type Liveness = 'alive' | 'dead' | 'unknown'

function livenessOf({ host, pid, process: identity, namespace: theirs }: Holder): Liveness {
  if (host !== hostname() || theirs !== namespace) return 'unknown'
  if (isGone(pid)) return 'dead'
  const now = identityOf(pid)
  return identity !== null && now !== null && now !== identity ? 'dead' : 'alive'
}

/** Who holds the lock; undefined where there is none, null where it cannot be read. */
function readHolder(path: string): Holder | null | undefined {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new UserError(`cannot read ${path}: ${reasonOf(error)}`)
  }
  try {
    const holder = JSON.parse(text) as Partial<Holder> | null
    const { host, pid, started } = holder ?? {}
    const isHolder = typeof host === 'string' && Number.isSafeInteger(pid) && Number(pid) > 0
    return isHolder && typeof started === 'string' ? ({ process: null, namespace: null, ...holder } as Holder) : null
  } catch {
    return null
  }
}

const show = ({ host, pid, started }: Holder): string => `process ${pid} on ${host}, running since ${started}`

/**
 * A file `run.lock` that names the process which writes into a folder, so that two runs do not mix. It is removed when
 * the process ends, however that happens unless it is killed; a lock that a dead process of this machine left is taken
 * over. Reading a run's files needs no lock.
 */
export class RunLock {
  private readonly path: string
  private readonly holder: Holder
  private readonly text: string

  private constructor(private readonly folder: string) {
    this.path = join(folder, 'run.lock')
    const started = new Date().toISOString()
    this.holder = { host: hostname(), pid: process.pid, started, process: identityOf(process.pid), namespace }
    this.text = `${JSON.stringify(this.holder)}\n`
  }

  /**
   * Locks a folder, which exists.
   * @throws UserError naming the process that has it
   * @throws WriteError if the lock cannot be written
   */
  static acquire(folder: string, print: (line: string) => void): RunLock {
    const lock = new RunLock(folder)
    // Each round but the last removes a lock that somebody left.
    for (let round = 0; !lock.create(); round++) {
      const stale = lock.findStale()
      if (stale === undefined) continue
      if (round > 3) throw new UserError(`cannot lock ${folder}: other runs begin in it at the same time`)
      if (lock.removeStale(stale)) {
        print(
          `${lock.path}: taken over from ${stale ? `${show(stale)}, which has ended` : 'a run that left it damaged'}`,
        )
      }
    }
    process.once('exit', lock.release)
    return lock
  }

  /**
   * Makes the lock again where it was removed, with its folder for example.
   * @throws UserError if another run has locked the folder meanwhile
   * @throws WriteError if the lock cannot be written
   */
  renew(): void {
    const holder = readHolder(this.path)
    if (holder === undefined) this.create()
    else if (holder && !this.isOurs(holder)) {
      throw new UserError(`${this.folder} now belongs to another run (${show(holder)}): this one ends`)
    }
  }

  /** Removes the lock; also called when the process ends. */
  readonly release = (): void => {
    process.off('exit', this.release)
    try {
      const holder = readHolder(this.path)
      if (holder && this.isOurs(holder)) removeQuietly(this.path)
    } catch {
      // Then it is taken over later: its process is dead.
    }
  }

  private isOurs({ host, pid, started }: Holder): boolean {
    return host === this.holder.host && pid === this.holder.pid && started === this.holder.started
  }

  /** Whether there was no lock, and is now ours. */
  private create(): boolean {
    try {
      const file = openSync(this.path, 'wx')
      try {
        writeFully(file, Buffer.from(this.text))
        fsyncSync(file)
      } finally {
        closeSync(file)
      }
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
      throw new WriteError(this.path, reasonOf(error))
    }
  }

  /** The lock of a dead process, null for one that is damaged, undefined where it is gone. */
  private findStale(): Holder | null | undefined {
    let holder = readHolder(this.path)
    if (holder === null) {
      // It may be about to be written.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)
      holder = readHolder(this.path)
    }
    if (!holder) return holder
    const liveness = livenessOf(holder)
    if (liveness === 'dead') return holder
    const remedy =
      liveness === 'alive'
        ? 'wait for it, or choose another folder'
        : `whether it still runs cannot be seen from here: if it has ended, remove ${this.path}`
    throw new UserError(`${this.folder} is in use by another run (${show(holder)}): ${remedy}`)
  }

  /** Removes a stale lock. Where another process was faster and has locked the folder, it keeps it. */
  private removeStale(stale: Holder | null): boolean {
    const aside = `${this.path}.${process.pid}`
    try {
      renameSync(this.path, aside)
      if (JSON.stringify(readHolder(aside)) !== JSON.stringify(stale)) {
        renameSync(aside, this.path)
        return false
      }
      rmSync(aside)
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
      throw new WriteError(this.path, reasonOf(error))
    }
  }
}
