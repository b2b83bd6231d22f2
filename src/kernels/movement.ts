import { applyOne } from '../engine/graph.js'
import { type DivideAccess, defineOp, type Op, type OpCall, type Part, type Tensor } from '../engine/ir.js'
import { inputBuffer } from '../engine/kernel.js'
import { elements, isFloat, type Spec, sameShape, spec } from '../engine/shape.js'
import { bySample, callByRows, rowsOf } from './arrangement.js'
import { copyPart } from './pointwise.js'
import { type AxisAttrs, copyRows, copyTogether, type Placing, pitch, type RowCopy, withAxis } from './row-copies.js'

export interface RangeAttrs extends AxisAttrs {
  readonly start: number
  readonly size: number
}

const partsOf = ([y = spec([])]: readonly Spec[], { axis, starts }: Placing): Part[] =>
  starts.map((start) => ({ axis, start, shape: y.shape }))

/** What copies a part computes in floats, which hold other numbers only up to 2^24, and writes whole rows of it. */
const copyOf = (label: string) => (x: Spec, part: Part) =>
  isFloat(x) && (part.axis === 0 || part.axis === part.shape.length - 1) ? copyPart(label, x, part) : undefined

/** The inputs of a concatenation begin where the one before ends. */
const concatenated = (inputs: readonly Spec[], { axis }: AxisAttrs): Placing => {
  let end = 0
  const starts = inputs.map(({ shape }) => {
    end += shape[axis] ?? 0
    return end - (shape[axis] ?? 0)
  })
  return { axis, starts }
}

/**
 * Along the first axis the engine itself puts ranges together.
 * @param times what becomes of the attributes where all extents along the axis are so many times as large
 */
const divide = <A extends AxisAttrs>(times: (attrs: A, rows: number) => A): DivideAccess<A> => {
  const { arrangement, division } = bySample<A>()
  return {
    arrangement,
    division: (call) => (call.attrs.axis === 0 ? undefined : division(call)),
    rows: (call) => {
      const { attrs, inputs, outputs } = call
      const [, rows = 1] = outputs[0]?.shape ?? []
      if (attrs.axis > 0) return attrs.axis === 1 ? undefined : callByRows(call, division(call), attrs)
      const results = outputs.map(({ shape, dtype }) => spec(rowsOf(shape), dtype))
      return [{ attrs: times(attrs, rows), inputs: inputs.map(({ shape }) => rowsOf(shape)), outputs: results }]
    },
  }
}

const concatOp = defineOp<AxisAttrs>('concat', {
  precision: 'same',
  shape: (inputs, { axis }) => {
    const [first] = inputs
    if (!first) throw new Error('nothing to concatenate')
    const total = inputs.reduce((sum, { shape }) => sum + (shape[axis] ?? 0), 0)
    const fits = ({ shape, dtype }: Spec) =>
      dtype === first.dtype && dtype !== 'u8' && sameShape(withAxis(shape, axis, 0), withAxis(first.shape, axis, 0))
    if (!inputs.every(fits)) throw new Error(`shapes differ in another axis than ${axis}, or element types differ`)
    return [spec(withAxis(first.shape, axis, total), first.dtype)]
  },
  vjp: ({ inputs, attrs, grads: [dy], wanted }) => {
    const { axis, starts } = concatenated(inputs, attrs)
    return inputs.map(({ shape }, i) =>
      dy && wanted[i] ? slice(dy, axis, starts[i] ?? 0, shape[axis] ?? 0) : undefined,
    )
  },
  kernel: ({ inputs, outputs: [y = spec([])], attrs }) => [
    copyTogether('concat', inputs, y, concatenated(inputs, attrs)),
  ],
  concat: {
    parts: ({ inputs, outputs, attrs }) => partsOf(outputs, concatenated(inputs, attrs)),
    copy: copyOf('concat'),
  },
  divide: divide((attrs) => attrs),
})

/** Tensors one after the other along an axis; their other extents agree. */
export const concat = (tensors: readonly Tensor[], axis: number): Tensor => {
  const [only] = tensors
  return tensors.length === 1 && only ? only : applyOne(concatOp, tensors, { axis })
}

const sliceOp = defineOp<RangeAttrs>('slice', {
  precision: 'same',
  shape: ([x = spec([])], { axis, start, size }) => {
    const extent = x.shape[axis] ?? 0
    if (start < 0 || size < 1 || start + size > extent) {
      throw new Error(`elements ${start} to ${start + size} of axis ${axis}, which has ${extent}`)
    }
    if (x.dtype === 'u8') throw new Error('bytes cannot be sliced')
    return [spec(withAxis(x.shape, axis, size), x.dtype)]
  },
  vjp: ({ inputs: [x], attrs: { axis, start }, grads: [dy] }) => [x && dy && pad(dy, axis, start, x.shape[axis] ?? 0)],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])], attrs: { axis, start } }) => {
    const chunk = pitch(y.shape, axis)
    const rows = elements(y.shape) / chunk
    const offset = start * pitch(x.shape, axis + 1)
    const copy: RowCopy = { rows, chunk, from: [0, chunk], x: [pitch(x.shape, axis), offset], y: [chunk, 0] }
    return [{ name: 'copy', dispatches: [copyRows('slice', [x, y], [inputBuffer(0)], copy)] }]
  },
  partOfInput: ({ inputs: [x = spec([])], attrs: { axis, start } }) => ({ axis, start, shape: x.shape }),
  divide: divide((attrs, rows) => ({ ...attrs, start: attrs.start * rows, size: attrs.size * rows })),
})

/** `size` elements of an axis from `start` on. */
export const slice = (x: Tensor, axis: number, start: number, size: number): Tensor =>
  start === 0 && size === x.shape[axis] ? x : applyOne(sliceOp, [x], { axis, start, size })

/** The call of `slice`. */
export const sliceCall = ({ shape, dtype }: Spec, axis: number, start: number, size: number): OpCall => ({
  op: sliceOp as Op,
  name: 'slice',
  attrs: { axis, start, size } satisfies RangeAttrs,
  outputs: [spec(withAxis(shape, axis, size), dtype)],
})

interface PadAttrs extends Placing {
  /** Extent of the axis. */
  readonly size: number
}

/** Zeros around tensors along one axis, which gets extent `size`: the gradient of slices. */
const padOp = defineOp<PadAttrs>('pad', {
  precision: 'same',
  shape: ([x = spec([])], { axis, size }) => [spec(withAxis(x.shape, axis, size), x.dtype)],
  vjp: ({ inputs, attrs: { axis, starts }, grads: [dy], wanted }) =>
    inputs.map(({ shape }, i) => (dy && wanted[i] ? slice(dy, axis, starts[i] ?? 0, shape[axis] ?? 0) : undefined)),
  kernel: ({ inputs, outputs: [y = spec([])], attrs }) => [copyTogether('pad', inputs, y, attrs)],
  concat: { parts: ({ outputs, attrs }) => partsOf(outputs, attrs), copy: copyOf('pad') },
  divide: divide((attrs, rows) => ({
    ...attrs,
    starts: attrs.starts.map((start) => start * rows),
    size: attrs.size * rows,
  })),
})

/** Zeros before and behind a tensor along an axis, which gets extent `size`; its elements begin at `start`. */
export const pad = (x: Tensor, axis: number, start: number, size: number): Tensor =>
  start === 0 && size === x.shape[axis] ? x : applyOne(padOp, [x], { axis, starts: [start], size })

/** The sum of tensors of which each is zero where the other is not, without adding; undefined of any others. */
export function joinPadded(a: Tensor, b: Tensor): Tensor | undefined {
  const [first, second] = [paddingOf(a), paddingOf(b)]
  if (!first || !second || first.axis !== second.axis || first.size !== second.size) return undefined
  const parts = [...first.parts, ...second.parts].sort((x, y) => x.start - y.start)
  const isBehind = ({ start }: PaddedPart, i: number) => start >= (parts[i - 1]?.end ?? 0)
  if (!parts.every(isBehind)) return undefined
  const { axis, size } = first
  const starts = parts.map(({ start }) => start)
  return applyOne(
    padOp,
    parts.map(({ value }) => value),
    { axis, starts, size },
  )
}

interface PaddedPart {
  readonly value: Tensor
  readonly start: number
  readonly end: number
}

/** What lies where in a result of `pad`; undefined for any other tensor, or where it is seen under another shape. */
function paddingOf({ node, shape }: Tensor): { axis: number; size: number; parts: PaddedPart[] } | undefined {
  if (node.op !== (padOp as Op) || !sameShape(shape, node.outputs[0]?.shape ?? [])) return undefined
  const { axis, starts, size } = node.attrs as PadAttrs
  const parts = node.inputs.map((value, i) => {
    const start = starts[i] ?? 0
    return { value, start, end: start + (value.shape[axis] ?? 0) }
  })
  return { axis, size, parts }
}

/** Splits a tensor into equal parts along an axis. Throws where the extent is no multiple of `parts`. */
export function split(x: Tensor, axis: number, parts: number): Tensor[] {
  const size = (x.shape[axis] ?? 0) / parts
  if (!Number.isInteger(size)) throw new Error(`split: axis ${axis} of extent ${x.shape[axis]} into ${parts} parts`)
  return Array.from({ length: parts }, (_, i) => slice(x, axis, i * size, size))
}
