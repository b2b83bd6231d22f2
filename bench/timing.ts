import type { Device } from '#dist/engine/device.js'

/** How long something takes, over several measurements. */
export interface Timing {
  /** The median. */
  readonly milliseconds: number
  /** Milliseconds between the quartiles: how far measurements of the same thing lie apart. */
  readonly spread: number
}

/** The value below which a share of the list lies, interpolated between its neighbours. */
export function quantile(list: readonly number[], share: number): number {
  const sorted = [...list].sort((a, b) => a - b)
  const at = share * (sorted.length - 1)
  const [low = 0, high = low] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]]
  return low + (high - low) * (at - Math.floor(at))
}

export const median = (list: readonly number[]): number => quantile(list, 0.5)

export const timingOf = (times: readonly number[]): Timing => ({
  milliseconds: median(times),
  spread: quantile(times, 0.75) - quantile(times, 0.25),
})

/**
 * Milliseconds of one run, measured several times: each measurement submits as many runs as take a noticeable time and
 * waits once.
 */
export async function timesOf(device: Device, run: () => void): Promise<number[]> {
  const batch = async (runs: number): Promise<number> => {
    const started = performance.now()
    for (let k = 0; k < runs; k++) run()
    await device.idle()
    return (performance.now() - started) / runs
  }
  // The first use of a buffer zeroes it, and the first of a pipeline uploads it.
  await batch(1)
  const once = await batch(1)
  const runs = Math.max(1, Math.min(200, Math.ceil(40 / once)))
  const repeats = once > 1000 ? 3 : 9
  const times: number[] = []
  for (let k = 0; k < repeats; k++) times.push(await batch(runs))
  return times
}
