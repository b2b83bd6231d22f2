import { hostname } from 'node:os'
import { isGone, statOf } from '../processes.js'
import { describeRank } from './group.js'
import type { Mpi, MpiRequest } from './mpi.js'
import type { MpiGroup } from './mpi-group.js'

/** Milliseconds between two signs of life, and without one until a rank counts as lost. */
const interval = 1000
const patience = 40_000
/** Messages to a rank that are under way at most: one that is stopped takes none. */
const mostUnderWay = 8

const alive = 0
const failing = 1

/** What is known of another rank. */
interface Peer {
  readonly pid: number
  seen: number
  failing: boolean
  underWay: MpiRequest[]
}

/**
 * Notices when another rank dies or hangs: rank 0 hears from all others every second, and they from it. Messages are sent
 * by the main thread, whose event loop a rank that computes keeps turning.
 */
export class Supervisor {
  private readonly mpi: Mpi
  private readonly peers = new Map<number, Peer>()
  private readonly message = new Float32Array(2)
  private receiving: MpiRequest
  private readonly timer: NodeJS.Timeout
  private ticked = performance.now()

  private constructor(
    private readonly group: MpiGroup,
    pids: readonly number[],
    private readonly onLost: (what: string) => void,
  ) {
    this.mpi = group.mpi
    for (const [rank, pid] of pids.entries()) {
      if (rank !== group.rank) this.peers.set(rank, { pid, seen: performance.now(), failing: false, underWay: [] })
    }
    this.receiving = this.mpi.receive(this.message)
    this.timer = setInterval(() => this.tick(), interval)
    this.timer.unref()
  }

  /** @param onLost receives, in words, that another rank is lost: it has to end this process */
  static async start(group: MpiGroup, onLost: (what: string) => void): Promise<Supervisor> {
    return new Supervisor(group, await group.gatherValues(process.pid), onLost)
  }

  /** Tells the others that this rank ends all of them, and why is said by it. */
  announceFailure(): void {
    for (const rank of this.peers.keys()) this.send(rank, failing)
  }

  /** Why this process was asked to end, if that was not the user's wish. */
  get endOfOthers(): { readonly kind: 'told' } | { readonly kind: 'died'; readonly what: string } | undefined {
    this.receive()
    for (const [rank, peer] of this.peers) {
      if (peer.failing) return { kind: 'told' }
      if (this.group.hosts[rank] === hostname() && hasEnded(peer.pid)) return { kind: 'died', what: this.died(rank) }
    }
    return undefined
  }

  stop(): void {
    clearInterval(this.timer)
    this.mpi.cancel(this.receiving)
  }

  private tick(): void {
    const now = performance.now()
    // A process that was stopped itself has heard nobody meanwhile.
    if (now - this.ticked > 5 * interval) for (const peer of this.peers.values()) peer.seen = now
    this.ticked = now
    this.receive()
    for (const rank of this.peers.keys()) if (this.group.rank === 0 || rank === 0) this.send(rank, alive)
    for (const [rank, peer] of this.peers) {
      if (this.group.rank !== 0 && rank !== 0) continue
      // One rank is enough to say it: the others wait a little longer.
      const limit = patience + (this.group.rank === 0 ? 0 : 2000 * this.group.rank)
      if (now - peer.seen < limit || peer.failing) continue
      const { hosts } = this.group
      const isDead = hosts[rank] === hostname() && hasEnded(peer.pid)
      this.onLost(
        isDead ? this.died(rank) : `${describeRank(this.group, rank)} has not answered for ${patience / 1000} s`,
      )
      return
    }
  }

  private died(rank: number): string {
    return `${describeRank(this.group, rank)}, process ${this.peers.get(rank)?.pid}, has died`
  }

  private send(rank: number, kind: number): void {
    const peer = this.peers.get(rank)
    if (!peer) return
    peer.underWay = peer.underWay.filter((request) => !this.mpi.isDone(request))
    if (peer.underWay.length >= mostUnderWay) return
    peer.underWay.push(this.mpi.send(Float32Array.of(this.group.rank, kind), rank))
  }

  private receive(): void {
    while (this.mpi.isDone(this.receiving)) {
      const [rank = 0, kind] = this.message
      const peer = this.peers.get(rank)
      if (peer) {
        peer.seen = performance.now()
        peer.failing ||= kind === failing
      }
      this.receiving = this.mpi.receive(this.message)
    }
  }
}

/** Whether a process of this machine is gone, or waits for its parent to notice. */
function hasEnded(pid: number): boolean {
  try {
    return statOf(pid)[0] === 'Z'
  } catch {
    return isGone(pid)
  }
}
