import { hostname } from 'node:os'
import type { ProcessGroup } from './group.js'
import type { Launch } from './launcher.js'
import { Mpi, type MpiRequest } from './mpi.js'
import { addInOrder, packedLength } from './sums.js'

/** Arrays of up to so many elements go to every rank as a whole: one round trip instead of two. */
const smallSum = 2 ** 13
/** Milliseconds of asking at once, then of asking at every turn of the event loop, before it sleeps between its turns. */
const eager = 0.05
const awake = 2
/** Milliseconds of a sleep. */
const pause = 0.1
const sleeper = new Int32Array(new SharedArrayBuffer(4))

/** What a group measures of its communication. */
export interface Traffic {
  /** That this rank gave to others. */
  bytes: number
  calls: number
  /** Milliseconds from the beginning of each call to its end, added up: calls may overlap. */
  milliseconds: number
}

/** A process group over MPI. */
export class MpiGroup implements ProcessGroup {
  readonly rank: number
  readonly size: number
  hosts: readonly string[] = []
  localRank = 0
  localSize = 1
  readonly traffic: Traffic = { bytes: 0, calls: 0, milliseconds: 0 }
  private turn: Promise<unknown> = Promise.resolve()

  private constructor(readonly mpi: Mpi) {
    this.rank = mpi.rank
    this.size = mpi.size
  }

  static async open(launch: Launch): Promise<MpiGroup> {
    const group = new MpiGroup(Mpi.open(launch))
    group.hosts = await group.gatherValues(hostname())
    const onThisHost = group.hosts.flatMap((host, rank) => (host === group.hosts[group.rank] ? [rank] : []))
    group.localRank = onThisHost.indexOf(group.rank)
    group.localSize = onThisHost.length
    return group
  }

  async sum(values: readonly Float32Array[], divisor: number): Promise<readonly Float32Array[]> {
    const total = values.reduce((sum, { length }) => sum + length, 0)
    const isSmall = total <= smallSum
    const packed = new Float32Array(isSmall ? total : packedLength(total, this.size))
    let at = 0
    for (const value of values) {
      packed.set(value, at)
      at += value.length
    }
    const summed = await (isSmall ? this.sumWhole(packed, divisor) : this.sumInTurn(packed, divisor))
    let end = 0
    return values.map(({ length }) => {
      end += length
      return summed.subarray(end - length, end)
    })
  }

  private async sumWhole(values: Float32Array, divisor: number): Promise<Float32Array> {
    return addInOrder(await this.gather(values), this.size, divisor)
  }

  /** Of two steps, so that one such sum follows the other: all ranks must take them in the same order. */
  private sumInTurn(values: Float32Array, divisor: number): Promise<Float32Array> {
    const sum = this.turn.then(() => this.sumParts(values, divisor))
    this.turn = sum.catch(() => {})
    return sum
  }

  /** Each rank adds up a part of the elements, in the order of the ranks, and gives all others its sums. */
  private async sumParts(values: Float32Array, divisor: number): Promise<Float32Array> {
    const { size, mpi } = this
    const bytes = ((size - 1) * values.byteLength) / size
    const parts = new Float32Array(values.length)
    await this.complete(mpi.exchangeParts(values, parts), bytes)
    await this.complete(mpi.allGather(addInOrder(parts, size, divisor), values, true), bytes)
    return values
  }

  async gather(values: Float32Array): Promise<Float32Array> {
    const all = new Float32Array(this.size * values.length)
    await this.complete(this.mpi.allGather(values, all), (this.size - 1) * values.byteLength)
    return all
  }

  async gatherValues<T>(value: T): Promise<T[]> {
    const text = Buffer.from(JSON.stringify(value ?? null))
    const lengths = await this.gather(Float32Array.of(text.length))
    const most = Math.max(...lengths)
    const [own, all] = [new Uint8Array(most), new Uint8Array(most * this.size)]
    own.set(text)
    await this.complete(this.mpi.allGather(own, all), (this.size - 1) * most)
    return Array.from(lengths, (length, rank) =>
      JSON.parse(Buffer.from(all.buffer, rank * most, length).toString('utf8')),
    )
  }

  async broadcast(values: Uint8Array): Promise<void> {
    await this.complete(this.mpi.broadcast(values), this.rank === 0 ? values.byteLength : 0)
  }

  abort(exitCode: number): never {
    this.mpi.abort(exitCode)
    process.exit(exitCode)
  }

  async close(): Promise<void> {
    await this.complete(this.mpi.barrier(), 0)
    this.mpi.finalize()
  }

  /** Waits for a call without keeping the event loop from turning. */
  private async complete(request: MpiRequest, bytes: number): Promise<void> {
    const began = performance.now()
    const waited = () => performance.now() - began
    while (!this.mpi.isDone(request)) {
      if (waited() < eager) continue
      await new Promise((resolve) => setImmediate(resolve))
      if (waited() > awake) Atomics.wait(sleeper, 0, 0, pause)
    }
    this.traffic.calls++
    this.traffic.bytes += bytes
    this.traffic.milliseconds += waited()
  }
}
