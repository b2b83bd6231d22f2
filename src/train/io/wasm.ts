// Writes WebAssembly modules. Instructions have the names of the text format, and their operands as arguments.

/** Bytes of instructions. */
export type Code = readonly number[]

/** A parameter or another local variable of a function. */
export interface Local {
  readonly get: Code
  set(value: Code): Code
}

/** A function without a result whose parameters are all of type i32. */
export interface FunctionCode {
  readonly parameterCount: number
  /** Types of its further locals. */
  readonly locals: readonly number[]
  readonly body: Code
}

/** Memory of a module. */
interface Memory {
  readonly buffer: ArrayBuffer
  grow(pages: number): number
}
const PAGE_BYTES = 65536

// The part of the global object that is used here: its types come with those of browsers alone.
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object) => { readonly exports: unknown }
}

const I32 = 0x7f
const V128 = 0x7b
const EMPTY = 0x40
const END = 0x0b

/** LEB128 of an unsigned number. */
const unsigned = (value: number): Code => (value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)])

/** LEB128 of a signed number. */
const signed = (value: number): Code =>
  value >= -64 && value < 64 ? [value & 127] : [(value & 127) | 128, ...signed(value >> 7)]

/** An instruction behind its operands. */
const scalar =
  (...opcode: Code) =>
  (...operands: readonly Code[]): Code => [...operands.flat(), ...opcode]
const vector = (opcode: number, ...immediates: Code) => scalar(0xfd, ...unsigned(opcode), ...immediates)
/** Of any alignment, without an offset. */
const access = (opcode: number, ...immediates: Code) => vector(opcode, 0, 0, ...immediates)

export const i32 = {
  const: (value: number): Code => [0x41, ...signed(value)],
  load: scalar(0x28, 0, 0),
  load8U: scalar(0x2d, 0, 0),
  store8: scalar(0x3a, 0, 0),
  eq: scalar(0x46),
  ltU: scalar(0x49),
  leU: scalar(0x4d),
  add: scalar(0x6a),
  sub: scalar(0x6b),
  and: scalar(0x71),
  shrU: scalar(0x76),
}

/** The first operand where the third is not 0, else the second. */
export const select = scalar(0x1b)

export const v128 = {
  load: access(0x00),
  /** Eight bytes, as 16-bit integers. */
  load8x8U: access(0x02),
  load32Splat: access(0x09),
  store: access(0x0b),
  const: (bytes: Code): Code => [0xfd, 0x0c, ...bytes],
  and: vector(0x4e),
  xor: vector(0x51),
  /** Bits of the first operand where the third has ones, else of the second. */
  bitselect: vector(0x52),
  store32Lane: (lane: number) => access(0x5a, lane),
  store64Lane: (lane: number) => access(0x5b, lane),
  load32Zero: access(0x5c),
}

export const i8x16 = {
  /** Bytes of both operands by their numbers, those of the second one from 16 on. */
  shuffle: (numbers: readonly number[]) => vector(0x0d, ...numbers),
  /** Bytes of the first operand, by the numbers in the second; 0 for numbers above 15. */
  swizzle: vector(0x0e),
  narrowI16x8U: vector(0x66),
  add: vector(0x6e),
}

export const i16x8 = {
  extaddPairwiseI8x16U: vector(0x7d),
  narrowI32x4S: vector(0x85),
  narrowI32x4U: vector(0x86),
  extendLowI8x16U: vector(0x89),
  extendHighI8x16U: vector(0x8a),
  shrU: vector(0x8d),
  add: vector(0x8e),
}

export const i32x4 = {
  splat: vector(0x11),
  eq: vector(0x37),
  extendLowI16x8U: vector(0xa9),
  extendHighI16x8U: vector(0xaa),
  abs: vector(0xa0),
  shl: vector(0xab),
  shrS: vector(0xac),
  shrU: vector(0xad),
  add: vector(0xae),
  sub: vector(0xb1),
  mul: vector(0xb5),
  /** Sums of the products of neighbouring 16-bit integers. */
  dotI16x8S: vector(0xba),
  truncSatF32x4S: vector(0xf8),
}

export const f32x4 = {
  eq: vector(0x41),
  lt: vector(0x43),
  add: vector(0xe4),
  sub: vector(0xe5),
  mul: vector(0xe6),
  div: vector(0xe7),
  pmin: vector(0xea),
  pmax: vector(0xeb),
  convertI32x4S: vector(0xfa),
}

/** Constants of equal lanes, or of lanes that repeat some values. */
export const splat = {
  i16x8: (...values: readonly number[]): Code => {
    const lanes = Array.from({ length: 8 }, (_, i) => values[i % values.length] ?? 0)
    return v128.const([...new Uint8Array(Int16Array.from(lanes).buffer)])
  },
  i32x4: (value: number): Code => v128.const([...new Uint8Array(new Int32Array(4).fill(value).buffer)]),
  f32x4: (value: number): Code => v128.const([...new Uint8Array(new Float32Array(4).fill(value).buffer)]),
}

/** Does `body` at least once, and again while `condition` is not 0 after it. */
export const doWhile = (body: readonly Code[], condition: Code): Code => [
  ...[0x03, EMPTY],
  ...body.flat(),
  ...condition,
  // br_if to the start of the loop
  ...[0x0d, 0],
  END,
]

/** The value of one of two codes, of which the other is not run. */
export const ifElse = (condition: Code, whereTrue: Code, whereFalse: Code): Code => [
  ...condition,
  ...[0x04, I32],
  ...whereTrue,
  0x05,
  ...whereFalse,
  END,
]

/** Adds to a local. */
export const increase = (local: Local, by: Code): Code => local.set(i32.add(local.get, by))

/**
 * A function.
 * @param write makes its body of its parameters, and of further locals as it needs them
 */
export function functionOf<N extends string>(
  parameters: readonly N[],
  write: (parameters: Readonly<Record<N, Local>>, further: { i32(): Local; v128(): Local }) => readonly Code[],
): FunctionCode {
  const locals: number[] = []
  const local = (index: number): Local => ({
    get: [0x20, ...unsigned(index)],
    set: (value) => [...value, 0x21, ...unsigned(index)],
  })
  const further = (type: number) => local(parameters.length + locals.push(type) - 1)
  const named = Object.fromEntries(parameters.map((name, index) => [name, local(index)])) as Record<N, Local>
  const body = write(named, { i32: () => further(I32), v128: () => further(V128) }).flat()
  return { parameterCount: parameters.length, locals, body }
}

/** The memory of a module. */
export class ModuleMemory {
  constructor(private readonly memory: Memory) {}

  /**
   * Addresses of regions of so many bytes, behind each of which are 16 more. They replace those of the call before, and
   * hold whatever is there.
   */
  reserve<N extends string>(sizes: Readonly<Record<N, number>>): Readonly<Record<N, number>> {
    let end = 0
    const starts = Object.entries<number>(sizes).map(([name, bytes]) => {
      const start = end
      end = Math.ceil((start + bytes) / 16 + 1) * 16
      return [name, start]
    })
    const missing = end - this.memory.buffer.byteLength
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE_BYTES))
    return Object.fromEntries(starts)
  }

  /** Bytes of the memory; valid until the next call of `reserve`. */
  bytes(address: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, length)
  }

  /** The same as 32-bit words. */
  words(address: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, address, length)
  }

  /** The same as float32. */
  floats(address: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, length)
  }
}

/** Functions by name, and the memory that they share. */
export interface CompiledModule<N extends string> {
  readonly call: Readonly<Record<N, (...parameters: readonly number[]) => void>>
  readonly memory: ModuleMemory
}

/** Compiles functions to a module with a memory of its own, which is 0 at first. */
export function compileModule<N extends string>(functions: Readonly<Record<N, FunctionCode>>): CompiledModule<N> {
  const all = Object.entries<FunctionCode>(functions)
  const sized = (bytes: Code): Code => [...unsigned(bytes.length), ...bytes]
  const name = (text: string): Code => sized([...new TextEncoder().encode(text)])
  const section = (id: number, items: readonly Code[]): Code => [
    id,
    ...sized([...unsigned(items.length), ...items.flat()]),
  ]
  const types = all.map(([, { parameterCount }]) => [0x60, ...sized(Array(parameterCount).fill(I32)), 0])
  const exported = all.map(([text], index) => [...name(text), 0, ...unsigned(index)])
  const code = all.map(([, { locals, body }]) =>
    sized([...unsigned(locals.length), ...locals.flatMap((type) => [1, type]), ...body, END]),
  )
  const bytes = [
    // '\0asm', version 1
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, types),
    ...section(
      3,
      all.map((_, index) => unsigned(index)),
    ),
    // a memory of at least a page
    ...section(5, [[0, 1]]),
    ...section(7, [[...name(''), 2, 0], ...exported]),
    ...section(10, code),
  ]
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(bytes)))
  return { call: exports as CompiledModule<N>['call'], memory: new ModuleMemory((exports as { '': Memory })['']) }
}
