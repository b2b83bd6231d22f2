/**
 * Learning rate of iteration `iteration` (from 0): polynomial decay of power 0.9 that is set after each step, so that
 * iterations 0 and 1 both use `base`.
 */
export function learningRateAt(base: number, iteration: number, iterations: number): number {
  return base * (1 - Math.max(0, iteration - 1) / iterations) ** 0.9
}
