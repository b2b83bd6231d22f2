import type { AdapterTraits } from './adapter.js'
import type { Expr } from './expr.js'
import type { Candidate, Dispatch, KernelContext, Operand } from './kernel.js'
import { type DType, elements, type Shape, type Spec, showShape } from './shape.js'
import type { Variable } from './store.js'

/** What a node without inputs stands for. */
export type Leaf = { readonly input: string } | { readonly variable: Variable }

export interface Node {
  readonly id: number
  /** Undefined for leaves: inputs of the program and variables of a store. */
  readonly op: Op | undefined
  readonly leaf?: Leaf
  /**
   * What errors and profiles call it; that of a fused node joins those of its parts by `+`. What a program computes does
   * not depend on it, but the measurements that select kernels are found by it: under a new name a call is measured anew.
   */
  readonly name: string
  readonly inputs: readonly Tensor[]
  readonly attrs: unknown
  readonly outputs: readonly Spec[]
  /** Path of the layer that made it, such as `backbone.layer1`. */
  readonly scope: string
  /** Made by differentiation. */
  readonly backward: boolean
}

/** A symbolic tensor: one output of a node, possibly seen under another shape or cut off from differentiation. */
export class Tensor {
  constructor(
    readonly node: Node,
    readonly index: number,
    readonly shape: Shape,
    readonly dtype: DType,
    readonly detached: boolean = false,
  ) {}

  /** The same elements under another shape of equal size. */
  reshape(...shape: number[]): Tensor {
    if (elements(shape) !== elements(this.shape)) {
      throw new Error(`reshape: ${showShape(this.shape)} does not hold the elements of ${showShape(shape)}`)
    }
    return new Tensor(this.node, this.index, shape, this.dtype, this.detached)
  }

  /** The same values, through which no gradient flows. */
  detach(): Tensor {
    return new Tensor(this.node, this.index, this.shape, this.dtype, true)
  }
}

/** A text that is equal for tensors that hold the same value. */
export const valueKey = (tensor: Tensor): string => `${tensor.node.id}.${tensor.index}`

/** Layer and operator of a node, for messages. */
export const labelOf = ({ op, scope, name }: Node): string => (op && scope ? `${scope}: ${name}` : name)

/** A traced program: nodes in an order of execution, and the values that outlive it. */
export interface Trace {
  readonly nodes: readonly Node[]
  readonly inputs: ReadonlyMap<string, Tensor>
  readonly outputs: ReadonlyMap<string, Tensor>
  readonly assigned: ReadonlyMap<Variable, Tensor>
}

/** The values that a trace must deliver. */
export const results = (trace: Trace): Tensor[] => [...trace.outputs.values(), ...trace.assigned.values()]

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
   * broadcast to the result; undefined where the operator cannot with these attributes, such as those that have one, or where
   * it gains nothing on the adapter.
   */
  set(attrs: A, expr: Expr, adapter: AdapterTraits): A | undefined
}

/** A tensor as a formula of others, computed element by element where it is loaded. */
export interface Prologue {
  /** Over `source` (input 0) and the operands. */
  readonly expr: Expr
  /** Of the shape of the tensor. */
  readonly source: Spec
  /** Broadcast to it. */
  readonly operands: readonly Spec[]
}

/** How an operator passes one of its inputs through a formula as it loads it. */
export interface PrologueAccess<A> {
  /**
   * The attributes of a call that reads the formula's source in place of its input `at`, and the operands behind its own
   * inputs; undefined where the operator cannot, or nothing is gained by it.
   */
  set(context: KernelContext<A>, at: number, prologue: Prologue): A | undefined
}

/** Sums over the rows of a tensor [..., C], channel by channel, that the kernel which stores the tensor can begin. */
export interface RowSums {
  /** Indices of the other inputs that the terms read, which broadcast to the tensor. */
  readonly operands: readonly number[]
  /** What is added up: over an element (input 0), one of the same channel near their mean (input 1), and the operands. */
  readonly terms: readonly Expr[]
  /** What is kept of a stretch of rows: over its sums, then that one element, and the number of rows. */
  readonly kept: readonly Expr[]
  /**
   * What makes the outputs of that: its buffer is [kept, stretches, C], of stretches of `rows` rows but for the last, which
   * may be shorter. Operands are those of the call whose sums they are.
   */
  finish(buffer: Operand, stretches: number, rows: number): Dispatch
}

/** How an operator shows that its outputs are made of such sums. */
export interface RowSumsAccess<A> {
  /** @param input index of the input whose rows are summed; undefined where it is not one */
  of(context: KernelContext<A>, input: number): RowSums | undefined
}

/** A call that reads the one output of another. */
export interface Reading {
  readonly op: Op
  readonly attrs: unknown
  /** Which of its inputs that output is. */
  readonly at: number
  /** In a call that computes both: index of the first one of its other inputs. */
  readonly first: number
}

/** How an operator with one output goes on to the row sums of it. */
export interface SummingAccess<A> {
  /** Whether the call's best kernel by rule sums what it stores. */
  fits(context: KernelContext<A>): boolean
  /**
   * The attributes of a call that returns its output and then those of the reader, and whose inputs are its own and then the
   * reader's others; undefined where nothing is gained by it.
   */
  set(context: KernelContext<A>, reading: Reading): A | undefined
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

/** How an operator with one output computes some of its channels, the last axis, alone. */
export interface ChannelAccess<A> {
  /**
   * The call for channels `start` to `start + size`: its attributes, and the slice of the input `at` that it reads in that
   * one's place. Undefined where nothing is gained by it.
   */
  part(context: KernelContext<A>, start: number, size: number): { attrs: A; at: number; slice: OpCall } | undefined
}

/** A call of an operator, as its declaration sees it. */
export type Call<A> = Pick<KernelContext<A>, 'inputs' | 'outputs' | 'attrs'>

/** How an operator shows that its one output is its inputs side by side, and zeros where none of them lies. */
export interface ConcatAccess<A> {
  /** Where each input lies. */
  parts(call: Call<A>): readonly Part[]
  /** Copies one input as a part of the larger tensor that may follow it; undefined where it would not be exact. */
  copy(input: Spec, part: Part): { op: Op; name: string; attrs: unknown } | undefined
}

/** One of several calls that a batch does in a dispatch, by its places among the batch's inputs. */
export interface BatchedCall<A> {
  readonly attrs: A
  readonly inputs: readonly number[]
  readonly outputs: number
}

/** How an operator does several independent calls in one dispatch. */
export interface BatchAccess<A> {
  fits(call: Call<A>): boolean
  /** The operator of the whole batch, whose outputs are those of the calls in their order. */
  join(parts: readonly BatchedCall<A>[]): { op: Op; attrs: unknown }
}

/** How an operator does several calls that walk through the same elements at once. */
export interface JoinAccess<A> {
  /**
   * The attributes of one call that does all, whose outputs are theirs in their order; undefined where they walk through
   * other elements each.
   */
  set(parts: readonly BatchedCall<A>[]): A | undefined
}

/** A call that takes the place of another one, or of a part of it. */
export interface OpCall {
  readonly op: Op
  readonly name: string
  readonly attrs: unknown
  readonly outputs: readonly Spec[]
}

/** How tensors are cut along their first axis, put together again, and added up. */
export interface Arrangement {
  /** Those with indices `start` to `start + size` along the first axis. */
  range(input: Spec, start: number, size: number): OpCall
  /** A tensor of such a shape from others, each from its start along the first axis on, and zeros where none of them lies. */
  join(starts: readonly number[], output: Spec): OpCall
  /** The sum of two tensors of such a shape. */
  add(output: Spec): OpCall
}

/** A call as calls for a few samples each: the first axis of its tensors is that of the samples. */
export interface Division {
  readonly samples: number
  /** Of each input, whether a call for a few samples reads these alone, or all of it, or whether only `last` reads it. */
  readonly inputs: readonly ('divided' | 'whole' | 'last')[]
  /** The call for so many samples, of the same operator where it names no other. */
  piece(samples: number): Pick<OpCall, 'attrs' | 'outputs'> & { readonly op?: Op }
  /**
   * What becomes of each of their outputs: they are joined along the first axis, or added up, or each call updates in place
   * what the one before made.
   */
  readonly outputs: readonly ('joined' | 'summed' | 'updated')[]
  /** A last call, which reads these outputs and then the inputs that are left for it. */
  readonly last?: OpCall
}

/** A call for the rows of images, each a sample of one row. Of the same operator where it names no other. */
export interface RowsCall extends Pick<OpCall, 'attrs' | 'outputs'> {
  readonly op?: Op
  /** Shapes under which it sees its inputs. */
  readonly inputs: readonly Shape[]
}

/** How an operator computes a batch that is too large to be bound at once a few samples at a time. */
export interface DivideAccess<A> {
  readonly arrangement: Arrangement
  /** Undefined where such a call cannot be divided. */
  division(call: Call<A>): Division | undefined
  /**
   * Where a single sample is too large: calls that compute the same, each from the outputs of the one before, and whose
   * samples are rows where those are too large. Undefined where there is no such form.
   */
  rows?(call: Call<A>): readonly RowsCall[] | undefined
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
  /**
   * Ways to compute it, best first for this adapter; the last one is the plainest, to which the others are held. A promise
   * where they are loaded when the first program is compiled that has such a call.
   */
  kernel(context: KernelContext<A>): readonly Candidate[] | Promise<readonly Candidate[]>
  /**
   * Output index → index of the input whose buffer it takes over: on entry the output's buffer holds that input,
   * which is not bound a second time. The planner copies where the input is still needed.
   */
  inplace?(attrs: A): ReadonlyMap<number, number>
  /** Reads and stores f32 where absent. */
  readonly precision?: Precision
  /** Outputs that half precision leaves f32, such as what a gradient takes exponentials of. */
  readonly fullOutputs?: readonly number[]
  /** Products that a call adds up, where they rather than the bytes that it moves bound its time. */
  multiplyAdds?(call: Pick<KernelContext<A>, 'inputs' | 'outputs' | 'attrs'>): number
  readonly formula?: FormulaAccess<A>
  readonly epilogue?: EpilogueAccess<A>
  readonly prologue?: PrologueAccess<A>
  /** Or what loads it. */
  readonly rowSums?: RowSumsAccess<A> | (() => Promise<RowSumsAccess<A>>)
  readonly summing?: SummingAccess<A>
  readonly batch?: BatchAccess<A>
  readonly join?: JoinAccess<A>
  readonly part?: PartAccess<A>
  readonly channels?: ChannelAccess<A>
  readonly concat?: ConcatAccess<A>
  /** The part of its first input that its one output is. */
  partOfInput?(call: Call<A>): Part
  /** Or what loads it: few programs are divided. */
  readonly divide?: DivideAccess<A> | (() => Promise<DivideAccess<A>>)
  /** Its kernel is a host call: each call of it happens once in a run, however equal to another one. */
  readonly callsHost?: true
}

/** How an operator is divided, once that is loaded. */
export const divideOf = async (op: Op | undefined): Promise<DivideAccess<never> | undefined> =>
  typeof op?.divide === 'function' ? op.divide() : op?.divide

/** What shows the row sums of an operator, once that is loaded. */
export const rowSumsAccessOf = async (op: Op | undefined): Promise<RowSumsAccess<never> | undefined> =>
  typeof op?.rowSums === 'function' ? op.rowSums() : op?.rowSums

/** Declares an operator; see `Op` for the parts. */
export const defineOp = <A>(name: string, parts: Omit<Op<A>, 'name'>): Op<A> => ({ name, ...parts })
