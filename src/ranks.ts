import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { findAdapters } from './engine/node.js'
import { describeRank, type ProcessGroup, singleProcess } from './train/distributed/group.js'
import { launchOf } from './train/distributed/launcher.js'
import { MpiGroup } from './train/distributed/mpi-group.js'
import { Supervisor } from './train/distributed/supervisor.js'
import { UserError } from './train/error.js'
import { endingOf, exitCodes, OtherRankError } from './train/run/exit-codes.js'

/** Milliseconds that other ranks wait before they say what may have happened on all of them: rank 0 says it. */
const sayingAfter = 1500

/** The processes that `mpirun` started together, from the view of one of them. */
export class Ranks {
  private supervisor: Supervisor | undefined
  private isEnding = false

  private constructor(readonly group: ProcessGroup) {}

  /** Meets the other ranks, where there are any. */
  static async open(): Promise<Ranks> {
    const launch = launchOf()
    if (!launch || launch.size === 1) return new Ranks(singleProcess())
    const group = await MpiGroup.open(launch)
    shareCores(group.localSize)
    const ranks = new Ranks(group)
    ranks.supervisor = await Supervisor.start(group, (what) => ranks.end(what))
    return ranks
  }

  /** What to do when a run ends because a rank is lost, in words; set it once that is known. */
  remedy: () => string = () => ''

  /** For a signal that may be the end of another rank, and not the user's wish: then this process ends, too. */
  endWithOthers(): boolean {
    const end = this.supervisor?.endOfOthers
    if (end?.kind === 'died') this.end(end.what)
    else if (end) process.exit(exitCodes.rankLost[0])
    return end !== undefined
  }

  /** Runs `main`; where it throws on one of several ranks, one line says why, and all of them end. */
  async run(main: () => Promise<void>): Promise<void> {
    const { group, supervisor } = this
    if (!supervisor) {
      await main()
      return
    }
    try {
      await main()
    } catch (error) {
      const [code] = exitCodes[endingOf(error)]
      if (error instanceof OtherRankError) await waitToBeEnded(code)
      if (group.rank > 0) await sleep(sayingAfter)
      supervisor.announceFailure()
      const what = error instanceof Error ? (endingOf(error) === 'fault' ? error.stack : error.message) : String(error)
      await said(`error: ${describeRank(group, group.rank)}: ${what}\n`)
      group.abort(code)
    }
    supervisor.stop()
    await group.close()
  }

  private end(what: string): void {
    if (this.isEnding) return
    this.isEnding = true
    this.supervisor?.announceFailure()
    void said(`error: ${what}${this.remedy()}\n`).then(() => this.group.abort(exitCodes.rankLost[0]))
  }
}

const said = (line: string): Promise<void> => new Promise((resolve) => process.stderr.write(line, () => resolve()))

/** Another rank says why all of them end, and ends this one. */
async function waitToBeEnded(code: number): Promise<void> {
  await sleep(30_000)
  process.exit(code)
}

/** Software drivers compute on all cores, which the ranks of a machine share. Before the driver is loaded. */
function shareCores(processes: number): void {
  if (processes > 1) process.env.LP_NUM_THREADS ??= String(Math.max(1, Math.floor(availableParallelism() / processes)))
}

/**
 * The adapter of a rank: of names, or numbers from 0 in the order in which `doctor` lists adapters, with commas between,
 * those of the ranks of a machine, which begin again where there are more ranks.
 */
export async function gpuOf(list: string | undefined, { localRank }: ProcessGroup): Promise<string | undefined> {
  const names = list?.split(',').map((name) => name.trim())
  const own = names?.[localRank % names.length]
  if (own === undefined || !/^\d+$/.test(own)) return own
  const adapters = await findAdapters()
  const chosen = adapters[Number(own)]
  if (!chosen) throw new UserError(`--gpu ${own}: there are ${adapters.length} adapters, numbered from 0; see doctor`)
  return chosen.summary.device
}

/** `batch_size` of each rank, for so many labeled images in a step of all of them. */
export function batchOfRank(total: number, { size }: ProcessGroup): number {
  if (Number.isInteger(total / size)) return total / size
  throw new UserError(`--global-batch ${total} is no multiple of the ${size} ranks`)
}
