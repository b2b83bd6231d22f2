import { basename, dirname, relative } from 'node:path'
import { Command } from 'commander'
import { NoAdapterError } from './engine/node.js'
import { errorOutput } from './error-output.js'
import { endingOf, exitCodes } from './train/run/exit-codes.js'
import { quoted } from './train/run/resume-command.js'

/**
 * What a user types before the options of a command: as this process was started, so that the line works again in the
 * same folder.
 */
export function startOf(name: string, script = process.argv[1] ?? '', folder = process.cwd()): string {
  const file = basename(script)
  if (file === 'atrous') return basename(dirname(script)) === '.bin' ? `npx atrous ${name}` : `atrous ${name}`
  const near = relative(folder, script)
  const path = quoted(near.startsWith('..') ? script : near)
  return file === 'atrous.js' ? `node ${path} ${name}` : `node ${path}`
}

export interface Help {
  /** Options of a call each. */
  readonly examples: readonly string[]
  /** Paragraphs before and after the examples. */
  readonly notes?: string
  readonly end?: string
}

/** A command with examples in its help, whose complaints are one line each. */
export function createCommand(name: string, description: string, { examples, notes, end }: Help): Command {
  const start = startOf(name)
  const calls = examples.map((options) => `  ${`${start} ${options}`.trim()}`)
  const after = [notes, ['Examples:', ...calls].join('\n'), end].filter((part) => part !== undefined)
  return new Command(start)
    .description(description)
    .addHelpText('after', `\n${after.join('\n\n')}`)
    .configureOutput(errorOutput)
}

/**
 * Runs a command. What the user can act on gives one line, a fault of the program the error with its stack for a
 * report; the exit code is that of `exitCodes`.
 */
export async function runCommand(main: () => Promise<void>): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', onPrintError)
  try {
    await main()
  } catch (error) {
    const ending = error instanceof NoAdapterError ? 'userError' : endingOf(error)
    const expected = ending !== 'fault' && error instanceof Error
    process.stderr.write(expected ? `error: ${error.message}\n` : `${describe(error)}\n`)
    process.exitCode = exitCodes[ending][0]
  }
  await Promise.all([process.stdout, process.stderr].map(drained))
  // Threads and device objects that a failure left behind would keep the process alive.
  process.exit()
}

/** Where nobody reads what is printed, such as after Ctrl-C in `train | tee log` or in a terminal that was closed, the work
 * still has to end well. */
function onPrintError(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error
}

/** Waits until everything printed has left: a reader of a pipe may be slow. */
const drained = (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((resolve) => {
    stream.write('', () => resolve())
  })

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))
