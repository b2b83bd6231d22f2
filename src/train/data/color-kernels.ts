// Changes of colours in WebAssembly, four pixels at a time, in float32. Pillow has some float64 in between, which makes no
// difference for any colour: the tests go through all of them.

import {
  type Code,
  compileModule,
  doWhile,
  type FunctionCode,
  f32x4,
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

/** A channel of four pixels each, as 32-bit integers. */
type Channels = readonly [Code, Code, Code]

const mapped = ([a, b, c]: Channels, body: (channel: Code) => Code): Channels => [body(a), body(b), body(c)]

/** Puts a vector that is used more than once into a local of its own. */
type Keep = (value: Code) => Code

const PIXELS = [0, 1, 2, 3]
const NOTHING = 255

/** The channels of the first 12 bytes. */
const channelsOf = (pixels: Code, keep: Keep): Channels => {
  const channel = (c: number): Code =>
    keep(i8x16.swizzle(pixels, v128.const(PIXELS.flatMap((pixel) => [3 * pixel + c, NOTHING, NOTHING, NOTHING]))))
  return [channel(0), channel(1), channel(2)]
}

/** 12 bytes of channels, whose values are cut off to 0..255. */
const interleaved = ([a, b, c]: Channels): Code => {
  const planes = i8x16.narrowI16x8U(i16x8.narrowI32x4U(a, b), i16x8.narrowI32x4U(c, c))
  const order = PIXELS.flatMap((pixel) => [pixel, pixel + 4, pixel + 8])
  return i8x16.swizzle(planes, v128.const([...order, ...Array(4).fill(NOTHING)]))
}

/** A function that changes the pixels from `at` to `end`, and up to three behind them. */
const changing = <N extends string>(
  parameters: readonly N[],
  change: (channels: Channels, parameters: Readonly<Record<N, Local>>, keep: Keep) => Channels,
): FunctionCode =>
  functionOf<N | 'at' | 'end'>(['at', 'end', ...parameters], (locals, further) => {
    const { at, end } = locals
    const body: Code[] = []
    const keep = (value: Code): Code => {
      const local = further.v128()
      body.push(local.set(value))
      return local.get
    }
    const result = keep(interleaved(change(channelsOf(keep(v128.load(at.get)), keep), locals, keep)))
    const next = i32.add(at.get, i32.const(8))
    body.push(v128.store64Lane(0)(at.get, result), v128.store32Lane(2)(next, result))
    return [doWhile([...body, increase(at, i32.const(12))], i32.ltU(at.get, end.get))]
  })

/** Luma (ITU-R 601-2). */
const luma = ([red, green, blue]: Channels): Code => {
  const weighted = [
    i32x4.mul(red, splat.i32x4(19595)),
    i32x4.mul(green, splat.i32x4(38470)),
    i32x4.mul(blue, splat.i32x4(7471)),
  ]
  return i32x4.shrU(
    weighted.reduce((sum, term) => i32x4.add(sum, term), splat.i32x4(0x8000)),
    i32.const(16),
  )
}

/** base + factor (value - base) of each channel, in float32; `base` and `factor` are vectors of float32. */
const blended = (channels: Channels, base: Code, factor: Code): Channels =>
  mapped(channels, (channel) => {
    const difference = f32x4.sub(f32x4.convertI32x4S(channel), base)
    return i32x4.truncSatF32x4S(f32x4.add(base, f32x4.mul(factor, difference)))
  })

/** Blends with a level; it and the factor are bits of float32 numbers. */
const blendWithLevel = changing(['level', 'factor'], (channels, { level, factor }) =>
  blended(channels, i32x4.splat(level.get), i32x4.splat(factor.get)),
)

/** Blends each pixel with its luma; the factor is the bits of a float32. */
const blendWithLuma = changing(['factor'], (channels, { factor }, keep) =>
  blended(channels, keep(f32x4.convertI32x4S(luma(channels))), i32x4.splat(factor.get)),
)

/** Writes sums of the luma of pixels, which must be black behind `end`: four words to `to`. */
const sumLuma = functionOf(['at', 'end', 'to'], ({ at, end, to }, further) => {
  const [sum, pixels] = [further.v128(), further.v128()]
  const channels = channelsOf(pixels.get, (value) => value)
  const body = [pixels.set(v128.load(at.get)), sum.set(i32x4.add(sum.get, luma(channels))), increase(at, i32.const(12))]
  return [doWhile(body, i32.ltU(at.get, end.get)), v128.store(to.get, sum.get)]
})

/** (R, G, B) -> (H, S, V) */
const rgbToHsv = changing([], (channels, _, keep) => {
  const [red, green, blue] = mapped(channels, (channel) => keep(f32x4.convertI32x4S(channel)))
  const max = keep(f32x4.pmax(f32x4.pmax(red, green), blue))
  const min = keep(f32x4.pmin(f32x4.pmin(red, green), blue))
  const range = keep(f32x4.sub(max, min))
  const middle = f32x4.sub(f32x4.sub(f32x4.add(f32x4.add(red, green), blue), max), min)
  // How far the middle channel is below the largest; the smallest is at 1. Not a number where all are equal, which ends as 0.
  const distance = keep(f32x4.div(f32x4.sub(max, middle), range))
  const above = (base: number) => f32x4.add(splat.f32x4(base), distance)
  const below = (base: number) => f32x4.sub(splat.f32x4(base), distance)
  const isMin = (channel: Code) => f32x4.eq(channel, min)
  const isMax = (channel: Code) => f32x4.eq(channel, max)
  const ofRed = v128.bitselect(below(1), above(-1), isMin(blue))
  const ofGreen = v128.bitselect(below(3), above(1), isMin(red))
  const ofBlue = v128.bitselect(below(5), above(3), isMin(green))
  const sixths = v128.bitselect(ofRed, v128.bitselect(ofGreen, ofBlue, isMax(green)), isMax(red))
  const turn = keep(f32x4.div(sixths, splat.f32x4(6)))
  const hue = f32x4.add(turn, v128.and(f32x4.lt(turn, splat.f32x4(0)), splat.f32x4(1)))
  const inBytes = (share: Code) => i32x4.truncSatF32x4S(f32x4.mul(share, splat.f32x4(255)))
  return [inBytes(hue), inBytes(f32x4.div(range, max)), i32x4.truncSatF32x4S(max)]
})

/** (H + shift, S, V) -> (R, G, B) */
const hsvToRgb = changing(['shift'], ([hue, saturation, value], { shift }, keep) => {
  const turned = v128.and(i32x4.add(hue, i32x4.splat(shift.get)), splat.i32x4(255))
  // 255 steps of the hue are six sectors of 85 half steps.
  const halfSteps = keep(i32x4.mul(turned, splat.i32x4(2)))
  const sector = keep(i32x4.shrU(i32x4.mul(halfSteps, splat.i32x4(772)), i32.const(16)))
  const after = keep(i32x4.sub(halfSteps, i32x4.mul(sector, splat.i32x4(85))))
  const sectorBytes = keep(i32x4.mul(sector, splat.i32x4(0x01010101)))
  const isIn = (...sectors: readonly number[]) =>
    i8x16.swizzle(v128.const(Array.from({ length: 16 }, (_, n) => (sectors.includes(n) ? 255 : 0))), sectorBytes)
  /** value (1 - saturation / 255 * steps / 85), rounded. */
  const faded = (steps: Code) => {
    const product = i32x4.mul(value, i32x4.sub(splat.i32x4(85 * 255), i32x4.mul(saturation, steps)))
    return i32x4.truncSatF32x4S(
      f32x4.add(f32x4.div(f32x4.convertI32x4S(product), splat.f32x4(85 * 255)), splat.f32x4(0.5)),
    )
  }
  const low = keep(faded(splat.i32x4(85)))
  const middle = keep(faded(v128.bitselect(after, i32x4.sub(splat.i32x4(85), after), isIn(1, 3, 5))))
  const chosen = (isValue: Code, isMiddle: Code) =>
    v128.bitselect(value, v128.bitselect(middle, low, isMiddle), isValue)
  return [chosen(isIn(0, 5, 6), isIn(1, 4)), chosen(isIn(1, 2), isIn(0, 3, 6)), chosen(isIn(3, 4), isIn(2, 5))]
})

const { call, memory } = compileModule({ blendWithLevel, blendWithLuma, sumLuma, rgbToHsv, hsvToRgb })

/** Bytes of pixels that are in the memory at a time. */
const CHUNK = 3 * 2 ** 14
const regions = memory.reserve({ pixels: CHUNK, sums: 16 })
const stage = memory.bytes(regions.pixels, CHUNK + 12)
const sums = memory.words(regions.sums, 4)

/** Brings pixels into the memory, a chunk at a time. */
function forEachChunk(pixels: Uint8Array, body: (at: number, end: number, chunk: Uint8Array) => void): void {
  for (let at = 0; at < pixels.length; at += CHUNK) {
    const chunk = pixels.subarray(at, at + CHUNK)
    stage.set(chunk)
    body(regions.pixels, regions.pixels + chunk.length, chunk)
  }
}

const change = (pixels: Uint8Array, kernel: (at: number, end: number) => void): void =>
  forEachChunk(pixels, (at, end, chunk) => {
    kernel(at, end)
    chunk.set(stage.subarray(0, chunk.length))
  })

const bitsOf = (value: number): number => new Int32Array(Float32Array.of(value).buffer)[0] as number

/** Changes RGB pixels to level + factor (value - level), cut off to 0..255. */
export const blendLevel = (pixels: Uint8Array, level: number, factor: number): void =>
  change(pixels, (at, end) => call.blendWithLevel(at, end, bitsOf(level), bitsOf(factor)))

/** The same with the luma of each pixel as its level. */
export const blendLuma = (pixels: Uint8Array, factor: number): void =>
  change(pixels, (at, end) => call.blendWithLuma(at, end, bitsOf(factor)))

/** Mean luma of RGB pixels. */
export function meanLuma(pixels: Uint8Array): number {
  let sum = 0
  forEachChunk(pixels, (at, end, { length }) => {
    stage.fill(0, length, length + 12)
    call.sumLuma(at, end, regions.sums)
    sum += sums.reduce((a, b) => a + b, 0)
  })
  return sum / (pixels.length / 3)
}

/** In place: (R, G, B) -> (H, S, V) */
export const toHsv = (pixels: Uint8Array): void => change(pixels, (at, end) => call.rgbToHsv(at, end))

/** In place: (H, S, V) -> (R, G, B) */
export const fromHsv = (pixels: Uint8Array): void => change(pixels, (at, end) => call.hsvToRgb(at, end, 0))

/** Turns the hue of RGB pixels by `shift` of 256 steps. */
export const turnHue = (pixels: Uint8Array, shift: number): void =>
  change(pixels, (at, end) => {
    call.rgbToHsv(at, end)
    call.hsvToRgb(at, end, shift)
  })
