// SHA-256 (FIPS 180-4), for where there is no synchronous one: pages.

const fraction = (root: number): number => Math.floor((root % 1) * 2 ** 32)

function firstPrimes(count: number): number[] {
  const primes: number[] = []
  for (let n = 2; primes.length < count; n++) if (primes.every((prime) => n % prime !== 0)) primes.push(n)
  return primes
}

const primes = firstPrimes(64)
/** Fractions of the cube roots of the primes, and of the square roots of the first eight. */
const constants = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)) | 0)
const initial = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)) | 0)

const blockBytes = 64

/** A digest of bytes that come in parts. */
class Sha256 {
  private readonly state = Int32Array.from(initial)
  private readonly words = new Int32Array(64)
  /** What does not fill a block yet. */
  private readonly rest = new Uint8Array(blockBytes)
  private restLength = 0
  private length = 0

  update(bytes: Uint8Array): void {
    this.length += bytes.length
    let at = 0
    if (this.restLength > 0) {
      at = Math.min(blockBytes - this.restLength, bytes.length)
      this.rest.set(bytes.subarray(0, at), this.restLength)
      this.restLength += at
      if (this.restLength < blockBytes) return
      this.block(new DataView(this.rest.buffer), 0)
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (; at + blockBytes <= bytes.length; at += blockBytes) this.block(view, at)
    this.rest.set(bytes.subarray(at))
    this.restLength = bytes.length - at
  }

  /** 64 hexadecimal digits. */
  digest(): string {
    const bits = this.length * 8
    // A one, zeros, and the number of bits in 8 bytes, up to the end of a block.
    const blocks = this.restLength + 9 > blockBytes ? 2 : 1
    const end = new Uint8Array(blocks * blockBytes - this.restLength)
    end[0] = 0x80
    const view = new DataView(end.buffer)
    view.setUint32(end.length - 8, Math.floor(bits / 2 ** 32))
    view.setUint32(end.length - 4, bits >>> 0)
    this.update(end)
    return [...this.state].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('')
  }

  private block(view: DataView, at: number): void {
    const { state, words: w } = this
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i)
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15] as number
      const b = w[i - 2] as number
      const small0 = ((a >>> 7) | (a << 25)) ^ ((a >>> 18) | (a << 14)) ^ (a >>> 3)
      const small1 = ((b >>> 17) | (b << 15)) ^ ((b >>> 19) | (b << 13)) ^ (b >>> 10)
      w[i] = (small0 + small1 + (w[i - 16] as number) + (w[i - 7] as number)) | 0
    }
    let a = state[0] as number
    let b = state[1] as number
    let c = state[2] as number
    let d = state[3] as number
    let e = state[4] as number
    let f = state[5] as number
    let g = state[6] as number
    let h = state[7] as number
    for (let i = 0; i < 64; i++) {
      const big1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))
      const first = (h + big1 + ((e & f) ^ (~e & g)) + (constants[i] as number) + (w[i] as number)) | 0
      const big0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))
      const second = (big0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
      h = g
      g = f
      f = e
      e = (d + first) | 0
      d = c
      c = b
      b = a
      a = (first + second) | 0
    }
    state[0] = (state[0] as number) + a
    state[1] = (state[1] as number) + b
    state[2] = (state[2] as number) + c
    state[3] = (state[3] as number) + d
    state[4] = (state[4] as number) + e
    state[5] = (state[5] as number) + f
    state[6] = (state[6] as number) + g
    state[7] = (state[7] as number) + h
  }
}

/** SHA-256 of bytes that lie one after another, as 64 hexadecimal digits. */
export function sha256(parts: Iterable<Uint8Array>): string {
  const hash = new Sha256()
  for (const part of parts) hash.update(part)
  return hash.digest()
}
