import { hostname } from 'node:os'
import type { Exchange } from '../../kernels/exchange.js'

/** The processes of a training, numbered by their ranks. Every call but `abort` is made by all of them, in one order. */
export interface ProcessGroup extends Exchange {
  readonly rank: number
  /** Place among the ranks of this machine, from 0, and their number. */
  readonly localRank: number
  readonly localSize: number
  /** Names of the machines, by rank. */
  readonly hosts: readonly string[]
  /** What every rank gives, by rank, as JSON keeps it. */
  gatherValues<T>(value: T): Promise<T[]>
  /** Gives all ranks the elements that rank 0 has. */
  broadcast(values: Uint8Array): Promise<void>
  /** Ends this process and all others. */
  abort(exitCode: number): never
  /** Ends the communication, when all ranks are done. */
  close(): Promise<void>
}

/** One process by itself. */
export const singleProcess = (): ProcessGroup => ({
  size: 1,
  rank: 0,
  localRank: 0,
  localSize: 1,
  hosts: [hostname()],
  sum: async (values, divisor) => values.map((value) => value.map((x) => x / divisor)),
  gather: async (values) => values.slice(),
  gatherValues: async (value) => [value],
  broadcast: async () => {},
  abort: (exitCode) => process.exit(exitCode),
  close: async () => {},
})

/** A rank as messages name it. */
export const describeRank = ({ hosts, size }: ProcessGroup, rank: number): string =>
  `rank ${rank} of ${size} (${hosts[rank] ?? 'unknown host'})`
