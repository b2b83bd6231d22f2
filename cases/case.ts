import type { Tensor } from '#dist/engine/ir.js'
import { type Data, elements, type Shape, type Spec, spec } from '#dist/engine/shape.js'
import type { Values } from './reference/index.js'

/** What an input of a case holds: drawn from a generator that is seeded by the names of case and input. */
export interface Source {
  readonly spec: Spec
  readonly draw: (random: Random) => Data
}

/** One operator on one set of shapes. `run` calls the kernels, `reference` the loops in double precision. */
export interface Body<I extends Record<string, Source> = Record<string, Source>> {
  readonly inputs: I
  run(tensors: { [K in keyof I]: Tensor }): Record<string, Tensor>
  /** `at`: the unperturbed inputs, by which discrete choices are made while others are differentiated. */
  reference(inputs: { [K in keyof I]: Values }, at: { [K in keyof I]: Values }): Record<string, Values>
  /** Inputs whose gradients are checked. */
  readonly differentiable?: readonly (keyof I & string)[]
  /** Outputs that pass gradients on; all of type f32 when absent. */
  readonly passing?: readonly string[]
  /** Numbers added up for one element of an output or a gradient, at most. */
  readonly terms?: number
  /** Tolerance relative to the largest value, where `allowance(terms)` does not cover the numerics: the row says why. */
  readonly tolerance?: number
  /**
   * How many roundings to f16, of 11 bits each, a result may have seen in half precision; when absent 4: its own, and
   * without fusion those of up to three values on the way there.
   */
  readonly halfRoundings?: number
  /** Size of what cancels in a gradient, where that is larger than the gradient itself. */
  readonly gradientScale?: number
  /** The same of an output. */
  readonly outputScale?: number
  /** Step of the finite differences, where the function curves on a smaller scale than 1e-4 resolves. */
  readonly step?: number
  /** Outputs must agree bit for bit. */
  readonly exact?: boolean
  /** The loss is not a number, and its gradient must be 0 all the same. */
  readonly zeroGradient?: boolean
  /** Outputs that are the next run's inputs, by their names: what the bench updates in place. */
  readonly state?: Readonly<Record<string, keyof I & string>>
  /** Inputs that are f32 where others are f16: what is updated in place. */
  readonly full?: readonly (keyof I & string)[]
  /** Floating-point operations of the forward pass, where they are what bounds it. */
  readonly flops?: number
}

export interface Case extends Body {
  readonly op: string
  readonly name: string
}

/** Sizes at which the bench runs: side of the square images and images in a batch. */
export interface Setting {
  readonly crop: number
  readonly batch: number
}

/** All rows of one operator. */
export interface Family {
  readonly op: string
  readonly cases: () => Case[]
  readonly bench: (setting: Setting) => Case[]
}

/** A family whose rows can also be made of other parameters than those of its table. */
export interface FamilyOf<P> extends Family {
  readonly row: (name: string, parameters: P) => Case
}

/** Keeps the names of the inputs known to `run` and `reference`. */
export const body = <I extends Record<string, Source>>(parts: Body<I>): Body => parts as Body

/**
 * @param make a case from its parameters
 * @param shapes parameters by the name of the row
 * @param bench the same at the sizes of DeepLabV3+
 */
export function family<P>(
  op: string,
  make: (parameters: P) => Body,
  shapes: Record<string, P>,
  bench: (setting: Setting) => Record<string, P> = () => ({}),
): FamilyOf<P> {
  const row = (name: string, parameters: P) => ({ ...make(parameters), op, name })
  const rows = (of: Record<string, P>) => Object.entries(of).map(([name, parameters]) => row(name, parameters))
  return { op, row, cases: () => rows(shapes), bench: (setting) => rows(bench(setting)) }
}

/** A few units in the last place, and a random walk of roundings over the terms of a sum; relative to the largest value. */
export const allowance = (terms = 1): number => 2 ** -23 * (8 + Math.sqrt(terms))

/** Mulberry32: small, good enough for test data, the same everywhere. */
export class Random {
  private state = 0x811c9dc5

  constructor(name: string) {
    for (const letter of name) this.state = Math.imul(this.state ^ (letter.codePointAt(0) ?? 0), 0x01000193)
  }

  /** In [0, 1). */
  uniform(): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform())
  }

  /** Of 0 … below − 1. */
  integer(below: number): number {
    return Math.floor(this.uniform() * below)
  }
}

/** Drawing millions of numbers takes longer than the bench's kernels: beyond this they repeat. */
const distinct = 65536

function drawn<A extends Data>(data: A, draw: () => number): A {
  const fresh = Math.min(distinct, data.length)
  for (let i = 0; i < fresh; i++) data[i] = draw()
  for (let i = fresh; i < data.length; i += fresh) data.set(data.subarray(0, Math.min(fresh, data.length - i)), i)
  return data
}

/** Values of type f32, each from `draw`. */
export const floats = (shape: Shape, draw: (random: Random) => number): Source => ({
  spec: spec(shape),
  draw: (random) => drawn(new Float32Array(elements(shape)), () => draw(random)),
})

export const normal = (shape: Shape, { scale = 1, offset = 0 } = {}): Source =>
  floats(shape, (random) => random.normal() * scale + offset)

export const uniform = (shape: Shape, low: number, high: number): Source =>
  floats(shape, (random) => low + random.uniform() * (high - low))

/** Whole numbers of `low` … `high`, so that many are equal. */
export const tied = (shape: Shape, low: number, high: number): Source =>
  floats(shape, (random) => low + random.integer(high - low + 1))

export const constant = (shape: Shape, value: number): Source => floats(shape, () => value)

/** Integers, each from `draw`. */
export const integers = (shape: Shape, dtype: 'u8' | 'u32', draw: (random: Random) => number): Source => ({
  spec: spec(shape, dtype),
  draw: (random) =>
    drawn(dtype === 'u8' ? new Uint8Array(elements(shape)) : new Uint32Array(elements(shape)), () => draw(random)),
})

/** Labels below `classes`, some of them 255. */
export const labels = (shape: Shape, classes: number, ignored = 0.2, dtype: 'u8' | 'u32' = 'u8'): Source =>
  integers(shape, dtype, (random) => (random.uniform() < ignored ? 255 : random.integer(classes)))

/** `value` at a share of the places, else 0. */
export const mask = (shape: Shape, share: number, value: number, dtype: 'u8' | 'u32' = 'u8'): Source =>
  integers(shape, dtype, (random) => (random.uniform() < share ? value : 0))

/** Sides of the feature maps at strides 2, 4, 8 and 16. */
export function mapSizes(crop: number): { s2: number; s4: number; s8: number; s16: number } {
  const half = (size: number) => Math.floor((size - 1) / 2) + 1
  const s2 = half(crop)
  const s4 = half(s2)
  const s8 = half(s4)
  return { s2, s4, s8, s16: half(s8) }
}
