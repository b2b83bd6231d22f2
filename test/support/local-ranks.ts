import type { ProcessGroup } from '#dist/train/distributed/group.js'

/** One call of all ranks: what they gave, and who waits for it. */
interface Meeting {
  readonly given: unknown[]
  readonly go: ((all: unknown[]) => void)[]
}

/** A group whose ranks are all in this process, where they run at the same time. */
export function localRanks(size: number): ProcessGroup[] {
  const meetings: Meeting[] = []
  const meet = <T>(rank: number, turn: number, value: T): Promise<T[]> =>
    new Promise((resolve) => {
      meetings[turn] ??= { given: [], go: [] }
      const { given, go } = meetings[turn]
      given[rank] = value
      if (go.push(resolve as (all: unknown[]) => void) === size) for (const each of go) each(given)
    })
  return Array.from({ length: size }, (_, rank): ProcessGroup => {
    let turn = 0
    return {
      size,
      rank,
      localRank: rank,
      localSize: size,
      hosts: Array(size).fill('here'),
      async sum(values, divisor) {
        const copies = values.map((value) => value.slice())
        const all = await meet(rank, turn++, copies)
        return copies.map(({ length }, i) =>
          Float32Array.from(
            { length },
            (_, k) => all.reduce((sum, given) => sum + (given[i]?.[k] ?? Number.NaN), 0) / divisor,
          ),
        )
      },
      async gather(values) {
        const all = await meet(rank, turn++, values.slice())
        return Float32Array.from(all.flatMap((given) => [...given]))
      },
      async gatherValues(value) {
        const all = await meet(rank, turn++, JSON.stringify(value ?? null))
        return all.map((text) => JSON.parse(text))
      },
      async broadcast(values) {
        const [first] = await meet(rank, turn++, rank === 0 ? values.slice() : undefined)
        if (first) values.set(first)
      },
      abort: () => {
        throw new Error(`rank ${rank} ends all others`)
      },
      close: async () => {
        await meet(rank, turn++, undefined)
      },
    }
  })
}
