import { NoAdapterError } from './engine/node.js'
import { endingOf, exitCodes } from './train/run/exit-codes.js'

/**
 * Runs a command. What the user can act on gives one line, a fault of the program the error with its stack for a report;
 * the exit code is that of `exitCodes`.
 */
export async function runCommand(main: () => Promise<void>): Promise<void> {
  try {
    await main()
  } catch (error) {
    const ending = error instanceof NoAdapterError ? 'userError' : endingOf(error)
    const expected = ending !== 'fault' && error instanceof Error
    process.stderr.write(expected ? `error: ${error.message}\n` : `${describe(error)}\n`)
    process.exitCode = exitCodes[ending][0]
  }
  // Threads and device objects that a failure left behind would keep the process alive.
  process.exit()
}

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))
