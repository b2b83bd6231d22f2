import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  inputBuffer,
  type Operand,
  outputBuffer,
} from '../engine/kernel.js'
import { elements, type Shape, type Spec, spec } from '../engine/shape.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { storedType } from './views.js'

export interface AxisAttrs {
  readonly axis: number
}

/** Elements of one row when everything before `axis` is a row index. */
export const pitch = (shape: Shape, axis: number): number => elements(shape.slice(axis))

export const withAxis = (shape: Shape, axis: number, extent: number): number[] =>
  shape.map((v, i) => (i === axis ? extent : v))

export interface RowCopy {
  readonly rows: number
  /** Elements written per row. */
  readonly chunk: number
  /** Which of them come from x; the others are zero. */
  readonly from: readonly [number, number]
  readonly x: readonly [pitch: number, offset: number]
  readonly y: readonly [pitch: number, offset: number]
}

/** One dispatch that copies rows of a tensor to rows of another one. */
export function copyRows(label: string, [x, y]: readonly [Spec, Spec], reads: Operand[], copy: RowCopy): Dispatch {
  const count = copy.rows * copy.chunk
  const perThread = 4
  const grid = flatGrid(ceilDiv(count, 64 * perThread))
  const source = shader(shaders.copy_rows, {
    constants: { PER_THREAD: perThread },
    aliases: { T: storedType(x), U: storedType(y) },
  })
  const uniforms = [count, copy.chunk, ...copy.from, ...copy.x, ...copy.y, grid[0]]
  return { label, source, reads, writes: [outputBuffer(0)], uniforms, grid }
}

/** Where tensors lie along an axis of a larger one. */
export interface Placing extends AxisAttrs {
  readonly starts: readonly number[]
}

/** Copies tensors into a larger one, and zeros where none of them lies: each also writes those up to the next. */
export function copyTogether(label: string, inputs: readonly Spec[], y: Spec, { axis, starts }: Placing): Candidate {
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
