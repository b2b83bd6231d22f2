import { RunError } from './exit-codes.js'

/** Options of train.js that a resumed run does not take, and whether a value follows them. */
const dropped: ReadonlyMap<string, boolean> = new Map([
  ['--resume', true],
  ['--save-path', true],
  ['--overwrite', false],
  ['--profile', true],
  ['--profile-steps', true],
  ['--skip-iterations', true],
])

/** How a run was started. */
export interface Start {
  /** What stands before the options, quoted for a shell, such as `node dist/train.js`. */
  readonly command: string
  readonly args: readonly string[]
}

/** The command that resumes from a checkpoint of a run. */
export function resumeCommand({ command, args }: Start, checkpoint: string): string {
  const kept = args.filter((arg, i) => {
    const [name = ''] = arg.split('=', 1)
    return !dropped.has(name) && !dropped.get(args[i - 1] ?? '')
  })
  return commandOf(command, [...kept, '--resume', checkpoint])
}

/**
 * The error of a run that cannot go on, with the command that resumes it, or that finds the operator which gave NaN.
 * @param start of the run
 * @param lr its learning rate
 * @param traced whether the operator was looked for
 */
export function withCommand({ ending, checkpoint, message }: RunError, start: Start, lr: number, traced: boolean) {
  const told = (more: string) => new RunError(ending, `${message}; ${more}`, { checkpoint })
  const goesOn = checkpoint === undefined ? undefined : resumeCommand(start, checkpoint)
  if (ending !== 'nonFinite') return told(`to ${goesOn ? 'resume' : 'begin again'}: ${goesOn ?? restartCommand(start)}`)
  // Resuming as it was would repeat the very same steps.
  const again = `${goesOn ?? restartCommand(start)} --set lr=${lr / 2}`
  const remedy = `a lower lr may stay finite: ${again}`
  return told(traced ? remedy : `${remedy}; to find the operator: ${goesOn ?? restartCommand(start)} --trace-nan`)
}

const restartCommand = ({ command, args }: Start): string =>
  commandOf(command, [...args.filter((arg) => arg !== '--overwrite'), '--overwrite'])

/** An argument as a POSIX shell takes it for itself: blanks, quotes and patterns are no longer special. */
export const quotedArgument = (arg: string): string =>
  /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", `'\\''`)}'`

const commandOf = (command: string, args: readonly string[]): string => [command, ...args.map(quotedArgument)].join(' ')
