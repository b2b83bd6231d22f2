import * as e from '../engine/expr.js'
import type { Expr } from '../engine/expr.js'
import { applyOne, type Tensor } from '../engine/graph.js'
import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  defineOp,
  flatGrid,
  input,
  type KernelContext,
  output,
  temporary,
} from '../engine/op.js'
import { elements, type Shape, type Spec, sameShape, showShape, spec } from '../engine/shape.js'
import { broadcastTo } from './pointwise.js'
import { extentsOf, indexIn, loadAsFloat, storedType, type View, viewIn } from './views.js'

interface SumAttrs {
  /** What is summed, per element of `space`. */
  readonly expr: Expr
  readonly space: Shape
  /** Shape of the result: `space` with some axes of extent 1, or a scalar. */
  readonly shape: Shape
}

/** Sums a formula over the axes in which the result is smaller than the iteration space. */
const sumOp = defineOp<SumAttrs>('sum', {
  shape: (_, { shape }) => [spec(shape)],
  // Gradients are taken before fusion, when the formula still is the input itself.
  vjp: ({ attrs, grads: [dy] }) => [dy && broadcastTo(dy, attrs.space)],
  kernel: (context) => [sumKernel(context)],
  formula: {
    elementwise: false,
    get: ({ expr, space }) => ({ exprs: [expr], space }),
    set: (attrs, [expr]) => ({ ...attrs, expr: expr ?? attrs.expr }),
  },
})

/**
 * The sum over the axes in which `shape` has extent 1 or none, as NumPy broadcasting would stretch them: to a scalar,
 * to channels `[C]`, to samples `[N, 1, …]`, to samples and channels `[N, 1, …, C]`, or to rows `[…, 1]`.
 */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x
  if (elements(x.shape) === elements(shape)) return x.reshape(...shape)
  return applyOne(sumOp, [x], { expr: e.input(0), space: x.shape, shape })
}

/** The sum of all elements: a scalar. */
export const sum = (x: Tensor): Tensor => sumTo(x, [])

/** An iteration space as [outer, reduced, inner]: the result is [outer, inner]. */
interface Extents {
  readonly outer: number
  readonly reduced: number
  readonly inner: number
}

/** How element (o, r, n) is named as flat index `i`, `row` and channel `c`. */
function geometry(space: Shape, shape: Shape): Extents & { indices: string } {
  const { rows, channels, rowsPerSample } = extentsOf(space)
  const view: View = elements(shape) === 1 ? 'scalar' : viewIn(space, shape)
  const byChannel = 'let row = o * u.reduced + r; let c = n; let i = row * u.channels + c;'
  const byElement = 'let i = o * u.reduced + r; let row = i / u.channels; let c = i - row * u.channels;'
  switch (view) {
    case 'scalar':
      return { outer: 1, reduced: rows * channels, inner: 1, indices: byElement }
    case 'channel':
      return { outer: 1, reduced: rows, inner: channels, indices: byChannel }
    case 'sample':
      return { outer: rows / rowsPerSample, reduced: rowsPerSample * channels, inner: 1, indices: byElement }
    case 'sampleChannel':
      return { outer: rows / rowsPerSample, reduced: rowsPerSample, inner: channels, indices: byChannel }
    case 'row':
      return { outer: rows, reduced: channels, inner: 1, indices: 'let row = o; let c = r; let i = o * u.reduced + r;' }
    default:
      throw new Error(`sum: ${showShape(shape)} is not ${showShape(space)} with axes summed`)
  }
}

/** Sums in one dispatch where that is enough work for the adapter's threads, else in parts and then over the parts. */
function sumKernel(context: KernelContext<SumAttrs>): Candidate {
  const { inputs, attrs, adapter } = context
  const { outer, reduced, inner, indices } = geometry(attrs.space, attrs.shape)
  const { channels, rowsPerSample } = extentsOf(attrs.space)
  const wanted = adapter.software ? 16 : 512
  const parts = Math.max(1, Math.min(256, ceilDiv(reduced, 256), ceilDiv(wanted, outer * ceilDiv(inner, 64))))
  const { code, results } = e.wgslStatements(
    [attrs.expr],
    inputs.map((_, i) => `v${i}`),
  )
  const loads = inputs.map((source, i) => {
    const index = indexIn[viewIn(attrs.space, source.shape)]
    return `let v${i} = ${loadAsFloat(source, `x${i}`, index)};`
  })
  const value = `${indices}\n${loads.join('\n')}\n${code}\ntotal += ${results[0]};`
  const first = sumDispatch('sum', inputs, value, { outer, reduced, inner }, parts, [channels, rowsPerSample])
  const reads = inputs.map((_, i) => input(i))
  if (parts === 1) return { name: 'sum', dispatches: [{ ...first, reads, writes: [output(0)] }] }
  const partial = spec([outer, parts, inner])
  const finish = 'let i = (o * u.reduced + r) * u.inner + n; total += x0[i];'
  const second = sumDispatch('sum parts', [partial], finish, { outer, reduced: parts, inner }, 1, [1, 1])
  return {
    name: 'sum',
    temporaries: [partial],
    dispatches: [
      { ...first, reads, writes: [temporary(0)] },
      { ...second, reads: [temporary(0)], writes: [output(0)] },
    ],
  }
}

/**
 * One pass over [outer, reduced, inner] to [outer, parts, inner]. With an inner axis each thread owns one column;
 * without one the threads of a workgroup share the reduced axis and add up in a tree.
 */
function sumDispatch(
  label: string,
  inputs: readonly Spec[],
  value: string,
  { outer, reduced, inner }: Extents,
  parts: number,
  [channels, rowsPerSample]: [number, number],
): Omit<Dispatch, 'reads' | 'writes'> {
  const tree = inner < 8 && reduced >= 64
  const grid = tree ? flatGrid(outer * parts * inner) : flatGrid(ceilDiv(outer * parts * inner, 64))
  const bindings = inputs.map(
    (source, i) => `@group(0) @binding(${i + 1}) var<storage, read> x${i}: array<${storedType(source)}>;`,
  )
  const source = `struct Uniforms {
  reduced: u32, inner: u32, parts: u32, count: u32, channels: u32, rows_per_sample: u32, grid_x: u32
}
@group(0) @binding(0) var<uniform> u: Uniforms;
${bindings.join('\n')}
@group(0) @binding(${inputs.length + 1}) var<storage, read_write> y: array<f32>;
${tree ? 'var<workgroup> shared_totals: array<f32, 64>;' : ''}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
let block = group.x + group.y * u.grid_x;
${tree ? 'let target_index = block;' : 'let target_index = block * 64u + lane;'}
if (target_index >= u.count) { return; }
let n = target_index % u.inner;
let p = (target_index / u.inner) % u.parts;
let o = target_index / (u.inner * u.parts);
let first = ${tree ? 'p * 64u + lane' : 'p'};
let stride = u.parts${tree ? ' * 64u' : ''};
var total = 0f;
for (var r = first; r < u.reduced; r += stride) {
${value}
}
${
  tree
    ? `shared_totals[lane] = total;
for (var half = 32u; half > 0u; half /= 2u) {
workgroupBarrier();
if (lane < half) { shared_totals[lane] += shared_totals[lane + half]; }
}
if (lane == 0u) { y[target_index] = shared_totals[0]; }`
    : 'y[target_index] = total;'
}
}
`
  const uniforms = [reduced, inner, parts, outer * parts * inner, channels, rowsPerSample, grid[0]]
  return { label, source, uniforms, grid }
}
