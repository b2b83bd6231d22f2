import type { ScheduleSection } from './optimizer-settings.js'

const usual: ScheduleSection = { power: 0.9, warmup_iterations: 0, warmup_ratio: 1e-6, set: 'after' }

/**
 * Learning rate of iteration `iteration` (from 0): polynomial decay, by default of power 0.9 and set after each step, so
 * that iterations 0 and 1 both use `base`; behind a linear warm-up, where there is one. At the end of the schedule it stays
 * as it is.
 *
 * @param iterations of the training
 */
export function learningRateAt(
  base: number,
  iteration: number,
  iterations: number,
  schedule: ScheduleSection = usual,
): number {
  const { power, warmup_iterations: warmup, warmup_ratio: ratio, iterations: length = iterations, set } = schedule
  const at = set === 'after' ? Math.max(0, iteration - 1) : iteration
  if (at < warmup) return base * (1 - (1 - at / warmup) * (1 - ratio))
  return base * (1 - Math.min(at, length - 1) / length) ** power
}
