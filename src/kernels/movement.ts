import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, type Dispatch, flatGrid, inputBuffer, type Operand, outputBuffer } from '../engine/kernel.js'
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
  vjp: ({ inputs, attrs: { axis }, grads: [dy], wanted }) => {
    let start = 0
    return inputs.map(({ shape }, i) => {
      const size = shape[axis] ?? 0
      start += size
      return dy && wanted[i] ? slice(dy, axis, start - size, size) : undefined
    })
  },
  kernel: ({ inputs, outputs: [y = spec([])], attrs: { axis } }) => {
    let offset = 0
    const dispatches = inputs.map((x, i) => {
      const chunk = pitch(x.shape, axis)
      const rows = elements(x.shape) / Math.max(1, chunk)
      const copy: RowCopy = { rows, chunk, from: [0, chunk], x: [chunk, 0], y: [pitch(y.shape, axis), offset] }
      offset += chunk
      return copyRows('concat', [x, y], [inputBuffer(i)], copy)
    })
    return [{ name: 'copy', dispatches }]
  },
  concat: {
    // What copies parts computes in floats, which hold other numbers only up to 2^24.
    parts: ({ inputs, outputs: [y = spec([])], attrs: { axis } }) => {
      if (!isFloat(y) || (axis !== 0 && axis !== y.shape.length - 1)) return []
      let start = 0
      return inputs.map(({ shape }) => {
        start += shape[axis] ?? 0
        return { axis, start: start - (shape[axis] ?? 0), shape: y.shape }
      })
    },
    copy: (x, part) => copyPart('concat', x, part),
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
  vjp: ({ inputs: [x], attrs, grads: [dy] }) => [
    x && dy && applyOne(padOp, [dy], { ...attrs, size: x.shape[attrs.axis] ?? 0 }),
  ],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])], attrs: { axis, start } }) => {
    const chunk = pitch(y.shape, axis)
    const rows = elements(y.shape) / chunk
    const offset = start * pitch(x.shape, axis + 1)
    const copy: RowCopy = { rows, chunk, from: [0, chunk], x: [pitch(x.shape, axis), offset], y: [chunk, 0] }
    return [{ name: 'copy', dispatches: [copyRows('slice', [x, y], [inputBuffer(0)], copy)] }]
  },
})

/** `size` elements of an axis from `start` on. */
export const slice = (x: Tensor, axis: number, start: number, size: number): Tensor =>
  start === 0 && size === x.shape[axis] ? x : applyOne(sliceOp, [x], { axis, start, size })

/** Zeros around a tensor along one axis, which gets extent `size`: the gradient of `slice`. */
const padOp = defineOp<RangeAttrs>('pad', {
  precision: 'same',
  shape: ([x = spec([])], { axis, size }) => [spec(withAxis(x.shape, axis, size), x.dtype)],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])], attrs: { axis, start } }) => {
    const chunk = pitch(y.shape, axis)
    const rows = elements(y.shape) / chunk
    const low = start * pitch(y.shape, axis + 1)
    const inner = pitch(x.shape, axis)
    const copy: RowCopy = { rows, chunk, from: [low, low + inner], x: [inner, 0], y: [chunk, 0] }
    return [{ name: 'copy', dispatches: [copyRows('pad', [x, y], [inputBuffer(0)], copy)] }]
  },
})

/** Zeros before and behind a tensor along an axis, which gets extent `size`; its elements begin at `start`. */
export const pad = (x: Tensor, axis: number, start: number, size: number): Tensor =>
  applyOne(padOp, [x], { axis, start, size })

/** Splits a tensor into equal parts along an axis. Throws where the extent is no multiple of `parts`. */
export function split(x: Tensor, axis: number, parts: number): Tensor[] {
  const size = (x.shape[axis] ?? 0) / parts
  if (!Number.isInteger(size)) throw new Error(`split: axis ${axis} of extent ${x.shape[axis]} into ${parts} parts`)
  return Array.from({ length: parts }, (_, i) => slice(x, axis, i * size, size))
}
