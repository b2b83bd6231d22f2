import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { UserError } from '#dist/train/error.js'
import { Random } from '../../../cases/case.js'
import { type Mutation, pick } from './mutate.js'

/** A reader of files that come from elsewhere. */
export interface Target {
  readonly name: string
  /** Good files, and hostile ones that are refused. */
  readonly seeds: readonly Buffer[]
  readonly mutations: readonly Mutation[]
  /** Reads a file. Throws a UserError for what it refuses, and any other error for what must not happen. */
  readonly read: (path: string, folder: string) => unknown
}

/** What came of the inputs. */
export interface Figures {
  readonly inputs: number
  readonly accepted: number
  /** Refusals that differ in more than names and numbers. */
  readonly reasons: number
  readonly seconds: number
  /** Of one input, in milliseconds. */
  readonly slowest: number
  /** Of the process, in MiB. */
  readonly peak: number
}

/** Longest time that an input of a few KiB may take, with room for a machine that is busy otherwise. */
const maxMilliseconds = 5000
/** Growth of the process while it reads: the largest picture that is read takes 0.6 GiB. */
const maxGrowthMib = 1024

const mebibytes = (bytes: number): number => bytes / 2 ** 20

/** Input `i` of a target: the same one every time. */
export function inputOf({ name, seeds, mutations }: Target, i: number): Buffer {
  const random = new Random(`${name} ${i}`)
  let bytes = pick(seeds, random)
  for (let k = random.integer(4); k >= 0; k--) bytes = pick(mutations, random)(bytes, random)
  return bytes
}

/** Gives a reader the inputs `from` ... `from + count - 1`. Throws at the first that does any harm, by its number. */
export async function fuzz(target: Target, count: number, from = 0): Promise<Figures> {
  const home = mkdtempSync(join(tmpdir(), `atrous-fuzz-${target.name}-`))
  const folder = join(home, 'data')
  const path = join(folder, 'input')
  mkdirSync(folder)
  const reasons = new Set<string>()
  const before = process.memoryUsage().rss
  let peak = before
  let slowest = 0
  let accepted = 0
  let seconds = 0
  try {
    for (let i = from; i < from + count; i++) {
      writeFileSync(path, inputOf(target, i))
      const started = performance.now()
      try {
        await target.read(path, folder)
        accepted++
      } catch (error) {
        const what = `${target.name}: input ${i}`
        if (!(error instanceof UserError))
          throw new Error(`${what} ends in ${error instanceof Error ? error.stack : error}`)
        const { message } = error
        if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(message) || message.length > 2100)
          throw new Error(`${what}: no plain line: ${message}`)
        reasons.add(
          message
            .replaceAll(home, '')
            .replace(/["'`][^"'`]*["'`]|\[[^\]]*\]|[\d.,]+/g, '#')
            .slice(0, 120),
        )
      }
      const time = performance.now() - started
      seconds += time / 1000
      slowest = Math.max(slowest, time)
      peak = Math.max(peak, process.memoryUsage.rss())
      if (time > maxMilliseconds) throw new Error(`${target.name}: input ${i} takes ${Math.round(time)} ms`)
      if (mebibytes(peak - before) > maxGrowthMib) {
        throw new Error(`${target.name}: input ${i} takes the process to ${Math.round(mebibytes(peak))} MiB`)
      }
    }
    const found = [readdirSync(home), readdirSync(folder)].flat().sort().join()
    if (found !== 'data,input' || !existsSync(path)) throw new Error(`${target.name} left behind ${found}`)
  } finally {
    rmSync(home, { recursive: true })
  }
  return { inputs: count, accepted, reasons: reasons.size, seconds, slowest, peak: mebibytes(peak) }
}

/** One line of figures. */
export const showFigures = (name: string, { inputs, accepted, reasons, seconds, slowest, peak }: Figures): string =>
  `${name.padEnd(12)} ${String(inputs).padStart(7)} inputs  ${String(accepted).padStart(6)} read  ` +
  `${String(reasons).padStart(4)} reasons  ${seconds.toFixed(1).padStart(6)} s  slowest ${slowest.toFixed(0)} ms  ` +
  `peak ${peak.toFixed(0)} MiB`
