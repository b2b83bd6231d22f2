import type { ProcessGroup } from '../distributed/group.js'
import { describeRank } from '../distributed/group.js'
import { UserError } from '../error.js'
import { PURPOSE, Random } from '../random.js'
import { versions } from '../versions.js'
import { type Fingerprint, showChange } from './fingerprint.js'

/** What a rank computes by itself from the first one's, or receives from it. */
export async function fromFirst<T>(group: ProcessGroup, compute: () => T | Promise<T>): Promise<T> {
  const own = group.rank === 0 ? await compute() : undefined
  if (group.size === 1) return own as T
  const [first] = await group.gatherValues(own)
  return group.rank === 0 ? (own as T) : (first as T)
}

/** The seed of what a rank draws by itself: augmentation, dropout, choices of the method. That of rank 0 is the run's. */
export function seedOfRank(seed: number, rank: number): number {
  if (rank === 0) return seed
  const random = new Random(seed, rank, PURPOSE.ranks)
  return random.word() * 2 ** 20 + (random.word() >>> 12)
}

/**
 * Throws a UserError where the ranks would not train the same: where their settings, lists, versions or options differ.
 * @param options those that change what is computed
 */
export async function checkSame(
  group: ProcessGroup,
  fingerprint: Fingerprint,
  options: Readonly<Record<string, unknown>>,
): Promise<void> {
  if (group.size === 1) return
  const own = { ...fingerprint, ...options, versions: versions() }
  const [first = {}, ...others] = await group.gatherValues<Fingerprint>(own)
  for (const [i, other] of others.entries()) {
    const keys = [...new Set([...Object.keys(first), ...Object.keys(other)])]
    const differing = keys.filter((key) => JSON.stringify(first[key]) !== JSON.stringify(other[key]))
    if (differing.length === 0) continue
    const what = differing.map((key) => showChange(key, first, other)).join(', ')
    throw new UserError(
      `${describeRank(group, i + 1)} has ${what}, unlike rank 0: start all ranks with the same options, lists and versions`,
    )
  }
}

/** Throws a UserError where the steps of the ranks would not exchange the same in the same order. */
export async function checkSameCalls(group: ProcessGroup, calls: readonly string[]): Promise<void> {
  if (group.size === 1) return
  const [first = [], ...others] = await group.gatherValues(calls)
  for (const [i, other] of others.entries()) {
    const at = first.findIndex((call, k) => call !== other[k])
    if (at < 0 && first.length === other.length) continue
    const place = at < 0 ? first.length : at
    throw new UserError(
      `${describeRank(group, i + 1)} would exchange '${other[place] ?? 'nothing'}' where rank 0 exchanges ` +
        `'${first[place] ?? 'nothing'}': give all ranks adapters of one kind`,
    )
  }
}

/** What of a rank's step is not finite, in words. */
export interface NonFinite {
  readonly what: string
  /** Whether it is a loss or a metric, which only its own batch can have caused. */
  readonly loss: boolean
}

/** What is wrong with a step, and with whose. */
export interface Broken {
  readonly what: string
  /** Whether this rank is the one to say so. */
  readonly isOwn: boolean
}

/** What all ranks decide together, between two steps. */
export class Agreement {
  private agreed = false

  constructor(
    private readonly group: ProcessGroup,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** Whether the run stops here. */
  get stopped(): boolean {
    return this.group.size === 1 ? this.signal?.aborted === true : this.agreed
  }

  /**
   * Behind each step, and each validation.
   * @param broken what is wrong with this rank's step
   */
  async after(broken?: NonFinite): Promise<Broken | undefined> {
    const { group, signal } = this
    if (group.size === 1) return broken && { what: broken.what, isOwn: true }
    const severity = broken ? (broken.loss ? 2 : 1) : 0
    const all = await group.gather(Float32Array.of(signal?.aborted ? 1 : 0, severity))
    this.agreed ||= all.some((value, i) => i % 2 === 0 && value > 0)
    const severities = Array.from({ length: group.size }, (_, rank) => all[2 * rank + 1] ?? 0)
    const worst = Math.max(...severities)
    if (worst === 0) return undefined
    const culprit = severities.indexOf(worst)
    const whats = await group.gatherValues(broken?.what ?? '')
    return { what: whats[culprit] ?? '', isOwn: culprit === group.rank }
  }
}
