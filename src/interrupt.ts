import { exitCodes } from './train/run/exit-codes.js'

const endings = { SIGINT: 'interrupted', SIGTERM: 'terminated', SIGHUP: 'hungUp' } as const
/** The one that `mpirun` passes on without ending anything itself. */
const ofRanks = { ...endings, SIGUSR2: 'interrupted' } as const

/** How a training is asked to end early. */
export interface Interrupt {
  /** Aborted by the first signal; the second one ends the process at once. */
  readonly signal: AbortSignal
  /** Of the process that was interrupted. */
  readonly exitCode: number
}

/**
 * Listens for Ctrl-C, for termination, and for a terminal that is closed.
 * @param isOfOthers called first, where several ranks train together: whether the process ends because another one did
 */
export function listenForInterrupt(print: (line: string) => void, isOfOthers?: () => boolean): Interrupt {
  const controller = new AbortController()
  const { signal } = controller
  let ending: (typeof endings)[keyof typeof endings] = 'interrupted'
  for (const name of Object.keys(isOfOthers ? ofRanks : endings) as (keyof typeof ofRanks)[]) {
    process.on(name, () => {
      if (isOfOthers?.()) return
      ending = ofRanks[name]
      if (signal.aborted) process.exit(exitCodes[ending][0])
      print(`${name}: finishing the step and writing a checkpoint; once more to stop at once`)
      controller.abort()
    })
  }
  return {
    signal,
    get exitCode() {
      return exitCodes[ending][0]
    },
  }
}
