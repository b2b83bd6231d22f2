/** A value that needs storage from the first command that touches it to the last. */
export interface Interval {
  readonly key: string
  readonly bytes: number
  readonly first: number
  readonly last: number
}

export interface Slots {
  /** Bytes of each slot. */
  readonly sizes: readonly number[]
  /** The slot of each value. */
  readonly of: ReadonlyMap<string, number>
}

const overlap = (a: Interval, b: Interval): boolean => a.first <= b.last && b.first <= a.last

/**
 * Interval colouring where colours have sizes: values that never live at the same time share a slot. The largest goes
 * first, into the smallest slot that is free while it lives, so that no slot ever has to grow.
 *
 * @param share false: every value has a slot of its own
 */
export function assignSlots(values: readonly Interval[], share: boolean): Slots {
  const slots: { readonly bytes: number; readonly values: Interval[] }[] = []
  const of = new Map<string, number>()
  for (const value of [...values].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    // Sizes fall from slot to slot, so the last one that is free is the smallest.
    let slot = share ? slots.findLastIndex((other) => !other.values.some((taken) => overlap(taken, value))) : -1
    if (slot < 0) slot = slots.push({ bytes: value.bytes, values: [] }) - 1
    slots[slot]?.values.push(value)
    of.set(value.key, slot)
  }
  return { sizes: slots.map(({ bytes }) => bytes), of }
}

/** The largest sum of the values that live at the same time: no plan can do with less. */
export function livePeak(values: readonly Interval[]): number {
  const changes = values.flatMap(({ bytes, first, last }) => [
    { at: first, bytes },
    { at: last + 1, bytes: -bytes },
  ])
  changes.sort((a, b) => a.at - b.at || a.bytes - b.bytes)
  let sum = 0
  let most = 0
  for (const { bytes } of changes) {
    sum += bytes
    most = Math.max(most, sum)
  }
  return most
}
