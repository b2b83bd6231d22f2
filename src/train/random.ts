/**
 * Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011): a block of four random words
 * is a pure function of a counter and a key, so any place of any stream can be computed without its predecessors.
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter
  let [k0, k1] = key
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0)
    const low0 = Math.imul(0xd2511f53, c0)
    const high1 = multiplyHigh(0xcd9e8d57, c2)
    const low1 = Math.imul(0xcd9e8d57, c2)
    c0 = high1 ^ c1 ^ k0
    c1 = low1
    c2 = high0 ^ c3 ^ k1
    c3 = low0
    k0 = (k0 + 0x9e3779b9) | 0
    k1 = (k1 + 0xbb67ae85) | 0
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0]
}

/** Upper 32 bits of the product of two unsigned 32-bit words. */
function multiplyHigh(a: number, b: number): number {
  const aHigh = a >>> 16
  const aLow = a & 0xffff
  const bHigh = b >>> 16
  const bLow = b & 0xffff
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16)
  const middleLow = (middle & 0xffff) + aLow * bHigh
  return aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(middleLow / 0x10000)
}

/** What random numbers are for: the second stream number of a generator `new Random(seed, epoch, purpose, item)`. */
export const PURPOSE = {
  labeledOrder: 0,
  unlabeledOrder: 1,
  mixOrder: 2,
  labeledSample: 3,
  unlabeledSample: 4,
  mixSample: 5,
  initialization: 6,
  dropout: 7,
  previousModels: 8,
  noise: 9,
  labelMixing: 10,
  strongView: 20,
  cutMixView: 21,
  classMix: 22,
  batchOrder: 30,
  ranks: 40,
} as const

/** Where a generator stands; as plain JSON, for checkpoints. */
export interface RandomState {
  seed: number
  stream: number[]
  /** 32-bit words drawn so far. */
  position: number
}

/**
 * Random numbers that depend on the seed, up to three stream numbers and the count of draws alone, for example
 * `new Random(seed, epoch, purpose, sample)`. Generators with different streams are independent.
 */
export class Random {
  private readonly key: readonly [number, number]
  private readonly stream: readonly number[]
  private position = 0
  private block: [number, number, number, number] = [0, 0, 0, 0]

  /**
   * @param seed integer of 0 to 2^53 - 1
   * @param stream at most three integers of 0 to 2^32 - 1
   */
  constructor(
    private readonly seed: number,
    ...stream: number[]
  ) {
    if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(`seed ${seed} is not an integer of 0 to 2^53 - 1`)
    if (stream.length > 3) throw new RangeError(`${stream.length} stream numbers, at most 3 are possible`)
    for (const part of stream) {
      if (part >>> 0 !== part) throw new RangeError(`stream number ${part} is not an integer of 0 to 2^32 - 1`)
    }
    this.key = [seed >>> 0, Math.floor(seed / 2 ** 32)]
    this.stream = stream
  }

  /** Continues where `state` was taken. */
  static from(state: RandomState): Random {
    const random = new Random(state.seed, ...state.stream)
    random.position = state.position
    if (random.position % 4 !== 0) random.fill()
    return random
  }

  get state(): RandomState {
    return { seed: this.seed, stream: [...this.stream], position: this.position }
  }

  /** Uniform integer of 0 to 2^32 - 1. */
  word(): number {
    if (this.position % 4 === 0) this.fill()
    return this.block[this.position++ % 4] as number
  }

  /** Uniform in [low, high), with 53 random bits. */
  uniform(low = 0, high = 1): number {
    const unit = ((this.word() >>> 5) * 2 ** 26 + (this.word() >>> 6)) / 2 ** 53
    return low + (high - low) * unit
  }

  /** Uniform integer of low to highExclusive - 1, without bias; the range is at most 2^32 wide. */
  integer(low: number, highExclusive: number): number {
    const range = highExclusive - low
    if (!Number.isSafeInteger(low) || !(range >= 1 && range <= 2 ** 32) || !Number.isInteger(range)) {
      throw new RangeError(`no integer to draw from ${low} up to ${highExclusive}`)
    }
    const limit = 2 ** 32 - (2 ** 32 % range)
    let word = this.word()
    while (word >= limit) word = this.word()
    return low + (word % range)
  }

  /** The numbers 0 to n - 1 in random order. */
  permutation(n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, i) => i)
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(0, i + 1)
      const swapped = order[i] as number
      order[i] = order[j] as number
      order[j] = swapped
    }
    return order
  }

  /** Standard normal (Box-Muller; always two uniform draws). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()))
    return radius * Math.cos(2 * Math.PI * this.uniform())
  }

  /** n weights that sum to 1, uniform on the simplex (Dirichlet with all parameters 1). */
  dirichlet(n: number): number[] {
    const draws = Array.from({ length: n }, () => -Math.log(1 - this.uniform()))
    const sum = draws.reduce((a, b) => a + b, 0)
    return draws.map((draw) => draw / sum)
  }

  /** Beta distribution of whole parameters: shares of sums of exponentials. */
  beta(a: number, b: number): number {
    const gamma = (n: number) => Array.from({ length: n }, () => -Math.log(1 - this.uniform())).reduce((x, y) => x + y)
    const [first, second] = [gamma(a), gamma(b)]
    return first / (first + second)
  }

  private fill(): void {
    const [a = 0, b = 0, c = 0] = this.stream
    this.block = philox4x32([Math.floor(this.position / 4) >>> 0, a, b, c], this.key)
  }
}
