// What resizing and blurring do to bytes, in WebAssembly: JavaScript has no instructions for many bytes at a time.

import {
  type Code,
  compileModule,
  doWhile,
  functionOf,
  i8x16,
  i16x8,
  i32,
  i32x4,
  increase,
  type Local,
  v128,
} from '../io/wasm.js'

/** Takes 1 off, and is what is left. */
const countDown = (local: Local): Code => [...local.set(i32.sub(local.get, i32.const(1))), ...local.get]

const sumsOfBytes = functionOf(
  ['from', 'step', 'weights', 'taps', 'to', 'end', 'shift', 'half'],
  ({ from, step, weights, taps, to, end, shift, half }, further) => {
    const [at, weightAt, left] = [further.i32(), further.i32(), further.i32()]
    const [bytes, weight] = [further.v128(), further.v128()]
    const quarters = [i16x8.extendLowI8x16U(bytes.get), i16x8.extendHighI8x16U(bytes.get)].flatMap((eight) =>
      [i32x4.extendLowI16x8U(eight), i32x4.extendHighI16x8U(eight)].map((four) => ({ four, sum: further.v128() })),
    )
    const [a = [], b = [], c = [], d = []] = quarters.map(({ sum }) => i32x4.shrU(sum.get, shift.get))
    const addTap = [
      bytes.set(v128.load(at.get)),
      weight.set(v128.load32Splat(weightAt.get)),
      ...quarters.map(({ sum, four }) => sum.set(i32x4.add(sum.get, i32x4.mul(four, weight.get)))),
      increase(at, step.get),
      increase(weightAt, i32.const(4)),
    ]
    const sumBytes = [
      ...quarters.map(({ sum }) => sum.set(i32x4.splat(half.get))),
      at.set(from.get),
      weightAt.set(weights.get),
      left.set(taps.get),
      doWhile(addTap, countDown(left)),
      v128.store(to.get, i8x16.narrowI16x8U(i16x8.narrowI32x4U(a, b), i16x8.narrowI32x4U(c, d))),
      increase(from, i32.const(16)),
      increase(to, i32.const(16)),
    ]
    return [doWhile(sumBytes, i32.ltU(to.get, end.get))]
  },
)

const sumsOfPixels = functionOf(
  ['from', 'offsets', 'weights', 'taps', 'to', 'end', 'shift', 'half'],
  ({ from, offsets, weights, taps, to, end, shift, half }, further) => {
    const [at, left, sum] = [further.i32(), further.i32(), further.v128()]
    const pixel = i32x4.extendLowI16x8U(i16x8.extendLowI8x16U(v128.load32Zero(at.get)))
    const addTap = [
      sum.set(i32x4.add(sum.get, i32x4.mul(pixel, v128.load32Splat(weights.get)))),
      increase(at, i32.const(3)),
      increase(weights, i32.const(4)),
    ]
    const result = i32x4.shrU(sum.get, shift.get)
    const narrow = i16x8.narrowI32x4U(result, result)
    const sumPixel = [
      sum.set(i32x4.splat(half.get)),
      at.set(i32.add(from.get, i32.load(offsets.get))),
      left.set(taps.get),
      doWhile(addTap, countDown(left)),
      // The fourth byte belongs to the next pixel, which is stored after it.
      v128.store32Lane(0)(to.get, i8x16.narrowI16x8U(narrow, narrow)),
      increase(offsets, i32.const(4)),
      increase(to, i32.const(3)),
    ]
    return [doWhile(sumPixel, i32.ltU(to.get, end.get))]
  },
)

const bytesAtOffsets = functionOf(['from', 'offsets', 'to', 'end'], ({ from, offsets, to, end }) => {
  const pick = [
    i32.store8(to.get, i32.load8U(i32.add(from.get, i32.load(offsets.get)))),
    increase(offsets, i32.const(4)),
    increase(to, i32.const(1)),
  ]
  return [doWhile(pick, i32.ltU(to.get, end.get))]
})

const { call, memory } = compileModule({ sumsOfBytes, sumsOfPixels, bytesAtOffsets })

/** The memory of what is summed. */
export const sumMemory = memory

/**
 * Byte i of `to` becomes the sum of `weights` times the bytes i, i + step, i + 2 step, … of `from`, modulo 2^32, divided
 * by 2^bits, rounded. All but `step`, `taps`, `length` and `bits` are addresses; of weights as words.
 */
export function weightedBytes(
  from: number,
  step: number,
  weights: number,
  taps: number,
  to: number,
  length: number,
  bits: number,
): void {
  call.sumsOfBytes(from, step, weights, taps, to, to + length, bits, 1 << (bits - 1))
}

/**
 * RGB pixel i of `to` becomes the sum of weights [pixels, taps] times the pixels of `from` that begin at byte
 * `offsets[i]`, rounded as in `weightedBytes`.
 */
export function weightedPixels(
  from: number,
  offsets: number,
  weights: number,
  taps: number,
  to: number,
  pixels: number,
  bits: number,
): void {
  call.sumsOfPixels(from, offsets, weights, taps, to, to + 3 * pixels, bits, 1 << (bits - 1))
}

/** Byte i of `to` becomes byte `offsets[i]` of `from`. */
export function pickBytes(from: number, offsets: number, to: number, length: number): void {
  call.bytesAtOffsets(from, offsets, to, to + length)
}
