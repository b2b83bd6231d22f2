// Pointwise operators and sums: each is the derivative of the other's broadcasting.
import type { Expr } from '../engine/expr.js'
import * as e from '../engine/expr.js'
import { apply, applyOne } from '../engine/graph.js'
import {
  type BatchedCall,
  type Call,
  type Division,
  defineOp,
  type Op,
  type OpCall,
  type Part,
  type Tensor,
  type VjpContext,
} from '../engine/ir.js'
import type { Cast } from '../engine/passes/autocast.js'
import {
  broadcastShapes,
  type DType,
  elements,
  isFloat,
  type Shape,
  type Spec,
  sameShape,
  showShape,
  spec,
} from '../engine/shape.js'
import { arrangement, callByRows, joinedDivision, rowsOf, usesIn } from './arrangement.js'
import { inplaceOf, inplaceOfBatch, isFlat, type PointwiseAttrs } from './pointwise-attrs.js'
import type { SumAttrs } from './reduce-kernels.js'
import { viewIn } from './views.js'

/** Every operator that computes each output element from the input elements at its place. */
const pointwiseOp = defineOp<PointwiseAttrs>('pointwise', {
  precision: 'same',
  shape: (_, { space, dtypes }) => dtypes.map((dtype) => spec(space, dtype)),
  vjp: (context) => (context.attrs.vjp ?? derivativeVjp)(context),
  inplace: (attrs) => new Map(inplaceOf(attrs)),
  kernel: async (context) => [(await import('./pointwise-kernels.js')).pointwiseKernel(context)],
  formula: {
    elementwise: true,
    get: ({ exprs, space }) => ({ exprs, space }),
    set: (attrs, exprs) => ({ ...attrs, exprs }),
  },
  batch: {
    fits: ({ inputs, attrs: { space, part } }) => !part && inputs.every(({ shape }) => isFlat(viewIn(space, shape))),
    join: (parts) => ({ op: batchOp as Op, attrs: parts }),
  },
  part: {
    set: (attrs, part, operands) => {
      const isRow = part.axis === 0 || part.axis === part.shape.length - 1
      return isRow && attrs.inplace.length === 0 ? { ...attrs, part: { ...part, operands } } : undefined
    },
  },
  divide: {
    arrangement,
    division: (call) => bySpace(call),
    rows: (call) => callByRows(call, bySpace(call), { ...call.attrs, space: rowsOf(call.attrs.space) }),
  },
})

function bySpace(call: Call<PointwiseAttrs>): Division | undefined {
  const { space, inplace, part } = call.attrs
  const uses = part || inplace.length > 0 ? undefined : usesIn(space, call.inputs)
  return uses && joinedDivision(call, uses, withSpaceOf)
}

/** The same formulas over fewer samples. */
const withSpaceOf = <A extends { readonly space: Shape }>(attrs: A, samples: number): A => ({
  ...attrs,
  space: [samples, ...attrs.space.slice(1)],
})

/** Several pointwise calls, none of which broadcasts more than scalars, in one dispatch. */
const batchOp = defineOp<readonly BatchedCall<PointwiseAttrs>[]>('pointwiseBatch', {
  shape: (_, parts) => parts.flatMap(({ attrs: { space, dtypes } }) => dtypes.map((dtype) => spec(space, dtype))),
  inplace: (parts) => new Map(inplaceOfBatch(parts)),
  kernel: async (context) => [(await import('./pointwise-kernels.js')).flatKernel(context, context.attrs)],
})

/** The gradient by differentiating the formula, summed over the axes along which an input was broadcast. */
function derivativeVjp({ inputs, attrs, grads, wanted }: VjpContext<PointwiseAttrs>): (Tensor | undefined)[] {
  return inputs.map((value, index) => {
    if (!wanted[index] || !isFloat(value)) return undefined
    const received: Tensor[] = []
    let sum: Expr = e.constant(0)
    for (const [k, expr] of attrs.exprs.entries()) {
      const grad = grads[k]
      if (!grad) continue
      received.push(grad)
      sum = e.add(sum, e.mul(e.input(inputs.length + received.length - 1), e.derivative(expr, index)))
    }
    const full = pointwise(`${attrs.label}Grad`, [sum], [...inputs, ...received], { space: attrs.space })
    return sumTo(full, value.shape)
  })
}

export interface PointwiseOptions {
  /** Shape of the result where it is larger than what the inputs broadcast to. */
  readonly space?: Shape
  readonly dtypes?: readonly DType[]
  readonly inplace?: readonly (readonly [number, number])[]
  readonly vjp?: PointwiseAttrs['vjp']
}

/** Formulas over the elements of tensors that broadcast; one output per formula. */
export function pointwiseAll(
  label: string,
  exprs: readonly Expr[],
  inputs: readonly Tensor[],
  options: PointwiseOptions = {},
): Tensor[] {
  const space = options.space ?? broadcastShapes(inputs.map(({ shape }) => shape))
  if (!space)
    throw new Error(`${label}: shapes ${inputs.map(({ shape }) => showShape(shape)).join(', ')} do not broadcast`)
  const used = withoutUnused(exprs, inputs, options.inplace ?? [])
  const { dtypes = exprs.map(() => 'f32' as const), inplace = [], vjp } = options
  const attrs = { label, exprs: used.exprs, space, dtypes, inplace }
  return apply(pointwiseOp, used.inputs, vjp ? { ...attrs, vjp } : attrs, label)
}

/** One formula over the elements of tensors that broadcast. */
export function pointwise(
  label: string,
  exprs: readonly [Expr],
  inputs: readonly Tensor[],
  options: PointwiseOptions = {},
): Tensor {
  const [result] = pointwiseAll(label, exprs, inputs, options)
  if (!result) throw new Error(`${label} has no output`)
  return result
}

/** A derivative often needs fewer inputs than its formula. */
function withoutUnused(exprs: readonly Expr[], inputs: readonly Tensor[], inplace: PointwiseAttrs['inplace']) {
  const seen = new Set<number>(inplace.map(([, index]) => index))
  const visited = new Set<Expr>()
  const visit = (expr: Expr): void => {
    if (visited.has(expr)) return
    visited.add(expr)
    if (expr.kind === 'input') seen.add(expr.index)
    if (expr.kind === 'call') expr.args.forEach(visit)
  }
  exprs.forEach(visit)
  const kept = inputs.flatMap((value, index) => (seen.has(index) ? [{ value, index }] : []))
  const replacements = inputs.map((_, index) => e.input(kept.findIndex((entry) => entry.index === index)))
  return { inputs: kept.map(({ value }) => value), exprs: exprs.map((expr) => e.substitute(expr, replacements)) }
}

/** Sums formulas over the axes in which the result is smaller than the iteration space, or computes formulas of the sums. */
const sumOp = defineOp<SumAttrs>('sum', {
  precision: 'wide',
  shape: (_, { shape, exprs, finish = exprs }) => finish.map(() => spec(shape)),
  vjp: ({ attrs, grads }) => {
    if (attrs.finish) throw new Error('sum: formulas of sums have no gradient: detach what they are computed from')
    // Gradients are taken before fusion, when the formulas still are the inputs themselves.
    return grads.map((dy) => dy && broadcastTo(dy, attrs.space))
  },
  kernel: async (context) => [(await import('./reduce-kernels.js')).sumKernel(context)],
  rowSums: async () => ({ of: (await import('./reduce-kernels.js')).rowSumsOf }),
  join: { set: (parts) => joinedSums(parts) },
  formula: {
    elementwise: false,
    get: ({ exprs, space }) => ({ exprs, space }),
    set: (attrs, exprs) => ({ ...attrs, exprs }),
  },
  divide: {
    arrangement,
    division: (call) => sumBySpace(call),
    rows: (call) => {
      const { space, shape } = call.attrs
      const isPerRow = shape.length === space.length && shape[0] === space[0]
      const attrs = { ...call.attrs, space: rowsOf(space), shape: isPerRow ? rowsOf(shape) : shape }
      return callByRows(call, sumBySpace(call), attrs)
    },
  },
})

/** Sums over the same elements, as sums of one call. */
function joinedSums(parts: readonly BatchedCall<SumAttrs>[]): SumAttrs | undefined {
  const [{ space, shape } = { space: [], shape: [] }] = parts.map(({ attrs }) => attrs)
  if (!parts.every(({ attrs }) => sameShape(attrs.space, space) && sameShape(attrs.shape, shape))) return undefined
  const exprs: Expr[] = []
  const finish = parts.flatMap(({ attrs, inputs }) => {
    const sums = attrs.exprs.map((_, k) => e.input(exprs.length + k))
    exprs.push(...attrs.exprs.map((expr) => e.substitute(expr, inputs.map(e.input))))
    return attrs.finish?.map((expr) => e.substitute(expr, sums)) ?? sums
  })
  return parts.some(({ attrs }) => attrs.finish) ? { exprs, finish, space, shape } : { exprs, space, shape }
}

function sumBySpace(call: Call<SumAttrs>): Division | undefined {
  const { space, shape, exprs, finish } = call.attrs
  const inputs = usesIn(space, call.inputs)
  if (!inputs) return undefined
  const isPerSample = shape.length === space.length && shape[0] === space[0]
  const attrsFor = (attrs: SumAttrs, samples: number) =>
    withSpaceOf(isPerSample ? { ...attrs, shape: [samples, ...shape.slice(1)] } : attrs, samples)
  if (isPerSample) return joinedDivision(call, inputs, attrsFor)
  const sums = exprs.map(() => spec(shape))
  return {
    samples: space[0] ?? 1,
    inputs,
    outputs: sums.map(() => 'summed'),
    piece: (samples) => {
      // Of formulas of sums, the calls for parts give the sums.
      const attrs = { ...attrsFor(call.attrs, samples), ...(finish && { finish: exprs.map((_, k) => e.input(k)) }) }
      const isSum = elements(attrs.space) !== elements(shape)
      return isSum ? { attrs, outputs: sums } : withoutSum(attrs, sums)
    },
    ...(finish && { last: formulasCall(finish, call.outputs) }),
  }
}

/** Formulas of tensors of one shape. */
export const formulasCall = (exprs: readonly Expr[], outputs: readonly Spec[]): OpCall => {
  const dtypes = outputs.map(({ dtype }) => dtype)
  const attrs: PointwiseAttrs = { label: 'sum', exprs, space: outputs[0]?.shape ?? [], dtypes, inplace: [] }
  return { op: pointwiseOp as Op, name: 'sum', attrs, outputs }
}

/** A sum of single elements. */
const withoutSum = ({ exprs, space }: SumAttrs, outputs: readonly Spec[]) => {
  const dtypes = outputs.map(({ dtype }) => dtype)
  const attrs: PointwiseAttrs = { label: 'sum', exprs, space, dtypes, inplace: [] }
  return { op: pointwiseOp as Op, attrs, outputs }
}

/**
 * The sum over the axes in which `shape` has extent 1 or none, as NumPy broadcasting would stretch them: to a scalar,
 * to channels `[C]`, to samples `[N, 1, …]`, to samples and channels `[N, 1, …, C]`, or to rows `[…, 1]`.
 */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x
  if (elements(x.shape) === elements(shape)) return x.reshape(...shape)
  return applyOne(sumOp, [x], { exprs: [e.input(0)], space: x.shape, shape })
}

/** `sumTo` of several tensors of one shape in one pass over them. */
export const sumAllTo = (tensors: readonly Tensor[], shape: Shape): Tensor[] => {
  const space = tensors[0]?.shape ?? []
  const other = tensors.find((value) => !sameShape(value.shape, space))
  if (other) throw new Error(`sumAllTo: shapes ${showShape(space)} and ${showShape(other.shape)} differ`)
  if (elements(space) === elements(shape)) return tensors.map((value) => value.reshape(...shape))
  return apply(sumOp, tensors, { exprs: tensors.map((_, i) => e.input(i)), space, shape })
}

/**
 * Formulas of sums, in one pass: `exprs` of tensors that broadcast, each summed as by `sumTo`, are the inputs of `finish`.
 * They have no gradient.
 *
 * @param shape of each sum; it has fewer elements than what the tensors broadcast to
 * @returns a tensor for each formula of `finish`
 */
export function formulasOfSums(
  exprs: readonly Expr[],
  finish: readonly Expr[],
  tensors: readonly Tensor[],
  shape: Shape,
): Tensor[] {
  const space = broadcastShapes(tensors.map((value) => value.shape))
  if (!space)
    throw new Error(`formulasOfSums: shapes ${tensors.map((t) => showShape(t.shape)).join(', ')} do not broadcast`)
  return apply(sumOp, tensors, { exprs, finish, space, shape })
}

/** The sum of all elements: a scalar. */
export const sum = (x: Tensor): Tensor => sumTo(x, [])

/** Copies a tensor into a part of a larger one. */
export function copyPart(
  label: string,
  { shape: space, dtype }: Spec,
  part: Part,
): { op: Op; name: string; attrs: PointwiseAttrs } {
  const attrs = { label, exprs: [a], space, dtypes: [dtype], inplace: [], part: { ...part, operands: 1 } }
  return { op: pointwiseOp as Op, name: label, attrs }
}

const a = e.input(0)
const b = e.input(1)
const c = e.input(2)

/** a + b, broadcasting. */
export const add = (x: Tensor, y: Tensor): Tensor => pointwise('add', [e.add(a, b)], [x, y])
/** a − b, broadcasting. */
export const sub = (x: Tensor, y: Tensor): Tensor => pointwise('sub', [e.sub(a, b)], [x, y])
/** a · b, broadcasting. */
export const mul = (x: Tensor, y: Tensor): Tensor => pointwise('mul', [e.mul(a, b)], [x, y])
/** a / b, broadcasting. */
export const div = (x: Tensor, y: Tensor): Tensor => pointwise('div', [e.div(a, b)], [x, y])
/** x times a constant. */
export const scale = (x: Tensor, factor: number): Tensor => pointwise('scale', [e.mul(a, e.constant(factor))], [x])

/** max(x, 0); the gradient at 0 is 0, as in PyTorch. */
export const relu = (x: Tensor): Tensor =>
  pointwise('relu', [e.where(e.greater(a, e.constant(0)), a, e.constant(0))], [x], { vjp: reluVjp })

/** By the output rather than the input, which then need not be kept. One function, so that equal calls remain equal. */
const reluVjp: PointwiseAttrs['vjp'] = ({ outputs: [y], grads: [dy] }) =>
  y && dy ? [pointwise('reluGrad', [e.where(e.greater(b, e.constant(0)), a, e.constant(0))], [dy, y])] : [undefined]

/** The Gaussian error linear unit, exactly: x · Φ(x), with Φ the normal distribution, as `torch.nn.GELU` by default. */
export const gelu = (x: Tensor): Tensor => pointwise('gelu', [geluFormula], [x])

const geluFormula = e.formula((x) =>
  e.mul(e.mul(x, e.constant(0.5)), e.add(e.constant(1), e.erf(e.mul(x, e.constant(Math.SQRT1_2))))),
)

/** `yes` where `condition` is not 0, else `no`; all broadcast. Integers below 2^24 are exact. */
export function where(condition: Tensor, yes: Tensor, no: Tensor): Tensor {
  if (isFloat(yes)) return pointwise('where', [e.where(a, b, c)], [condition, yes, no])
  return pointwise('where', [e.where(a, b, c)], [condition, yes, no], { dtypes: ['u32'] })
}

/** Every element `value`. */
export const fill = (shape: Shape, value: number): Tensor =>
  pointwise('fill', [e.constant(value)], [], { space: shape })

/** x repeated along the axes in which `shape` is larger. */
export const broadcastTo = (x: Tensor, shape: Shape): Tensor => pointwise('broadcast', [a], [x], { space: shape })

/** x stored as another type of floating point. */
export const cast = (x: Tensor, dtype: 'f32' | 'f16'): Tensor =>
  x.dtype === dtype ? x : pointwise('cast', [a], [x], { dtypes: [dtype] })

/** The call of `cast`, for `autocast`. */
export const castCall: Cast = ({ shape }, dtype) => {
  const attrs: PointwiseAttrs = { label: 'cast', exprs: [a], space: shape, dtypes: [dtype], inplace: [] }
  return { op: pointwiseOp as Op, name: 'cast', attrs }
}

/** Elements as unsigned 32-bit integers, cut off toward zero. */
export const toU32 = (x: Tensor): Tensor => pointwise('toU32', [a], [x], { dtypes: ['u32'] })

/** 1 where x equals the constant, else 0. */
export const equals = (x: Tensor, value: number): Tensor => pointwise('equals', [e.equal(a, e.constant(value))], [x])

/** 1 where x is at least the constant (rounded to float32), else 0. */
export const atLeast = (x: Tensor, value: number): Tensor =>
  pointwise('atLeast', [e.greaterEqual(a, e.constant(Math.fround(value)))], [x])
