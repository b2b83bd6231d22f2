/** Weight of the previous models' guidance in an epoch: rises linearly from 0 to 1 at half the training, then falls. */
export function lambdaAt(epoch: number, epochs: number): number {
  const middle = Math.floor(epochs / 2)
  return epoch < middle ? epoch / middle : 1 - (epoch - middle) / (epochs - middle)
}

/**
 * Learning rate of iteration `iteration` (from 0): polynomial decay of power 0.9 that is set after each step, so that
 * iterations 0 and 1 both use `base`.
 */
export function learningRateAt(base: number, iteration: number, iterations: number): number {
  return base * (1 - Math.max(0, iteration - 1) / iterations) ** 0.9
}
