/**
 * Random numbers and noise for the scenes. Only integer arithmetic and the IEEE operations + - * / are used, so that a
 * seed gives the same bits in every JavaScript engine; Math.sin and its like may differ there in the last bits.
 */

/** Mixes three integers to an unsigned 32-bit hash (xor-shift-multiply rounds, constants of the "lowbias32" hash). */
export function hash(a: number, b: number, c: number): number {
  let h = (Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca77) ^ Math.imul(c, 0xc2b2ae3d)) | 0
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d)
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b)
  return (h ^ (h >>> 16)) >>> 0
}

/** A stream of random numbers, counter based: draw k of the stream is a hash of (seed, stream, k). */
export class Random {
  private readonly key: number
  private counter = 0

  constructor(seed: number, stream: number) {
    this.key = hash(seed | 0, stream | 0, 0x5bd1e995)
  }

  /** An unsigned 32-bit integer. */
  bits(): number {
    this.counter += 1
    return hash(this.key, this.counter, 0x27d4eb2f)
  }

  /** Uniform in [low, high). */
  uniform(low = 0, high = 1): number {
    return low + ((high - low) * this.bits()) / 4294967296
  }

  /** Uniform integer in [low, high], both included. */
  integer(low: number, high: number): number {
    return Math.floor(this.uniform(low, high + 1))
  }

  chance(probability: number): boolean {
    return this.uniform() < probability
  }

  pick<T>(items: readonly [T, ...T[]]): T {
    return items[Math.floor(this.uniform(0, items.length))] ?? items[0]
  }
}

const lattice = Float64Array.from({ length: 65536 }, (_, i) => hash(i, 0, 0x165667b1) / 4294967296)

/** Value noise in [0, 1] with a lattice of 1 unit. */
export function noise(x: number, y: number, seed: number): number {
  const x0 = Math.floor(x)
  const y0 = Math.floor(y)
  const fx = x - x0
  const fy = y - y0
  const u = fx * fx * (3 - 2 * fx)
  const v = fy * fy * (3 - 2 * fy)
  const at = (Math.imul(x0, 0x9e3779b1) + Math.imul(y0, 0x85ebca77) + Math.imul(seed, 0xc2b2ae3d)) | 0
  const top = corner(at) * (1 - u) + corner(at + 0x9e3779b1) * u
  const bottom = corner(at + 0x85ebca77) * (1 - u) + corner(at + 0x9e3779b1 + 0x85ebca77) * u
  return top * (1 - v) + bottom * v
}

function corner(at: number): number {
  return lattice[(at | 0) >>> 16] ?? 0
}

/** Two octaves of value noise, in [0, 1]. */
export function noise2(x: number, y: number, seed: number): number {
  return noise(x, y, seed) * 0.65 + noise(x * 2.3 + 7.1, y * 2.3 + 3.7, seed + 1) * 0.35
}

/** A sine-like wave of period 1 in [-1, 1], made of parabolas. */
export function wave(t: number): number {
  const f = t - Math.floor(t)
  return f < 0.5 ? 16 * f * (0.5 - f) : -16 * (f - 0.5) * (1 - f)
}
