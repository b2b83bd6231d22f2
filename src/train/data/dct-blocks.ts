// The transform of 8x8 blocks in WebAssembly: of four blocks beside each other at a time, a lane each.

import {
  type Code,
  compileModule,
  doWhile,
  f32x4,
  functionOf,
  i8x16,
  i32,
  i32x4,
  increase,
  type Local,
  splat,
  v128,
} from '../io/wasm.js'

/**
 * How many horizontal frequencies, from 0 on, are kept of each vertical frequency: those that an upper left corner of the
 * block of coefficients holds.
 */
export type Corner = readonly number[]

/** Coefficients in a corner. */
export const sizeOf = (corner: Corner): number => corner.reduce((sum, count) => sum + count, 0)

/** Eight rows [8, pitch] of luma and both chroma planes: blocks beside each other. */
export interface Band {
  readonly pitch: number
  readonly luma: Uint8Array
  readonly cb: Uint8Array
  readonly cr: Uint8Array
}

const { add, sub, shl, shrS } = i32x4
const times = (value: Local, factor: number): Code => i32x4.mul(value.get, splat.i32x4(factor))
const total = (first: Code, ...others: readonly Code[]): Code => others.reduce((sum, term) => add(sum, term), first)

/** Locals of a transform of eight values. */
interface Line {
  readonly values: readonly Local[]
  readonly sums: readonly Local[]
  readonly differences: readonly Local[]
  readonly evens: readonly Local[]
}

/** A sum of products with constants, shifted to the right; halves are rounded up. */
type Round = (value: Code) => Code
const rounded =
  (bits: number): Round =>
  (value) =>
    shrS(add(value, splat.i32x4(1 << (bits - 1))), i32.const(bits))

/** Sets the locals that the transform of eight values is made of. */
function prepare({ values, sums, differences, evens }: Line): Code[] {
  const value = (index: number): Code => values[index]?.get ?? []
  const [s0, s1, s2, s3] = sums as [Local, Local, Local, Local]
  const [e0, e1] = evens as [Local, Local]
  return [
    ...sums.map((sum, k) => sum.set(add(value(k), value(7 - k)))),
    ...differences.map((difference, k) => difference.set(sub(value(k), value(7 - k)))),
    e0.set(sub(s0.get, s3.get)),
    e1.set(sub(s1.get, s2.get)),
  ]
}

/** The frequencies of eight values, from 0 on. @param plain rounds those two that have no constants */
function frequencies({ sums, differences, evens }: Line, plain: Round, round: Round): Code[] {
  const [s0, s1, s2, s3] = sums as [Local, Local, Local, Local]
  const [e0, e1] = evens as [Local, Local]
  // Constants of libjpeg's integer transform, multiplied out: of 13 bits.
  const odd = (...factors: readonly number[]): Code => {
    const [first = [], ...others] = factors.map((factor, k) => times(differences[k] as Local, factor))
    return round(total(first, ...others))
  }
  return [
    plain(total(s0.get, s1.get, s2.get, s3.get)),
    odd(11363, 9633, 6437, 2260),
    round(add(times(e0, 10703), times(e1, 4433))),
    odd(9633, -2259, -11362, -6436),
    plain(add(sub(sub(s0.get, s1.get), s2.get), s3.get)),
    odd(6437, -11362, 2261, 9633),
    round(sub(times(e0, 4433), times(e1, 10704))),
    odd(2260, -6436, 9633, -11363),
  ]
}

const offset = (local: Local, bytes: number): Code => (bytes === 0 ? local.get : i32.add(local.get, i32.const(bytes)))

/** Lanes of the four 32-bit numbers of two vectors. */
const lanes = (...numbers: readonly number[]) =>
  i8x16.shuffle(numbers.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)))

/** Transforms a band: coefficients [blocks, count] in float32, those of luma, of Cb and of Cr. */
const transformOf = (corners: readonly [Corner, Corner, Corner], count: number) =>
  functionOf(
    ['luma', 'cb', 'cr', 'pitch', 'work', 'results', 'to', 'end'],
    ({ luma, cb, cr, pitch, work, results, to, end }, further) => {
      const locals = (length: number) => Array.from({ length }, () => further.v128())
      const line = { values: locals(8), sums: locals(4), differences: locals(4), evens: locals(2) }
      const [a, b, value] = [further.v128(), further.v128(), further.v128()]
      const [at, row] = [further.i32(), further.i32()]

      /** Along rows: results keep 2 bits behind the point. Samples are signed: 128 less. */
      const rows = (samples: Local, columns: number): Code[] => {
        const byte = (k: number) => i8x16.shuffle([0, 8, 16, 24].flatMap((block) => [block + k, 0, 0, 0]))
        const sample = (k: number) => sub(v128.and(byte(k)(a.get, b.get), splat.i32x4(255)), splat.i32x4(128))
        const transformed = frequencies(line, (sum) => shl(sum, i32.const(2)), rounded(11))
        return [
          at.set(samples.get),
          row.set(work.get),
          doWhile(
            [
              a.set(v128.load(at.get)),
              b.set(v128.load(offset(at, 16))),
              ...line.values.map((local, k) => local.set(sample(k))),
              ...prepare(line),
              ...transformed.slice(0, columns).map((code, u) => v128.store(offset(row, 16 * u), code)),
              increase(at, pitch.get),
              increase(row, i32.const(128)),
            ],
            i32.ltU(row.get, offset(work, 8 * 128)),
          ),
        ]
      }

      /** What was computed is eight times the coefficient; halves are rounded away from 0. */
      const quantized = (): Code => {
        const sign = shrS(value.get, i32.const(31))
        const size = shrS(add(i32x4.abs(value.get), splat.i32x4(4)), i32.const(3))
        return f32x4.convertI32x4S(sub(v128.xor(size, sign), sign))
      }

      /** Along columns, into the results from `first` on. */
      const columns = (corner: Corner, first: number): Code[] => {
        const places = corner.map((_, v) => first + sizeOf(corner.slice(0, v)))
        const transformed = frequencies(line, rounded(2), rounded(15))
        return Array.from({ length: Math.max(...corner) }, (_, u) => [
          ...line.values.map((local, y) => local.set(v128.load(offset(work, 128 * y + 16 * u)))),
          ...prepare(line),
          ...corner.flatMap((kept, v) =>
            u < kept
              ? [value.set(transformed[v] ?? []), v128.store(offset(results, 16 * ((places[v] ?? 0) + u)), quantized())]
              : [],
          ),
        ]).flat()
      }

      const planes = [luma, cb, cr].flatMap((samples, plane) => {
        const corner = corners[plane] ?? []
        const first = corners.slice(0, plane).reduce((sum, before) => sum + sizeOf(before), 0)
        return [...rows(samples, Math.max(...corner)), ...columns(corner, first)]
      })

      // From lanes of blocks to blocks, four coefficients at a time.
      const loaded = [0, 1, 2, 3].map((k) => v128.load(offset(at, 16 * k)))
      const quads = locals(4)
      const [q0, q1, q2, q3] = quads as [Local, Local, Local, Local]
      const [low, high] = [lanes(0, 4, 1, 5), lanes(2, 6, 3, 7)]
      const [firstHalves, secondHalves] = [lanes(0, 1, 4, 5), lanes(2, 3, 6, 7)]
      const [l0 = [], l1 = [], l2 = [], l3 = []] = loaded
      const regroup = [
        at.set(results.get),
        row.set(to.get),
        doWhile(
          [
            q0.set(low(l0, l1)),
            q1.set(low(l2, l3)),
            q2.set(high(l0, l1)),
            q3.set(high(l2, l3)),
            v128.store(row.get, firstHalves(q0.get, q1.get)),
            v128.store(offset(row, 4 * count), secondHalves(q0.get, q1.get)),
            v128.store(offset(row, 8 * count), firstHalves(q2.get, q3.get)),
            v128.store(offset(row, 12 * count), secondHalves(q2.get, q3.get)),
            increase(at, i32.const(64)),
            increase(row, i32.const(16)),
          ],
          i32.ltU(at.get, offset(results, 16 * count)),
        ),
      ]
      const next = [luma, cb, cr].map((samples) => increase(samples, i32.const(32)))
      const fourBlocks = [...planes, ...regroup, ...next, increase(to, i32.const(16 * count))]
      return [doWhile(fourBlocks, i32.ltU(luma.get, end.get))]
    },
  )

/** Transforms the blocks of a band into `out` from `to` on: [blocks, coefficients]. */
export type BlockTransform = (band: Band, out: Float32Array, to: number) => void

/**
 * The discrete cosine transform of 8x8 samples in the integers of JPEG at quality 100, where every step of the quantiser is
 * 1: with constants of 13 bits, first along rows, then along columns. Of each block it gives the coefficients of luma, of Cb
 * and of Cr, a multiple of 4 in all, by vertical frequency.
 */
export function blockTransform(luma: Corner, chroma: Corner): BlockTransform {
  const corners = [luma, chroma, chroma] as const
  const count = corners.reduce((sum, corner) => sum + sizeOf(corner), 0)
  if (count % 4 !== 0) throw new Error(`a block keeps ${count} coefficients, which is not a multiple of 4`)
  const { call, memory } = compileModule({ transform: transformOf(corners, count) })
  return ({ pitch, ...planes }, out, to) => {
    // Four blocks are transformed at a time, whether there are so many or not.
    const made = 4 * Math.ceil(pitch / 32) * count
    const samples = 8 * pitch + 32
    const at = memory.reserve({
      luma: samples,
      cb: samples,
      cr: samples,
      work: 1024,
      results: 16 * count,
      to: 4 * made,
    })
    for (const name of ['luma', 'cb', 'cr'] as const) memory.bytes(at[name], 8 * pitch).set(planes[name])
    call.transform(at.luma, at.cb, at.cr, pitch, at.work, at.results, at.to, at.luma + pitch)
    out.set(memory.floats(at.to, (pitch / 8) * count), to)
  }
}
