import type { Device } from '../../engine/device.js'

/** `auto`: half precision on GPUs that have it; CPU drivers emulate it, slowly. */
export type Amp = boolean | 'auto'

/**
 * Whether to compute in half precision.
 * @param print told where it is asked for, but the adapter has none
 */
export function usesHalf(amp: Amp, { traits }: Device, print: (line: string) => void): boolean {
  if (amp === 'auto') return traits.half && !traits.software
  if (amp && !traits.half) print('amp: this adapter has no half precision (shader-f16), computing in float32')
  return amp && traits.half
}
