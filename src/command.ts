import { NoAdapterError } from './engine/node.js'
import { UserError } from './train/error.js'

/**
 * Runs a command. A mistake of the user's gives one line, anything else the error with its stack for a report; either
 * way the exit code is 1.
 */
export async function runCommand(main: () => Promise<void>): Promise<void> {
  try {
    await main()
  } catch (error) {
    const expected = error instanceof UserError || error instanceof NoAdapterError
    process.stderr.write(expected ? `error: ${error.message}\n` : `${describe(error)}\n`)
    process.exitCode = 1
  }
  // Threads and device objects that a failure left behind would keep the process alive.
  process.exit()
}

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))
