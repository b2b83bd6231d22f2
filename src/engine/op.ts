import type { Expr } from './expr.js'
import type { Tensor } from './graph.js'
import type { Shape, Spec } from './shape.js'

/** A product that matrix units compute at once: M x K by K x N. */
export interface MatrixShape {
  readonly M: number
  readonly N: number
  readonly K: number
}

/** Units that multiply matrices of f16 and add up in f32, a subgroup at a time. */
export interface MatrixUnits {
  /** The largest first. */
  readonly shapes: readonly MatrixShape[]
  /** Lanes of the largest subgroups. */
  readonly lanes: number
}

/** What a kernel may know of the adapter it will run on. */
export interface AdapterTraits {
  /** A driver that runs on the CPU, such as lavapipe or SwiftShader. */
  readonly software: boolean
  /** Kernels may read and write f16. */
  readonly half: boolean
  /** Lanes of a subgroup where the adapter has subgroups of one fixed size, else 0. */
  readonly subgroupSize: number
  /** Absent where the adapter has none. */
  readonly matrixUnits?: MatrixUnits | undefined
  readonly maxStorageBuffers: number
  readonly maxWorkgroupStorage: number
}

/** A buffer that a dispatch binds, named by its role in the operator. */
export interface Operand {
  readonly role: 'input' | 'output' | 'temporary'
  readonly index: number
}
export const input = (index: number): Operand => ({ role: 'input', index })
export const output = (index: number): Operand => ({ role: 'output', index })
export const temporary = (index: number): Operand => ({ role: 'temporary', index })

/**
 * One dispatch. Its shader binds at group 0: the uniforms at 0 (absent when there are none), then `reads`
 * (read-only storage), then `writes` (read-write storage), numbered on from 1.
 */
export interface Dispatch {
  readonly label: string
  readonly source: string
  readonly reads: readonly Operand[]
  readonly writes: readonly Operand[]
  /** 32-bit words of the uniform struct; floats as their bits (`floatBits`). */
  readonly uniforms: readonly number[]
  /** Workgroups along x, y, z. */
  readonly grid: readonly [number, number, number]
}

/** One way to compute an operator: dispatches in order, and the temporary tensors they share. */
export interface Candidate {
  readonly name: string
  readonly temporaries?: readonly Spec[]
  readonly dispatches: readonly Dispatch[]
}

export interface KernelContext<A> {
  readonly inputs: readonly Spec[]
  readonly outputs: readonly Spec[]
  readonly attrs: A
  readonly adapter: AdapterTraits
}

export interface VjpContext<A> {
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
  readonly attrs: A
  /** Gradient of the loss with respect to each output; undefined where the loss does not depend on it. */
  readonly grads: readonly (Tensor | undefined)[]
  /** Whether the gradient of an input is wanted. */
  readonly wanted: readonly boolean[]
}

/** How an operator that computes a formula per element shows it to the fusion pass. */
export interface FormulaAccess<A> {
  /** Each output element is the formula of the input elements at its place, so that a reader may absorb it. */
  readonly elementwise: boolean
  /** The formulas over the inputs, and the shape over whose elements they are computed. */
  get(attrs: A): { exprs: readonly Expr[]; space: Shape }
  /** The attributes with other formulas, over other inputs. */
  set(attrs: A, exprs: readonly Expr[], inputs: readonly Spec[]): A
}

/** How an operator with one output passes it through a formula before storing it. */
export interface EpilogueAccess<A> {
  /**
   * The attributes with a formula over the result (its input 0) and operands that follow the operator's own inputs and
   * broadcast to the result; undefined where the operator cannot with these attributes, such as those that have one.
   */
  set(attrs: A, expr: Expr): A | undefined
}

/** Where a tensor lies in a larger one: from `start` on along an axis. */
export interface Part {
  readonly axis: number
  readonly start: number
  /** Shape of the larger tensor. */
  readonly shape: Shape
}

/** How an operator writes its one output as a part of a larger tensor. */
export interface PartAccess<A> {
  /**
   * The attributes for writing a part; undefined where the operator cannot. It then returns the larger tensor, which
   * may follow its inputs as one more, to be updated in place; without, the rest of the larger tensor is undefined.
   *
   * @param inputs how many inputs it has without the larger tensor
   */
  set(attrs: A, part: Part, inputs: number): A | undefined
}

/** How an operator shows that its result is its inputs side by side. */
export interface ConcatAccess<A> {
  /** Where the inputs lie; none where they must be copied together. */
  parts(call: Pick<KernelContext<A>, 'inputs' | 'outputs' | 'attrs'>): readonly Part[]
  /** Copies one input as a part of the larger tensor that may follow it. */
  copy(input: Spec, part: Part): { op: Op; name: string; attrs: unknown }
}

/** One of several calls that a batch does in a dispatch, by its places among the batch's inputs. */
export interface BatchPart<A> {
  readonly attrs: A
  readonly inputs: readonly number[]
  readonly outputs: number
}

/** How an operator does several independent calls in one dispatch. */
export interface BatchAccess<A> {
  fits(call: Pick<KernelContext<A>, 'inputs' | 'outputs' | 'attrs'>): boolean
  /** The operator of the whole batch, whose outputs are those of the parts in their order. */
  join(parts: readonly BatchPart<A>[]): { op: Op; attrs: unknown }
}

/**
 * What half precision makes of an operator; see `autocast`. `half`: a product that reads and stores f16. `sum`: a product
 * that reads f16 and stores f32. `same`: it reads any type, and stores values in the type that they have. `wide`: it reads
 * any type and stores f32.
 */
export type Precision = 'half' | 'sum' | 'same' | 'wide'

/** The declaration of an operator: everything the engine knows of it. */
export interface Op<A = never> {
  readonly name: string
  /** Shapes and element types of the outputs. Throws an Error that names what does not fit. */
  shape(inputs: readonly Spec[], attrs: A): readonly Spec[]
  /** Gradients of the inputs, in their order; undefined where there is none. */
  vjp?(context: VjpContext<A>): readonly (Tensor | undefined)[]
  /** Ways to compute it, best first for this adapter. */
  kernel(context: KernelContext<A>): readonly Candidate[]
  /**
   * Output index → index of the input whose buffer it takes over: on entry the output's buffer holds that input,
   * which is not bound a second time. The planner copies where the input is still needed.
   */
  inplace?(attrs: A): ReadonlyMap<number, number>
  /** Reads and stores f32 where absent. */
  readonly precision?: Precision
  readonly formula?: FormulaAccess<A>
  readonly epilogue?: EpilogueAccess<A>
  readonly batch?: BatchAccess<A>
  readonly part?: PartAccess<A>
  readonly concat?: ConcatAccess<A>
}

/** Declares an operator; see `Op` for the parts. */
export const defineOp = <A>(name: string, parts: Omit<Op<A>, 'name'>): Op<A> => ({ name, ...parts })

const scratch = new DataView(new ArrayBuffer(4))

/** The bits of a float32 as an unsigned integer, for uniforms. */
export function floatBits(value: number): number {
  scratch.setFloat32(0, value)
  return scratch.getUint32(0)
}

/** `count` workgroups as a grid within WebGPU's 65,535 per dimension; the shader recovers x + y * grid.x. */
export function flatGrid(count: number): [number, number, number] {
  const limit = 65535
  if (count <= limit) return [Math.max(1, count), 1, 1]
  const y = Math.ceil(count / limit)
  return [Math.ceil(count / y), y, 1]
}

export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b)
