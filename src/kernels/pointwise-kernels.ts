import type { Expr } from '../engine/expr.js'
import * as e from '../engine/expr.js'
import type { BatchedCall, Part } from '../engine/ir.js'
import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  inputBuffer,
  type KernelContext,
  outputBuffer,
} from '../engine/kernel.js'
import { withExtensions } from '../engine/shader.js'
import { elements, type Spec, spec } from '../engine/shape.js'
import { inplaceOf, inplaceOfBatch, isFlat, type PointwiseAttrs } from './pointwise-attrs.js'
import { packed, rowWorkgroup } from './shaders.js'
import { extentsOf, loadPack, partsOf, storedPack, storedType, type View, viewIn } from './views.js'

/** The kernel of a call. */
export function pointwiseKernel(context: KernelContext<PointwiseAttrs>): Candidate {
  const { inputs, outputs, attrs } = context
  const views = inputs.slice(0, attrs.part?.operands).map(({ shape }) => viewIn(attrs.space, shape))
  if (attrs.part || !views.every(isFlat)) return rowKernel(context, views)
  return flatKernel(context, [{ attrs, inputs: inputs.map((_, i) => i), outputs: outputs.length }])
}

/** Bindings of the inputs that are not updated in place and of the outputs, and how each input is named in WGSL. */
function bindingsOf(
  { inputs, outputs }: Pick<KernelContext<unknown>, 'inputs' | 'outputs'>,
  inplace: PointwiseAttrs['inplace'],
  views: readonly View[],
  pack: 1 | 4,
) {
  const places = new Map(inplace.map(([out, index]) => [index, out]))
  const reads = inputs.flatMap((_, index) => (places.has(index) ? [] : [inputBuffer(index)]))
  const declarations = [
    ...reads.map(({ index }, i) => {
      const type = storedPack(inputs[index] ?? spec([]), views[index] ?? 'full', pack)
      return `@group(0) @binding(${i + 1}) var<storage, read> x${index}: array<${type}>;`
    }),
    ...outputs.map((out, i) => {
      const type = storedPack(out, 'full', pack)
      return `@group(0) @binding(${reads.length + i + 1}) var<storage, read_write> y${i}: array<${type}>;`
    }),
  ]
  const nameOf = (index: number) => (places.has(index) ? `y${places.get(index)}` : `x${index}`)
  return { reads, writes: outputs.map((_, i) => outputBuffer(i)), declarations: declarations.join('\n'), nameOf }
}

/** Operands and formulas of a call, with the WGSL names of what it loads and stores. */
interface Call {
  readonly exprs: readonly Expr[]
  readonly operands: readonly { readonly spec: Spec; readonly view: View; readonly name: string }[]
  /** `name` with the index at which a pack is stored. */
  readonly results: readonly { readonly spec: Spec; readonly name: string }[]
}

/** Loads that hold for a whole thread; then loads per pack, the formulas per element of it, and the stores. */
function bodyOf({ exprs, operands, results }: Call, pack: 1 | 4): { hoisted: string; perPack: string } {
  const isFixed = ({ view }: Call['operands'][number]) => view === 'scalar' || view === 'channel'
  const loads = operands.map(({ spec, view, name }, k) => `let q${k} = ${loadPack(spec, name, view, pack)};`)
  const formulas = e.wgslStatements(
    exprs,
    operands.map((_, k) => `v${k}`),
  )
  const elements = partsOf[pack].map((part) => {
    const values = operands.map((_, k) => `let v${k} = q${k}${part};`)
    const stored = results.map(({ spec }, k) => {
      return `r${k}${part} = ${spec.dtype === 'f32' ? '' : storedType(spec)}(${formulas.results[k]});`
    })
    return `{\n${[...values, formulas.code, ...stored].join('\n')}\n}`
  })
  return {
    hoisted: loads.filter((_, k) => operands[k] && isFixed(operands[k])).join('\n'),
    perPack: [
      ...loads.filter((_, k) => operands[k] && !isFixed(operands[k])),
      ...results.map(({ spec }, k) => `var r${k}: ${storedPack(spec, 'full', pack)};`),
      ...elements,
      ...results.map(({ name }, k) => `${name} = r${k};`),
    ].join('\n'),
  }
}

const threads = 64

/**
 * Packs per thread, a uniform so that compilers do not unroll the loop. On a CPU driver starting a subgroup costs as much
 * as ten packs, so threads walk many once both cores have work; on a GPU many short threads hide the latency of memory.
 */
function packsPerThread(count: number, software: boolean): number {
  const wanted = software ? Math.floor(count / (threads * 8)) : Math.floor(count / 16384)
  return Math.max(1, Math.min(wanted, software ? 64 : 4))
}

/**
 * Calls whose operands are all full or scalars: elements are walked as one row. Each call has workgroups of its own,
 * up to its `end`.
 */
export function flatKernel(context: KernelContext<unknown>, parts: readonly BatchedCall<PointwiseAttrs>[]): Candidate {
  const { inputs, outputs, adapter } = context
  const counts = parts.map(({ attrs: { space } }) => elements(space))
  const pack = counts.every((count) => count % 4 === 0) ? 4 : 1
  const views = inputs.map(({ shape }): View => (elements(shape) === 1 ? 'scalar' : 'full'))
  const { reads, writes, declarations, nameOf } = bindingsOf(context, inplaceOfBatch(parts), views, pack)
  let first = 0
  let end = 0
  const calls = parts.map(({ attrs, inputs: places, outputs: made }, k) => {
    const operands = places.map((index) => ({
      spec: inputs[index] ?? spec([]),
      view: views[index] ?? 'full',
      name: nameOf(index),
    }))
    const results = Array.from({ length: made }, (_, i) => ({
      spec: outputs[first + i] ?? spec([]),
      name: `y${first + i}[i]`,
    }))
    first += made
    const count = (counts[k] ?? 0) / pack
    const perThread = packsPerThread(count, adapter.software)
    end += Math.max(1, ceilDiv(count, threads * perThread))
    return { ...bodyOf({ exprs: attrs.exprs, operands, results }, pack), uniforms: [count, perThread, end] }
  })
  const [gridX, gridY] = flatGrid(end)
  const functions = calls.map(
    ({ hoisted, perPack }, k) => `fn call${k}(group: u32, lane: u32) {
${hoisted}
let count = u.calls[${k}].count;
let per_thread = u.calls[${k}].per_thread;
let start = group * ${threads}u * per_thread + lane;
for (var k = 0u; k < per_thread; k++) {
let i = start + k * ${threads}u;
if (i >= count) { return; }
${perPack}
}
}
`,
  )
  const begin = (k: number) => (k === 0 ? '' : ` - u.calls[${k - 1}].end`)
  const branches = calls.map((_, k) => `if (group < u.calls[${k}].end) { call${k}(group${begin(k)}, lane); return; }`)
  const source = `struct Call { count: u32, per_thread: u32, end: u32, unused: u32 }
struct Uniforms { calls: array<Call, ${calls.length}>, grid_x: u32 }
@group(0) @binding(0) var<uniform> u: Uniforms;
${declarations}
${functions.join('')}@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
let group = id.x + id.y * u.grid_x;
${branches.join('\n')}
}
`
  const uniforms = [...calls.flatMap((call) => [...call.uniforms, 0]), gridX]
  const label = parts[0]?.attrs.label ?? 'pointwise'
  return single(label, { source, reads, writes, uniforms, grid: [gridX, gridY, 1] })
}

/** Some operand broadcasts: a thread walks rows of one pack of channels, so that nothing is divided per element. */
function rowKernel(context: KernelContext<PointwiseAttrs>, views: readonly View[]): Candidate {
  const { label, exprs, space, part } = context.attrs
  const { rows, channels, rowsPerSample } = extentsOf(space)
  const [pitch, offset] = part ? rowsOfPart(part, channels) : [channels, 0]
  const { pack, packs } = packed(pitch % 4 === 0 && offset % 4 === 0 ? channels : 1)
  const across = pack === 1 ? channels : packs
  const inplace = inplaceOf(context.attrs)
  const { reads, writes, declarations, nameOf } = bindingsOf(context, inplace, views, pack)
  const operands = views.map((view, k) => ({ spec: context.inputs[k] ?? spec([]), view, name: nameOf(k) }))
  const results = context.outputs.map((result, k) => ({ spec: result, name: `y${k}[row * u.pitch + u.offset + c]` }))
  const { hoisted, perPack } = bodyOf({ exprs, operands, results }, pack)
  const { WIDTH, HEIGHT } = rowWorkgroup(across, context.adapter.software)
  const perThread = packsPerThread(rows * across, context.adapter.software)
  const [downX, downY] = flatGrid(ceilDiv(rows, HEIGHT * perThread))
  const source = `struct Uniforms {
  rows: u32, channels: u32, rows_per_sample: u32, grid_y: u32, per_thread: u32, pitch: u32, offset: u32
}
@group(0) @binding(0) var<uniform> u: Uniforms;
${declarations}
@compute @workgroup_size(${WIDTH}, ${HEIGHT})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
let c = group.x * ${WIDTH}u + local.x;
if (c >= u.channels) { return; }
${hoisted}
let rows = u.rows;
let per_thread = u.per_thread;
let start = (group.y + group.z * u.grid_y) * ${HEIGHT}u * per_thread + local.y;
for (var k = 0u; k < per_thread; k++) {
let row = start + k * ${HEIGHT}u;
if (row >= rows) { return; }
let i = row * u.channels + c;
${perPack}
}
}
`
  const uniforms = [rows, across, rowsPerSample, downX, perThread, pitch / pack, offset / pack]
  return single(label, { source, reads, writes, uniforms, grid: [ceilDiv(across, WIDTH), downX, downY] })
}

/** Elements between the beginnings of a part's rows, and those before its first row. */
function rowsOfPart({ axis, start, shape }: Part, channels: number): [pitch: number, offset: number] {
  return axis === shape.length - 1 ? [shape[axis] ?? 0, start] : [channels, start * elements(shape.slice(axis + 1))]
}

const single = (label: string, dispatch: Omit<Dispatch, 'label'>): Candidate => ({
  name: 'pointwise',
  dispatches: [{ label, ...dispatch, source: withExtensions(dispatch.source) }],
})
