const stateSize = 624
const shift = 397

/** MT19937 (Matsumoto and Nishimura, 1998) from `init_genrand(seed)`: words of 32 bits. */
function* mersenneTwister(seed: number): Generator<number, never> {
  const state = new Uint32Array(stateSize)
  state[0] = seed >>> 0
  for (let i = 1; i < stateSize; i++) {
    const before = state[i - 1] as number
    state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i
  }
  for (;;) {
    for (let i = 0; i < stateSize; i++) {
      const next = state[(i + 1) % stateSize] as number
      const mixed = ((state[i] as number) & 0x80000000) | (next & 0x7fffffff)
      state[i] = (state[(i + shift) % stateSize] as number) ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0)
    }
    for (let word of state) {
      word ^= word >>> 11
      word ^= (word << 7) & 0x9d2c5680
      word ^= (word << 15) & 0xefc60000
      word ^= word >>> 18
      yield word >>> 0
    }
  }
}

/** `torch.randperm(length)` by a generator on the CPU that was seeded with `seed`, of up to 2^32 - 1. */
export function torchPermutation(length: number, seed: number): Uint32Array {
  const order = Uint32Array.from({ length }, (_, i) => i)
  const words = mersenneTwister(seed)
  for (let i = 0; i < length - 1; i++) {
    const other = i + (words.next().value % (length - i))
    const swapped = order[i] as number
    order[i] = order[other] as number
    order[other] = swapped
  }
  return order
}
