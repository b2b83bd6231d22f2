import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { type Candidate, ceilDiv, flatGrid, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { elements, type Shape, type Spec, spec } from '../engine/shape.js'
import { arrangement, bySample } from './arrangement.js'
import { exchangeAxes } from './exchange-axes.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { packType } from './views.js'

export interface PermuteAttrs {
  /** Axis k of the result is axis `axes[k]` of the operand. */
  readonly axes: readonly number[]
}

/** An axis of the result: its extent, and how far apart its elements lie in the operand. */
interface Axis {
  readonly extent: number
  readonly stride: number
}

/** The axes of the result without those of extent 1, neighbours that lie in the operand as one joined. */
function axesOf(shape: Shape, axes: readonly number[]): Axis[] {
  const joined: Axis[] = []
  for (const axis of axes) {
    const extent = shape[axis] ?? 1
    const stride = elements(shape.slice(axis + 1))
    const before = joined.at(-1)
    if (extent === 1) continue
    if (before && before.stride === extent * stride) joined.splice(-1, 1, { extent: before.extent * extent, stride })
    else joined.push({ extent, stride })
  }
  return joined
}

/** Element by element of the result, four at once where they lie together in the operand too. */
function gather(x: Spec, y: Spec, axes: readonly Axis[]): Candidate {
  const last = axes.at(-1)
  const isRow = last === undefined || last.stride === 1
  const pack = isRow && [last?.extent ?? 1, ...axes.slice(0, -1).map(({ stride }) => stride)].every((n) => n % 4 === 0)
  const size = pack ? 4 : 1
  const packs = axes.map(({ extent, stride }, k) =>
    k === axes.length - 1 && pack ? [extent / 4, 1] : [extent, stride / size],
  )
  const perThread = 4
  const count = elements(x.shape) / size
  const grid = flatGrid(ceilDiv(count, 64 * perThread))
  const source = shader(shaders.permute, {
    constants: { RANK: Math.max(1, axes.length), PER_THREAD: perThread },
    aliases: { T: packType(x, size), U: packType(y, size) },
  })
  const words = (packs.length > 0 ? packs : [[1, 1]]).flatMap(([extent = 1, stride = 1]) => [extent, stride, 0, 0])
  const uniforms = [count, grid[0], 0, 0, ...words]
  const dispatch = { label: 'permute', source, reads: [inputBuffer(0)], writes: [outputBuffer(0)], uniforms, grid }
  return { name: 'gather', dispatches: [dispatch] }
}

/** Where the last two joined axes are exchanged, and nothing else: a thread takes some of its row's elements. */
function exchange(x: Spec, y: Spec, axes: readonly Axis[]): Candidate | undefined {
  const [rows, columns] = axes.slice(-2)
  const planes = axes.length === 3 ? axes[0] : { extent: 1, stride: 0 }
  const isExchange = rows?.stride === 1 && columns?.stride === rows.extent && axes.length <= 3
  if (!isExchange || !planes || planes.extent > 65535) return undefined
  if (axes.length === 3 && planes.stride !== rows.extent * columns.extent) return undefined
  const sizes = [planes.extent, columns.extent, rows.extent] as const
  const dispatch = exchangeAxes('permute', [x, y], sizes, inputBuffer(0), outputBuffer(0))
  return { name: 'transpose', dispatches: [dispatch] }
}

const permuteOp = defineOp<PermuteAttrs>('permute', {
  precision: 'same',
  divide: {
    arrangement,
    division: (call) => (call.attrs.axes[0] === 0 ? bySample<PermuteAttrs>().division(call) : undefined),
  },
  shape: ([x = spec([])], { axes }) => {
    const inOrder = [...axes].sort((a, b) => a - b)
    if (axes.length !== x.shape.length || inOrder.some((axis, k) => axis !== k)) {
      throw new Error(`axes [${axes.join(', ')}] must name each of the ${x.shape.length} axes once, from 0 on`)
    }
    if (x.dtype === 'u8') throw new Error('bytes cannot be permuted')
    const shape = axes.map((axis) => x.shape[axis] ?? 0)
    return [spec(shape, x.dtype)]
  },
  vjp: ({ attrs: { axes }, grads: [dy] }) => [
    dy &&
      permute(
        dy,
        axes.map((_, k) => axes.indexOf(k)),
      ),
  ],
  kernel: ({ inputs: [x = spec([])], outputs: [y = spec([])], attrs: { axes } }) => {
    const joined = axesOf(x.shape, axes)
    const exchanged = exchange(x, y, joined)
    return exchanged ? [exchanged, gather(x, y, joined)] : [gather(x, y, joined)]
  },
})

/**
 * A tensor with its axes in another order, as NumPy's `transpose`.
 *
 * @param axes axis k of the result is axis `axes[k]` of x
 */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const stays = axes.length === x.shape.length && axes.every((axis, k) => axis === k)
  return stays ? x : applyOne(permuteOp, [x], { axes })
}
