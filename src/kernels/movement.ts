import { applyOne } from '../engine/graph.js'
import { defineOp, type Op, type Part, type Tensor } from '../engine/ir.js'
import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  inputBuffer,
  type Operand,
  outputBuffer,
} from '../engine/kernel.js'
import { elements, isFloat, type Shape, type Spec, sameShape, spec } from '../engine/shape.js'
import { copyPart } from './pointwise.js'
import { shader } from './shaders.js'
import { storedType } from './views.js'

export interface AxisAttrs {
  readonly axis: number
}
export interface RangeAttrs extends AxisAttrs {
  readonly start: number
  readonly size: number
}

/** Elements of one row when everything before `axis` is a row index. */
const pitch = (shape: Shape, axis: number): number => elements(shape.slice(axis))

const withAxis = (shape: Shape, axis: number, extent: number): number[] =>
  shape.map((v, i) => (i === axis ? extent : v))

interface RowCopy {
  readonly rows: number
  /** Elements written per row. */
  readonly chunk: number
  /** Which of them come from x; the others are zero. */
  readonly from: readonly [number, number]
  readonly x: readonly [pitch: number, offset: number]
  readonly y: readonly [pitch: number, offset: number]
}

function copyRows(label: string, [x, y]: readonly [Spec, Spec], reads: Operand[], copy: RowCopy): Dispatch {
  const count = copy.rows * copy.chunk
  const perThread = 4
  const grid = flatGrid(ceilDiv(count, 64 * perThread))
  const source = shader('copy_rows', {
    constants: { PER_THREAD: perThread },
    aliases: { T: storedType(x), U: storedType(y) },
  })
  const uniforms = [count, copy.chunk, ...copy.from, ...copy.x, ...copy.y, grid[0]]
  return { label, source, reads, writes: [outputBuffer(0)], uniforms, grid }
}

/** Where tensors lie along an axis of a larger one. */
interface Placing extends AxisAttrs {
  readonly starts: readonly number[]
}

/** Copies tensors into a larger one, and zeros where none of them lies: each also writes those up to the next. */
function copyTogether(label: string, inputs: readonly Spec[], y: Spec, { axis, starts }: Placing): Candidate {
  const unit = pitch(y.shape, axis + 1)
  const total = y.shape[axis] ?? 0
  const order = inputs.map((_, i) => i).sort((a, b) => (starts[a] ?? 0) - (starts[b] ?? 0))
  const dispatches = order.map((i, place) => {
    const x = inputs[i] ?? spec([])
    const inner = pitch(x.shape, axis)
    const start = (starts[i] ?? 0) * unit
    const from = place === 0 ? 0 : start
    const next = order[place + 1]
    const chunk = (next === undefined ? total : (starts[next] ?? 0)) * unit - from
    const low = start - from
    const rows = elements(y.shape.slice(0, axis))
    const copy: RowCopy = { rows, chunk, from: [low, low + inner], x: [inner, 0], y: [pitch(y.shape, axis), from] }
    return copyRows(label, [x, y], [inputBuffer(i)], copy)
  })
  return { name: 'copy', dispatches }
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
})

/** `size` elements of an axis from `start` on. */
export const slice = (x: Tensor, axis: number, start: number, size: number): Tensor =>
  start === 0 && size === x.shape[axis] ? x : applyOne(sliceOp, [x], { axis, start, size })

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
