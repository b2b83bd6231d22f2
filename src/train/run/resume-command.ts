import { RunError } from './exit-codes.js'

/** Options of train.js that a resumed run does not take, and whether a value follows them. */
const dropped: ReadonlyMap<string, boolean> = new Map([
  ['--resume', true],
  ['--save-path', true],
  ['--overwrite', false],
  ['--profile', true],
  ['--profile-steps', true],
])

/** The command that resumes from a checkpoint of a run that was started with `args`. */
export function resumeCommand(args: readonly string[], checkpoint: string): string {
  const kept = args.filter((arg, i) => {
    const [name = ''] = arg.split('=', 1)
    return !dropped.has(name) && !dropped.get(args[i - 1] ?? '')
  })
  return commandOf([...kept, '--resume', checkpoint])
}

/**
 * The error of a run that cannot go on, with the command that resumes it, or that finds the operator which gave NaN.
 * @param args of the run
 * @param traced whether the operator was looked for
 */
export function withCommand({ ending, checkpoint, message }: RunError, args: readonly string[], traced: boolean) {
  const told = (more: string) => new RunError(ending, `${message}; ${more}`, { checkpoint })
  const goesOn = checkpoint === undefined ? undefined : resumeCommand(args, checkpoint)
  if (ending !== 'nonFinite') return told(`to ${goesOn ? 'resume' : 'begin again'}: ${goesOn ?? restartCommand(args)}`)
  // Going on would repeat the very same steps.
  const remedy = 'a new run with a lower lr may stay finite'
  return told(traced ? remedy : `${remedy}; to find the operator: ${goesOn ?? restartCommand(args)} --trace-nan`)
}

const restartCommand = (args: readonly string[]): string =>
  commandOf([...args.filter((arg) => arg !== '--overwrite'), '--overwrite'])

/** A command line that a shell takes apart as it was. */
function commandOf(args: readonly string[]): string {
  const quoted = (arg: string) => (/^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", `'\\''`)}'`)
  return ['node', 'dist/train.js', ...args.map(quoted)].join(' ')
}
