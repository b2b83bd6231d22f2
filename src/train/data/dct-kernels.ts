// What is done to every pixel of an enlarged image before its transform, in WebAssembly: eight or sixteen at a time.

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
  splat,
  v128,
} from '../io/wasm.js'

const eightBytes = v128.store64Lane(0)

/** Pairs of the 16-bit integers of two vectors, of their lower and of their upper halves. */
const pairs = [0, 8].map((first) =>
  i8x16.shuffle([0, 1, 2, 3].flatMap((k) => [0, 1, 16, 17].map((byte) => first + 2 * k + byte))),
)

const widenRow = functionOf(['from', 'near', 'far', 'end'], ({ from, near, far, end }, further) => {
  const [center, before, after] = [further.v128(), further.v128(), further.v128()]
  const sums = [further.v128(), further.v128()]
  const triple = (value: Code) => i16x8.add(value, i16x8.add(value, value))
  const stored = sums.flatMap((sum, half) => {
    const at = (address: Local) => i32.add(address.get, i32.const(16 * half))
    return [
      v128.store(at(near), i16x8.shrU(triple(sum.get), i32.const(2))),
      v128.store(at(far), i16x8.shrU(sum.get, i32.const(2))),
    ]
  })
  const widenEight = [
    center.set(triple(v128.load8x8U(from.get))),
    before.set(i16x8.add(center.get, v128.load8x8U(i32.sub(from.get, i32.const(1))))),
    after.set(i16x8.add(center.get, v128.load8x8U(i32.add(from.get, i32.const(1))))),
    ...sums.map((sum, half) => sum.set((pairs[half] as (typeof pairs)[number])(before.get, after.get))),
    ...stored,
    increase(from, i32.const(8)),
    increase(near, i32.const(32)),
    increase(far, i32.const(32)),
  ]
  return [doWhile(widenEight, i32.ltU(from.get, end.get))]
})

const blendRows = functionOf(['near', 'far', 'to', 'end'], ({ near, far, to, end }) => {
  const eight = (half: number): Code => {
    const load = (address: Local) => v128.load(i32.add(address.get, i32.const(16 * half)))
    return i16x8.shrU(i16x8.add(i16x8.add(load(near), load(far)), splat.i16x8(2)), i32.const(2))
  }
  const blendSixteen = [
    v128.store(to.get, i8x16.narrowI16x8U(eight(0), eight(1))),
    increase(near, i32.const(32)),
    increase(far, i32.const(32)),
    increase(to, i32.const(16)),
  ]
  return [doWhile(blendSixteen, i32.ltU(to.get, end.get))]
})

/** Eight bytes of four sums each, behind 16 bits. */
const upperHalves = (low: Code, high: Code): Code => {
  const sixteen = i16x8.narrowI32x4S(i32x4.shrS(low, i32.const(16)), i32x4.shrS(high, i32.const(16)))
  return i8x16.narrowI16x8U(sixteen, sixteen)
}

/** Weights of two channels, and the channels as pairs. */
const weighed = (half: number, a: Local, b: Local, weightA: number, weightB: number): Code =>
  i32x4.dotI16x8S((pairs[half] as (typeof pairs)[number])(a.get, b.get), splat.i16x8(weightA, weightB))

const lumaOfRow = functionOf(['red', 'green', 'blue', 'to', 'end'], ({ red, green, blue, to, end }, further) => {
  const [r, g, b] = [further.v128(), further.v128(), further.v128()]
  // 38470 does not fit into 16 bits with a sign: half of it twice.
  const four = (half: number) =>
    i32x4.add(i32x4.add(weighed(half, r, g, 19595, 19235), weighed(half, g, b, 19235, 7471)), splat.i32x4(32768))
  const eight = [
    r.set(v128.load8x8U(red.get)),
    g.set(v128.load8x8U(green.get)),
    b.set(v128.load8x8U(blue.get)),
    eightBytes(to.get, upperHalves(four(0), four(1))),
    ...[red, green, blue, to].map((address) => increase(address, i32.const(8))),
  ]
  return [doWhile(eight, i32.ltU(to.get, end.get))]
})

/** (128 + 1/2) * 2^16, less one: JPEG rounds halves of chroma down. */
const chromaOffset = 8421375

const chromaOfRow = functionOf(
  ['red', 'green', 'blue', 'cb', 'cr', 'end'],
  ({ red, green, blue, cb, cr, end }, further) => {
    const [r, g, b] = [further.v128(), further.v128(), further.v128()]
    const extend = [i32x4.extendLowI16x8U, i32x4.extendHighI16x8U] as const
    // 32768 times a channel is a shift.
    const four = (half: 0 | 1, main: Local, products: Code) =>
      i32x4.add(i32x4.add(products, i32x4.shl(extend[half](main.get), i32.const(15))), splat.i32x4(chromaOffset))
    const blueness = (half: 0 | 1) => four(half, b, weighed(half, r, g, -11059, -21709))
    const redness = (half: 0 | 1) => four(half, r, weighed(half, g, b, -27439, -5329))
    const eight = [
      r.set(v128.load8x8U(red.get)),
      g.set(v128.load8x8U(green.get)),
      b.set(v128.load8x8U(blue.get)),
      eightBytes(cb.get, upperHalves(blueness(0), blueness(1))),
      eightBytes(cr.get, upperHalves(redness(0), redness(1))),
      ...[red, green, blue, cb, cr].map((address) => increase(address, i32.const(8))),
    ]
    return [doWhile(eight, i32.ltU(cb.get, end.get))]
  },
)

const halveRows = functionOf(['above', 'below', 'to', 'end'], ({ above, below, to, end }, further) => {
  const means = further.v128()
  const sum = i16x8.add(
    i16x8.extaddPairwiseI8x16U(v128.load(above.get)),
    i16x8.extaddPairwiseI8x16U(v128.load(below.get)),
  )
  const eight = [
    means.set(i16x8.shrU(i16x8.add(sum, splat.i16x8(1, 2)), i32.const(2))),
    eightBytes(to.get, i8x16.narrowI16x8U(means.get, means.get)),
    increase(above, i32.const(16)),
    increase(below, i32.const(16)),
    increase(to, i32.const(8)),
  ]
  return [doWhile(eight, i32.ltU(to.get, end.get))]
})

const { call, memory } = compileModule({ widenRow, blendRows, lumaOfRow, chromaOfRow, halveRows })

/** The memory of rows. Kernels write up to 32 bytes behind the end of what they make. */
export const rowMemory = memory

/**
 * A row of one channel at twice its width, as the row below or above weighs it when the height is doubled: 16-bit integers
 * `near`, as what lies nearer, and `far`, which `blend` adds. They are cut off before, as libjpeg and OpenCV do.
 * @param from address of bytes, of which one before and one behind the row are also read
 */
export const widen = (from: number, near: number, far: number, pixels: number): void =>
  call.widenRow(from, near, far, from + pixels)

/** The bytes of a row of an image of twice the height: (near + far + 2) / 4, rounded down. */
export const blend = (near: number, far: number, to: number, pixels: number): void =>
  call.blendRows(near, far, to, to + pixels)

type ChannelRows = readonly [red: number, green: number, blue: number]

/** Luma of a row as JPEG has it. */
export const lumaOf = ([red, green, blue]: ChannelRows, to: number, pixels: number): void =>
  call.lumaOfRow(red, green, blue, to, to + pixels)

/** Both differences of colour of a row as JPEG has them. */
export const chromaOf = ([red, green, blue]: ChannelRows, cb: number, cr: number, pixels: number): void =>
  call.chromaOfRow(red, green, blue, cb, cr, cb + pixels)

/** `pixels` means of 2x2 bytes of two rows, rounded down and up in turn. */
export const halve = (above: number, below: number, to: number, pixels: number): void =>
  call.halveRows(above, below, to, to + pixels)
