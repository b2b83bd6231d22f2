import type { Expr } from '../engine/expr.js'
import * as e from '../engine/expr.js'
import { apply, applyOne, type Tensor } from '../engine/graph.js'
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
  /** What is summed, per element of `space`: one result each. */
  readonly exprs: readonly Expr[]
  readonly space: Shape
  /** Shape of the result: `space` with some axes of extent 1, or a scalar. */
  readonly shape: Shape
}

/** Sums formulas over the axes in which the result is smaller than the iteration space. */
const sumOp = defineOp<SumAttrs>('sum', {
  shape: (_, { shape, exprs }) => exprs.map(() => spec(shape)),
  // Gradients are taken before fusion, when the formulas still are the inputs themselves.
  vjp: ({ attrs, grads }) => grads.map((dy) => dy && broadcastTo(dy, attrs.space)),
  kernel: (context) => [sumKernel(context)],
  formula: {
    elementwise: false,
    get: ({ exprs, space }) => ({ exprs, space }),
    set: (attrs, exprs) => ({ ...attrs, exprs }),
  },
})

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
    attrs.exprs,
    inputs.map((_, i) => `v${i}`),
  )
  const loads = inputs.map((source, i) => {
    const index = indexIn[viewIn(attrs.space, source.shape)]
    return `let v${i} = ${loadAsFloat(source, `x${i}`, index)};`
  })
  const reads = inputs.map((_, i) => input(i))
  const totals = results.map((result, k) => `total${k} += ${result};`)
  const body = [indices, ...loads, code, ...totals].join('\n')
  const extents = { outer, reduced, inner }
  const shape = { count: results.length, uniforms: [channels, rowsPerSample] as const }
  const outputs = results.map((_, k) => output(k))
  if (parts === 1) {
    const dispatch = sumDispatch('sum', inputs, body, extents, 1, shape)
    return { name: 'sum', dispatches: [{ ...dispatch, reads, writes: outputs }] }
  }
  const partial = spec([outer, parts, inner])
  const partials = results.map((_, k) => temporary(k))
  const joined = results.map((_, k) => `total${k} += x${k}[i];`)
  const finish = ['let i = (o * u.reduced + r) * u.inner + n;', ...joined].join('\n')
  const first = sumDispatch('sum', inputs, body, extents, parts, shape)
  const partialSpecs = results.map(() => partial)
  const second = sumDispatch('sum parts', partialSpecs, finish, { outer, reduced: parts, inner }, 1, shape)
  return {
    name: 'sum',
    temporaries: partialSpecs,
    dispatches: [
      { ...first, reads, writes: partials },
      { ...second, reads: partials, writes: outputs },
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
  body: string,
  { outer, reduced, inner }: Extents,
  parts: number,
  { count, uniforms: [channels, rowsPerSample] }: { count: number; uniforms: readonly [number, number] },
): Omit<Dispatch, 'reads' | 'writes'> {
  const tree = inner < 8 && reduced >= 64
  const columns = outer * parts * inner
  const grid = flatGrid(tree ? columns : ceilDiv(columns, 64))
  const each = (line: (k: number) => string) => Array.from({ length: count }, (_, k) => line(k)).join('\n')
  const bindings = inputs.map(
    (source, i) => `@group(0) @binding(${i + 1}) var<storage, read> x${i}: array<${storedType(source)}>;`,
  )
  const source = `struct Uniforms {
  reduced: u32, inner: u32, parts: u32, count: u32, channels: u32, rows_per_sample: u32, grid_x: u32
}
@group(0) @binding(0) var<uniform> u: Uniforms;
${bindings.join('\n')}
${each((k) => `@group(0) @binding(${inputs.length + 1 + k}) var<storage, read_write> y${k}: array<f32>;`)}
${tree ? each((k) => `var<workgroup> lanes${k}: array<f32, 64>;`) : ''}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
let block = group.x + group.y * u.grid_x;
let column = ${tree ? 'block' : 'block * 64u + lane'};
if (column >= u.count) { return; }
let n = column % u.inner;
let p = (column / u.inner) % u.parts;
let o = column / (u.inner * u.parts);
${each((k) => `var total${k} = 0f;`)}
for (var r = ${tree ? 'p * 64u + lane' : 'p'}; r < u.reduced; r += u.parts${tree ? ' * 64u' : ''}) {
${body}
}
${
  tree
    ? `${each((k) => `lanes${k}[lane] = total${k};`)}
for (var half = 32u; half > 0u; half /= 2u) {
workgroupBarrier();
if (lane < half) {
${each((k) => `lanes${k}[lane] += lanes${k}[lane + half];`)}
}
}
if (lane == 0u) {
${each((k) => `y${k}[column] = lanes${k}[0];`)}
}`
    : each((k) => `y${k}[column] = total${k};`)
}
}
`
  return { label, source, uniforms: [reduced, inner, parts, columns, channels, rowsPerSample, grid[0]], grid }
}
