import { type Expr, exprSize, hoist } from '../engine/expr.js'
import { applyOne } from '../engine/graph.js'
import {
  type Call,
  type Division,
  defineOp,
  type PrologueAccess,
  type Reading,
  type SummingAccess,
  type Tensor,
} from '../engine/ir.js'
import type { Candidate, KernelContext } from '../engine/kernel.js'
import { elements, type Shape, type Spec, sameShape, showShape, spec } from '../engine/shape.js'
import { arrangement, callByRows, joinedDivision, rowsOf, usesIn } from './arrangement.js'
import type { ConvGeometry, ConvKind } from './conv2d-geometry.js'
import { groupedCandidates, groupedWeightGrad } from './conv2d-grouped.js'
import { convCandidates, onMatrixUnits, sumsRows, timesLoaded, weightGradCandidates } from './conv2d-kernels.js'
import { sliceCall } from './movement.js'
import { formulasCall } from './pointwise.js'
import type { LoadedFormula } from './prologue.js'
import { inplaceOf, readerOf } from './row-sums.js'
import type { Epilogue } from './slice-sums.js'

export interface Conv2dOptions {
  readonly stride?: number
  /** Zeros on every side. */
  readonly padding?: number
  readonly dilation?: number
  /** Groups of channels that see only each other; as many as channels: depthwise. */
  readonly groups?: number
}

export interface ConvAttrs extends Required<Conv2dOptions> {
  /** What is stored, over the result and the operands that follow the operator's own two. */
  readonly epilogue?: Expr
  /** What x is, over what is read in its place and operands that follow those of the epilogue. */
  readonly prologue?: LoadedFormula
  /** A call that reads what is stored, whose outputs follow. */
  readonly reading?: Reading
}

interface SizedAttrs extends ConvAttrs {
  /** Shape of the gradient: that of x or w. */
  readonly size: Shape
}

const withDefaults = ({ stride = 1, padding = 0, dilation = 1, groups = 1 }: Conv2dOptions): ConvAttrs => ({
  stride,
  padding,
  dilation,
  groups,
})

/** Shape of the result; throws what does not fit. */
function convShape(x: Shape, w: Shape, { stride, padding, dilation, groups }: ConvAttrs): number[] {
  const [n = 0, height = 0, width = 0, channels = 0] = x
  const [kh = 0, kw = 0, wIn = 0, wOut = 0] = w
  if (x.length !== 4 || w.length !== 4) throw new Error('expects x [N, H, W, C] and w [KH, KW, C / groups, O]')
  if (channels !== wIn * groups) throw new Error(`x has ${channels} channels, w takes ${wIn} in ${groups} group(s)`)
  if (wOut % groups !== 0) throw new Error(`${wOut} output channels do not divide into ${groups} groups`)
  const extent = (size: number, taps: number) =>
    Math.floor((size + 2 * padding - dilation * (taps - 1) - 1) / stride) + 1
  const shape = [n, extent(height, kh), extent(width, kw), wOut]
  if (shape.some((value) => value < 1)) throw new Error(`the kernel is larger than the padded map: ${showShape(shape)}`)
  return shape
}

const geometryOf = (x: Spec, w: Spec, y: Spec, { stride, padding, dilation, groups }: ConvAttrs): ConvGeometry => {
  const [n = 0, xHeight = 0, xWidth = 0, xChannels = 0] = x.shape
  const [kh = 0, kw = 0] = w.shape
  const [, yHeight = 0, yWidth = 0, yChannels = 0] = y.shape
  return { n, xHeight, xWidth, xChannels, yHeight, yWidth, yChannels, kh, kw, stride, padding, dilation, groups }
}

/** Every element of the result takes one product for each weight of its channel. */
const multiplyAddsOf = (w: Spec, y: Spec): number => (elements(w.shape) / (w.shape[3] ?? 1)) * elements(y.shape)

/** Grouped kernels store their results as they are. */
const withEpilogue = <A extends ConvAttrs>(attrs: A, epilogue: Expr): A | undefined =>
  attrs.groups === 1 && !attrs.epilogue && !attrs.prologue ? { ...attrs, epilogue } : undefined

/** The formula that the result passes through, with the tensors that it reads. */
const epilogueOf = ({ inputs, outputs: [result = spec([])], attrs }: KernelContext<ConvAttrs>): Epilogue | undefined =>
  attrs.epilogue && { expr: attrs.epilogue, operands: inputs.slice(2, attrs.prologue?.first), result }

/** What loads x where a formula computes it. */
const loaderOf = async ({ inputs, attrs: { prologue }, adapter }: KernelContext<ConvAttrs>) =>
  prologue && (await import('./prologue.js')).loaderOf(prologue, inputs, adapter)

/** A convolution or its input gradient as kernels see it. */
function passIn(
  kind: ConvKind,
  { inputs: [a = spec([]), w = spec([])], outputs: [y = spec([])], attrs }: Call<ConvAttrs>,
) {
  const tensors = { factors: [a, w], result: y } as const
  return { tensors, geometry: kind === 'forward' ? geometryOf(a, w, y, attrs) : geometryOf(y, w, a, attrs) }
}

const kernelsOf =
  (kind: ConvKind) =>
  async (whole: KernelContext<ConvAttrs>): Promise<readonly Candidate[]> => {
    const { context, reader } = await readerOf(whole)
    const { tensors, geometry } = passIn(kind, context)
    return context.attrs.groups > 1
      ? groupedCandidates(kind, geometry, tensors, context.adapter)
      : convCandidates(kind, geometry, tensors, context.adapter, epilogueOf(context), reader, await loaderOf(context))
  }

function summing<A extends ConvAttrs>(kind: ConvKind): SummingAccess<A> {
  const fits = (context: KernelContext<A>): boolean => {
    const { attrs, adapter } = context
    if (attrs.groups > 1 || attrs.reading) return false
    const { tensors, geometry } = passIn(kind, context)
    return sumsRows(kind, geometry, tensors, adapter)
  }
  return { fits, set: (context, reading) => (fits(context) ? { ...context.attrs, reading } : undefined) }
}

/** Of a convolution or its input gradient: every image by itself, with the weights and what the epilogue broadcasts. */
function byImages<A extends ConvAttrs>(call: Call<A>, attrsFor?: (attrs: A, samples: number) => A) {
  if (call.attrs.reading || call.attrs.prologue) return undefined
  const operands = usesIn(call.outputs[0]?.shape ?? [], call.inputs.slice(2))
  return operands && joinedDivision(call, ['divided', 'whole', ...operands], attrsFor)
}

/** A convolution that sees one pixel at a time computes each row by itself; undefined of others. */
const byRows = <A extends ConvAttrs>(call: Call<A>, w: Shape, division: Division | undefined, attrs: A) => {
  const isOfPixels = w[0] === 1 && w[1] === 1 && attrs.stride === 1 && attrs.padding === 0
  return isOfPixels ? callByRows(call, division, attrs) : undefined
}

/**
 * Operations of a formula that a kernel spends on an element, over all the times that it loads it: about what GPUs compute in the
 * time of its share of storing the value and loading it, 10 to 40 for a byte, and in part while the units multiply.
 */
const mostOperations = 48

/** @param geometryIn sizes of a call, which is a weight gradient or a convolution */
const prologue = <A extends ConvAttrs>(
  weightGrad: boolean,
  geometryIn: (call: Call<A>) => ConvGeometry,
): PrologueAccess<A> => ({
  set: (context, at, { expr, source, operands }) => {
    const { inputs, outputs, attrs, adapter } = context
    const [a = spec([]), b = spec([])] = inputs
    const isPlain = at === 0 && attrs.groups === 1 && !attrs.prologue && !attrs.reading
    const isOfChannel = ({ shape, dtype }: Spec) => dtype === 'f32' && sameShape(shape, source.shape.slice(-1))
    if (!isPlain || source.dtype !== a.dtype || !operands.every(isOfChannel)) return undefined
    const tensors = { factors: [a, b], result: outputs[0] ?? spec([]) } as const
    const times = timesLoaded(geometryIn(context), tensors, weightGrad, adapter)
    // What depends on the channel alone is computed for many elements at once.
    const { rest } = hoist(expr, (index) => index > 0, operands.length + 1)
    if (times === undefined || times * exprSize([rest]) > mostOperations) return undefined
    return { ...attrs, prologue: { expr, first: inputs.length } }
  },
})

const conv2dOp = defineOp<ConvAttrs>('conv2d', {
  precision: 'half',
  multiplyAdds: ({ inputs: [, w = spec([])], outputs: [y = spec([])] }) => multiplyAddsOf(w, y),
  shape: ([x = spec([]), w = spec([])], attrs) => [spec(convShape(x.shape, w.shape, attrs))],
  vjp: ({ inputs: [x, w], attrs, grads: [dy], wanted }) => {
    if (!x || !w || !dy) return []
    return [
      wanted[0] ? conv2dInputGrad(dy, w, { ...attrs, size: x.shape }) : undefined,
      wanted[1] ? conv2dWeightGrad(x, dy, { ...attrs, size: w.shape }) : undefined,
    ]
  },
  kernel: kernelsOf('forward'),
  inplace: ({ reading }) => inplaceOf(reading),
  epilogue: { set: withEpilogue },
  prologue: prologue(false, (call) => passIn('forward', call).geometry),
  summing: summing('forward'),
  divide: {
    arrangement,
    division: (call) => byImages(call),
    rows: (call) => byRows(call, call.inputs[1]?.shape ?? [], byImages(call), call.attrs),
  },
})

const inputGradOp = defineOp<SizedAttrs>('conv2dInputGrad', {
  precision: 'half',
  multiplyAdds: ({ inputs: [dy = spec([]), w = spec([])] }) => multiplyAddsOf(w, dy),
  shape: ([dy = spec([]), w = spec([])], attrs) => {
    const expected = convShape(attrs.size, w.shape, attrs)
    if (!sameShape(expected, dy.shape)) throw new Error(`the convolution's result is ${showShape(expected)}`)
    return [spec(attrs.size)]
  },
  // Linear in both arguments, so second derivatives are convolutions again.
  vjp: ({ inputs: [dy, w], attrs, grads: [dx], wanted }) => {
    if (!dy || !w || !dx) return []
    return [
      wanted[0] ? conv2d(dx, w, attrs) : undefined,
      wanted[1] ? conv2dWeightGrad(dx, dy, { ...attrs, size: w.shape }) : undefined,
    ]
  },
  kernel: kernelsOf('inputGrad'),
  inplace: ({ reading }) => inplaceOf(reading),
  epilogue: { set: withEpilogue },
  summing: summing('inputGrad'),
  channels: {
    part: (context, start, size) => {
      const { inputs, attrs, adapter } = context
      const { tensors, geometry } = passIn('inputGrad', context)
      const [, w] = inputs
      if (!w || attrs.groups > 1 || attrs.epilogue || attrs.reading) return undefined
      if (!onMatrixUnits('inputGrad', geometry, tensors, adapter)) return undefined
      return {
        attrs: { ...attrs, size: [...attrs.size.slice(0, 3), size] },
        at: 1,
        slice: sliceCall(w, 2, start, size),
      }
    },
  },
  divide: {
    arrangement,
    division: (call) => byImages(call, (attrs, samples) => ({ ...attrs, size: [samples, ...attrs.size.slice(1)] })),
    rows: (call) => {
      const attrs = { ...call.attrs, size: rowsOf(call.attrs.size) }
      return byRows(call, call.inputs[1]?.shape ?? [], byImages(call), attrs)
    },
  },
})

/** The weights' gradient is the sum of the images', which then passes through the formula. */
function sumOfImages({ inputs, outputs, attrs: { epilogue, ...attrs } }: Call<SizedAttrs>): Division | undefined {
  if (attrs.prologue) return undefined
  return {
    samples: inputs[0]?.shape[0] ?? 1,
    inputs: inputs.map((_, i) => (i < 2 ? 'divided' : 'last')),
    outputs: ['summed'],
    piece: () => ({ attrs, outputs: epilogue ? [spec(attrs.size)] : outputs }),
    ...(epilogue && { last: formulasCall([epilogue], outputs) }),
  }
}

const weightGradGeometry = ({ inputs: [x, dy], outputs: [dw], attrs }: Call<SizedAttrs>): ConvGeometry =>
  geometryOf(x ?? spec([]), dw ?? spec([]), dy ?? spec([]), attrs)

const weightGradOp = defineOp<SizedAttrs>('conv2dWeightGrad', {
  precision: 'sum',
  multiplyAdds: ({ inputs: [, dy = spec([])], outputs: [dw = spec([])] }) => multiplyAddsOf(dw, dy),
  shape: ([x = spec([]), dy = spec([])], attrs) => {
    const expected = convShape(x.shape, attrs.size, attrs)
    if (!sameShape(expected, dy.shape)) throw new Error(`the convolution's result is ${showShape(expected)}`)
    return [spec(attrs.size)]
  },
  kernel: async (context) => {
    const {
      inputs: [x = spec([]), dy = spec([])],
      outputs: [dw = spec([])],
      attrs,
      adapter,
    } = context
    const tensors = { factors: [x, dy], result: dw } as const
    const geometry = weightGradGeometry(context)
    return attrs.groups > 1
      ? groupedWeightGrad(geometry, tensors, adapter)
      : weightGradCandidates(geometry, tensors, adapter, epilogueOf(context), await loaderOf(context))
  },
  epilogue: { set: withEpilogue },
  prologue: prologue(true, weightGradGeometry),
  divide: {
    arrangement,
    division: (call) => sumOfImages(call),
    rows: (call) => byRows(call, call.attrs.size, sumOfImages(call), call.attrs),
  },
})

/**
 * 2-D cross-correlation as `torch.nn.functional.conv2d` without bias.
 *
 * @param x [N, H, W, C]
 * @param w [KH, KW, C / groups, O]
 * @returns [N, OH, OW, O] with OH = ⌊(H + 2 padding − dilation (KH − 1) − 1) / stride⌋ + 1
 */
export const conv2d = (x: Tensor, w: Tensor, options: Conv2dOptions = {}): Tensor =>
  applyOne(conv2dOp, [x, w], withDefaults(options))

/**
 * Gradient of `conv2d` with respect to its input.
 *
 * @param dy [N, OH, OW, O]
 * @param w [KH, KW, C / groups, O]
 * @param options those of the convolution, and `size`, the shape of x
 */
export const conv2dInputGrad = (dy: Tensor, w: Tensor, options: Conv2dOptions & { size: Shape }): Tensor =>
  applyOne(inputGradOp, [dy, w], { ...withDefaults(options), size: options.size })

/**
 * Gradient of `conv2d` with respect to its weights.
 *
 * @param x [N, H, W, C]
 * @param dy [N, OH, OW, O]
 * @param options those of the convolution, and `size`, the shape of w
 */
export const conv2dWeightGrad = (x: Tensor, dy: Tensor, options: Conv2dOptions & { size: Shape }): Tensor =>
  applyOne(weightGradOp, [x, dy], { ...withDefaults(options), size: options.size })
