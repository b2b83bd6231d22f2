import type { Exchange } from '#dist/kernels/exchange.js'

/** Ranks of one process, whose programs run at the same time: what each of them passes to the others. */
export function localRanks(size: number): Exchange[] {
  const waiting: { readonly given: Float32Array[][]; readonly go: ((all: Float32Array[][]) => void)[] }[] = []
  const meet = (rank: number, turn: number, values: readonly Float32Array[]): Promise<Float32Array[][]> =>
    new Promise((resolve) => {
      waiting[turn] ??= { given: [], go: [] }
      const meeting = waiting[turn]
      meeting.given[rank] = values.map((value) => value.slice())
      if (meeting.go.push(resolve) === size) for (const go of meeting.go) go(meeting.given)
    })
  return Array.from({ length: size }, (_, rank) => {
    let turn = 0
    return {
      size,
      async sum(values, divisor) {
        const all = await meet(rank, turn++, values)
        return values.map(({ length }, i) =>
          Float32Array.from(
            { length },
            (_, k) => all.reduce((sum, given) => sum + (given[i]?.[k] ?? NaN), 0) / divisor,
          ),
        )
      },
      async gather(values) {
        const all = await meet(rank, turn++, [values])
        return Float32Array.from(all.flatMap(([given = new Float32Array()]) => [...given]))
      },
    }
  })
}
