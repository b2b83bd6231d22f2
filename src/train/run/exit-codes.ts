import { BindingLimitError, DeviceLostError, OutOfMemoryError } from '../../engine/device.js'
import { AtrousError } from '../../engine/error.js'
import { ImageTooSmallError } from '../../models/segmentation.js'
import { UserError } from '../error.js'

/** How a command ends: exit code and meaning. The one table of all commands. */
export const exitCodes = {
  done: [0, 'done'],
  userError: [1, 'a mistake in the options, the configuration or the files: the line says which, and the remedy'],
  fault: [2, 'a fault of the program, such as an invalid kernel: please report what it printed'],
  deviceLost: [3, 'the GPU device was lost'],
  outOfMemory: [4, 'out of GPU memory'],
  nonFinite: [5, 'a loss, a gradient or a weight is no longer finite'],
  notSaved: [6, 'the results could not be saved'],
  hungUp: [129, 'stopped by SIGHUP (the terminal was closed)'],
  interrupted: [130, 'stopped by SIGINT (Ctrl-C)'],
  terminated: [143, 'stopped by SIGTERM'],
} as const satisfies Record<string, readonly [code: number, meaning: string]>

export type Ending = keyof typeof exitCodes

/** A run that ends early though nobody made a mistake. The message is one line for the user. */
export class RunError extends AtrousError {
  override name = 'RunError'
  /** From where the run can go on, if it has begun. */
  readonly checkpoint: string | undefined

  constructor(
    readonly ending: Exclude<Ending, 'done' | 'userError' | 'fault'>,
    message: string,
    { checkpoint, ...options }: ErrorOptions & { readonly checkpoint?: string | undefined } = {},
  ) {
    super(message, options)
    this.checkpoint = checkpoint
  }
}

/** What the system says of a file or folder, whose name its message has. */
const isOfSystem = (error: unknown): boolean => error instanceof Error && 'syscall' in error && 'path' in error

/** How a command ends that throws `error`. */
export function endingOf(error: unknown): Ending {
  if (error instanceof RunError) return error.ending
  if (error instanceof DeviceLostError) return 'deviceLost'
  if (error instanceof OutOfMemoryError) return 'outOfMemory'
  const isMistake = [UserError, BindingLimitError, ImageTooSmallError].some((kind) => error instanceof kind)
  return isMistake || isOfSystem(error) ? 'userError' : 'fault'
}

/** The error that ends a run, with where it can go on; mistakes of the user's and faults of the program as they are. */
export function withCheckpoint(error: unknown, checkpoint: string | undefined, lastGood: string): unknown {
  const ending = endingOf(error)
  if (ending === 'done' || ending === 'userError' || ending === 'fault' || !(error instanceof Error)) return error
  return new RunError(ending, `${error.message}; ${lastGood}`, { cause: error, checkpoint })
}

/** The table for `--help`. */
export const exitCodeHelp = `
Exit codes:
${Object.values(exitCodes)
  .map(([code, meaning]) => `  ${String(code).padStart(3)}  ${meaning}`)
  .join('\n')}`
