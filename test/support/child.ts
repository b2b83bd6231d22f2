import { spawn } from 'node:child_process'
import { join } from 'node:path'

/** A command of dist/ that runs beside the test. */
export interface Child {
  readonly pid: number
  /** What it has printed so far, on both streams. */
  readonly output: () => string
  /** Resolves when `pattern` appears in the output; throws if the command ends before. */
  readonly until: (pattern: RegExp) => Promise<void>
  readonly signal: (name: NodeJS.Signals) => void
  /** Its exit code, null where a signal ended it. */
  readonly ended: Promise<number | null>
}

/**
 * Starts a command.
 * @param faults modules of build/test/support/faults, with parameters, that are loaded before it and make something fail
 */
export function start(script: string, args: readonly string[], faults: readonly string[] = []): Child {
  const imports = faults.flatMap((fault) => ['--import', new URL(`./faults/${fault}`, import.meta.url).href])
  const child = spawn(process.execPath, [...imports, join('dist', script), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  const waiting = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      for (const look of waiting) look()
    })
  }
  let over = false
  const ended = new Promise<number | null>((resolve) => {
    child.on('close', (code) => {
      over = true
      for (const look of waiting) look()
      resolve(code)
    })
  })
  const until = (pattern: RegExp) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        const found = pattern.test(output)
        if (!found && !over) return
        waiting.delete(look)
        if (found) resolve()
        else reject(new Error(`ended without ${pattern}:\n${output}`))
      }
      waiting.add(look)
      look()
    })
  return { pid: child.pid ?? 0, output: () => output, until, signal: (name) => child.kill(name), ended }
}
