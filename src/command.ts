import { basename, delimiter, dirname, join, relative, resolve, sep } from 'node:path'
import { Command } from 'commander'
import { NoAdapterError } from './engine/error.js'
import { errorOutput } from './error-output.js'
import { endingOf, exitCodes } from './train/run/exit-codes.js'
import { quotedArgument } from './train/run/resume-command.js'

/**
 * What a user types before the options of a command: as this process was started, so that the line works again in the
 * same folder.
 */
export function startOf(
  name: string,
  script = process.argv[1] ?? '',
  folder = process.cwd(),
  searched = process.env.PATH ?? '',
): string {
  const near = isWithin(folder, script) ? relative(folder, script) : script
  const path = quotedArgument(near)
  const program = near.includes(sep) ? path : `.${sep}${path}`
  switch (basename(script)) {
    case 'atrous': {
      const bin = dirname(script)
      // While npx runs a command, its folder is on the search path; behind it no longer.
      if (bin.endsWith(join('node_modules', '.bin'))) {
        return isWithin(dirname(dirname(bin)), folder) ? `npx atrous ${name}` : `${program} ${name}`
      }
      return searched.split(delimiter).some((at) => resolve(at) === bin) ? `atrous ${name}` : `${program} ${name}`
    }
    case 'atrous.js':
      return `node ${path} ${name}`
    default:
      return `node ${path}`
  }
}

const isWithin = (folder: string, path: string): boolean => path === folder || path.startsWith(folder + sep)

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
