import type { Expr } from '../engine/expr.js'
import * as e from '../engine/expr.js'
import type { RowSums } from '../engine/ir.js'
import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  inputBuffer,
  type KernelContext,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import { withExtensions } from '../engine/shader.js'
import { elements, type Shape, type Spec, sameShape, showShape, spec } from '../engine/shape.js'
import { packed, rowWorkgroup } from './shaders.js'
import { extentsOf, loadPack, partsOf, storedPack, type View, viewIn } from './views.js'

export interface SumAttrs {
  /** What is summed, per element of `space`. */
  readonly exprs: readonly Expr[]
  /** The results as formulas of the sums, which are its inputs; where absent, the sums themselves. */
  readonly finish?: readonly Expr[]
  readonly space: Shape
  /** Shape of the result: `space` with some axes of extent 1, or a scalar. */
  readonly shape: Shape
}

/** How the elements of an iteration space are added up. */
interface Geometry {
  /** The space as [outer, reduced, inner]; the result is [outer, inner]. */
  readonly outer: number
  readonly reduced: number
  readonly inner: number
  /** Whether `inner` are channels, and `reduced` rows; else `inner` is 1. */
  readonly byChannel: boolean
  /** WGSL of the first row that goes into result `o`. */
  readonly firstRow: string
  /** WGSL of `row` and channel `c` of element `r` of a result, whose index is `i`. */
  readonly indices: string
  /** Views of operands of which one element goes into a result. */
  readonly fixed: readonly View[]
}

const rowByRow = { byChannel: true, indices: 'let row = first_row + r; let c = n;' }

/** All rows of each channel. */
const geometryOfChannels = (rows: number, channels: number): Geometry => ({
  ...{ ...rowByRow, inner: channels, outer: 1, reduced: rows, firstRow: '0u' },
  fixed: ['scalar', 'channel'],
})

function geometryOf(space: Shape, shape: Shape): Geometry {
  const { rows, channels, rowsPerSample } = extentsOf(space)
  const samples = rows / rowsPerSample
  const view: View = elements(shape) === 1 ? 'scalar' : viewIn(space, shape)
  const byElement = { byChannel: false, inner: 1, indices: 'let row = i / u.channels; let c = i - row * u.channels;' }
  switch (view) {
    case 'scalar':
      return { ...byElement, outer: 1, reduced: rows * channels, firstRow: '0u', fixed: ['scalar'] }
    case 'sample': {
      const extents = { outer: samples, reduced: rowsPerSample * channels }
      return { ...byElement, ...extents, firstRow: 'o * u.rows_per_sample', fixed: ['scalar', 'sample'] }
    }
    case 'row': {
      const indices = 'let row = o; let c = r;'
      const fixed: View[] = ['scalar', 'sample', 'row']
      return { ...byElement, outer: rows, reduced: channels, firstRow: 'o', indices, fixed }
    }
    case 'channel':
      return geometryOfChannels(rows, channels)
    case 'sampleChannel': {
      const fixed: View[] = ['scalar', 'channel', 'sample', 'sampleChannel']
      return { ...rowByRow, inner: channels, outer: samples, reduced: rowsPerSample, firstRow: 'o * u.reduced', fixed }
    }
    default:
      throw new Error(`sum: ${showShape(shape)} is not ${showShape(space)} with axes summed`)
  }
}

/** What is added up. */
interface Terms {
  readonly operands: readonly { readonly spec: Spec; readonly view: View }[]
  readonly exprs: readonly Expr[]
  readonly finish?: readonly Expr[] | undefined
  /** Whether all operands lie one after the other in one buffer. */
  readonly stacked?: boolean
  /** Whether threads add up chunks first, so that long sums round less: a formula of sums may cancel most of them. */
  readonly chunked: boolean
  /** Extents by which operands that broadcast are indexed. */
  readonly channels: number
  readonly rowsPerSample: number
}

/** Sums in one dispatch where that is enough work for the adapter's threads, else in parts and then over the parts. */
export function sumKernel({ inputs, attrs, adapter }: KernelContext<SumAttrs>): Candidate {
  const geometry = geometryOf(attrs.space, attrs.shape)
  const operands = inputs.map((spec) => ({ spec, view: viewIn(attrs.space, spec.shape) }))
  const { exprs, finish } = attrs
  const chunked = finish !== undefined
  const terms: Terms = { operands, exprs, chunked, ...extentsOf(attrs.space) }
  const walk = walkOf(geometry, terms, adapter.software)
  const parts = partsOfSum(geometry, walk, inputs.length, adapter.software)
  const reads = inputs.map((_, i) => inputBuffer(i))
  const outputs = (finish ?? exprs).map((_, k) => outputBuffer(k))
  const first = sumDispatch('sum', geometry, parts === 1 ? { ...terms, finish } : terms, walk, parts)
  if (parts === 1) return { name: 'sum', dispatches: [{ ...first, reads, writes: outputs }] }
  const { outer, inner } = geometry
  const partial = spec([outer, parts, inner])
  const partials = exprs.map((_, k) => temporaryBuffer(k))
  const overParts = geometryOf(partial.shape, [outer, 1, inner])
  const joined: Terms = {
    operands: exprs.map(() => ({ spec: partial, view: 'full' })),
    exprs: exprs.map((_, k) => e.input(k)),
    finish,
    chunked,
    ...extentsOf(partial.shape),
  }
  const second = sumDispatch('sum parts', overParts, joined, walkOf(overParts, joined, adapter.software), 1)
  return {
    name: 'sum',
    temporaries: partials.map(() => partial),
    dispatches: [
      { ...first, reads, writes: partials },
      { ...second, reads: partials, writes: outputs },
    ],
  }
}

/** The same by sums of a kernel that stores an input, where they are those of channels over all rows. */
export function rowSumsOf({ inputs, attrs }: KernelContext<SumAttrs>, input: number): RowSums | undefined {
  const { exprs, finish, space, shape } = attrs
  const isOfChannels = elements(shape) > 1 && viewIn(space, shape) === 'channel'
  if (!isOfChannels || !sameShape(inputs[input]?.shape ?? [], space)) return undefined
  const operands = inputs.map((_, i) => i).filter((i) => i !== input)
  const places = inputs.map((_, i) => e.input(i === input ? 0 : 2 + operands.indexOf(i)))
  return {
    operands,
    terms: exprs.map((expr) => e.substitute(expr, places)),
    kept: exprs.map((_, k) => e.input(k)),
    finish: (buffer, stretches) => {
      const channels = elements(shape)
      const part = spec([1, stretches, channels])
      const geometry = geometryOfChannels(stretches, channels)
      const joined: Terms = {
        operands: exprs.map(() => ({ spec: part, view: 'full' })),
        stacked: true,
        exprs: exprs.map((_, k) => e.input(k)),
        finish,
        chunked: finish !== undefined,
        ...extentsOf(part.shape),
      }
      const outputs = (finish ?? exprs).map((_, k) => outputBuffer(k))
      // There are thousands of stretches: a workgroup for each few channels.
      const walk: Walk = { WIDTH: 1, HEIGHT: 64, pack: packed(channels).pack }
      const dispatch = sumDispatch('sum parts', geometry, joined, walk, 1)
      return { ...dispatch, reads: [buffer], writes: outputs }
    },
  }
}

/** Elements of a chunk. */
const chunk = 32

/** How threads walk: `WIDTH` of a workgroup along the results, `HEIGHT` that share the elements of one. */
interface Walk {
  readonly WIDTH: number
  readonly HEIGHT: number
  /** Elements that a thread takes at once: channels, or elements of one sum. */
  readonly pack: 1 | 4
}

function walkOf({ reduced, inner, byChannel }: Geometry, { operands, channels }: Terms, software: boolean): Walk {
  if (byChannel && inner > 1) {
    const { pack, packs } = packed(inner)
    const { WIDTH, HEIGHT } = rowWorkgroup(packs, software)
    // On a CPU driver a barrier costs as much as dozens of loads.
    const useful = software ? 2 ** Math.floor(Math.log2(Math.max(1, reduced / 64))) : HEIGHT
    return { WIDTH, HEIGHT: Math.min(HEIGHT, useful), pack }
  }
  // A pack must not cross the border of a sum, nor that of a row where an operand broadcasts.
  const flat = operands.every(({ view }) => view === 'full' || view === 'scalar')
  const pack = !byChannel && (flat ? reduced : channels) % 4 === 0 ? 4 : 1
  return reduced < 256 ? { WIDTH: 64, HEIGHT: 1, pack } : { WIDTH: 1, HEIGHT: 64, pack }
}

/** Into how many parts each sum is split, for as many workgroups as the adapter needs. */
function partsOfSum({ outer, reduced, inner }: Geometry, walk: Walk, operands: number, software: boolean): number {
  const { WIDTH, HEIGHT, pack } = walk
  const groups = ceilDiv((outer * inner) / (inner > 1 ? pack : 1), WIDTH)
  // A CPU driver spends as long on another dispatch as a core does on some 2^18 elements.
  const isShort = outer * reduced * inner * operands < 2 ** 18
  if (software && (isShort || groups > 2)) return 1
  const wanted = software ? 16 : 1024
  const most = software ? 256 : 512
  return Math.max(1, Math.min(most, ceilDiv(wanted, groups), ceilDiv(reduced, HEIGHT * 4 * (inner > 1 ? 1 : pack))))
}

/** One pass over [outer, reduced, inner] to [outer, parts, inner]. */
function sumDispatch(
  label: string,
  geometry: Geometry,
  terms: Terms,
  { WIDTH, HEIGHT, pack }: Walk,
  parts: number,
): Omit<Dispatch, 'reads' | 'writes'> {
  const { byChannel, firstRow, indices, fixed } = geometry
  const { operands, exprs, finish, chunked, stacked } = terms
  const inner = byChannel ? geometry.inner / pack : 1
  const reduced = byChannel ? geometry.reduced : geometry.reduced / pack
  // Neighbouring threads take neighbouring elements; threads that share rows take neighbouring rows each.
  const perThread = ceilDiv(reduced, parts * HEIGHT)
  const interleaved = WIDTH === 1
  const step = interleaved ? HEIGHT : 1
  const columns = geometry.outer * inner
  const [gridX, gridY] = flatGrid(ceilDiv(columns, WIDTH))
  const { code, results } = e.wgslStatements(
    exprs,
    operands.map((_, i) => `v${i}`),
  )
  const loads = operands.map(({ spec, view }, i) => {
    const load = stacked ? `x0[i + ${i}u * u.reduced * u.inner]` : loadPack(spec, `x${i}`, view, pack)
    return `let q${i} = ${load};`
  })
  const isFixed = (i: number) => fixed.includes(operands[i]?.view ?? 'full')
  const sum = chunked ? 'chunk' : 'total'
  const perPart = partsOf[pack].map((part) => {
    const values = operands.map((_, i) => `let v${i} = q${i}${part};`).join(' ')
    return `{\n${values}\n${code}\n${results.map((result, k) => `${sum}${k}${part} += ${result};`).join(' ')}\n}`
  })
  const each = (line: (k: number) => string) => results.map((_, k) => line(k)).join('\n')
  const packType = pack === 4 ? 'vec4f' : 'f32'
  const sums = exprs.map((_, k) => (byChannel || pack === 1 ? `total${k}` : `dot(total${k}, vec4f(1))`))
  const stored = byChannel ? packType : 'f32'
  const bindings = [
    ...(stacked ? operands.slice(0, 1) : operands).map(
      ({ spec, view }, i) => `var<storage, read> x${i}: array<${storedPack(spec, view, pack)}>;`,
    ),
    ...(finish ?? exprs).map((_, k) => `var<storage, read_write> y${k}: array<${stored}>;`),
  ].map((buffer, i) => `@group(0) @binding(${i + 1}) ${buffer}`)
  const addUp = (end: string) => `for (; r < ${end}; r += ${step}u) {
${indices}
${loads.filter((_, i) => !isFixed(i)).join('\n')}
${perPart.join('\n')}
i += step;
}`
  const addUpChunks = `while (r < end) {
let stop = min(r + ${step * chunk}u, end);
${each((k) => `var chunk${k} = ${packType}();`)}
${addUp('stop')}
${each((k) => `total${k} += chunk${k};`)}
}`
  const source = `struct Uniforms {
  reduced: u32, inner: u32, parts: u32, columns: u32, channels: u32, rows_per_sample: u32, per_thread: u32, grid_x: u32
}
@group(0) @binding(0) var<uniform> u: Uniforms;
${bindings.join('\n')}
${HEIGHT > 1 ? each((k) => `var<workgroup> shared${k}: array<${packType}, ${WIDTH * HEIGHT}>;`) : ''}
@compute @workgroup_size(${WIDTH}, ${HEIGHT})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
let column = (group.x + group.y * u.grid_x) * ${WIDTH}u + local.x;
let part = group.z;
let o = column / u.inner;
let n = column - o * u.inner;
${each((k) => `var total${k} = ${packType}();`)}
if (column < u.columns) {
let first_row = ${firstRow};
let first = part * u.per_thread * ${HEIGHT}u;
let begin = first + local.y${interleaved ? '' : ' * u.per_thread'};
let end = min(${interleaved ? `first + u.per_thread * ${HEIGHT}u` : 'begin + u.per_thread'}, u.reduced);
let step = ${byChannel ? `${step}u * u.inner` : `${step}u`};
var i = ${byChannel ? '(first_row + begin) * u.inner + n' : 'o * u.reduced + begin'};
let row = first_row; let c = n;
${loads.filter((_, i) => isFixed(i)).join('\n')}
var r = begin;
${chunked ? addUpChunks : addUp('end')}
}
${
  HEIGHT > 1
    ? `let lane = local.y * ${WIDTH}u + local.x;
${each((k) => `shared${k}[lane] = total${k};`)}
for (var half = ${HEIGHT / 2}u; half > 0u; half /= 2u) {
workgroupBarrier();
if (local.y < half) {
${each((k) => `total${k} += shared${k}[lane + half * ${WIDTH}u]; shared${k}[lane] = total${k};`)}
}
}`
    : ''
}
if (local.y == 0u && column < u.columns) {
let at = (o * u.parts + part) * u.inner + n;
${finish ? finished(finish, sums, byChannel ? pack : 1) : each((k) => `y${k}[at] = ${sums[k]};`)}
}
}
`
  // Where packs cross rows, nothing is indexed by channel.
  const channels = Math.ceil(terms.channels / pack)
  const uniforms = [reduced, inner, parts, columns, channels, terms.rowsPerSample, perThread, gridX]
  return { label, source: withExtensions(source), uniforms, grid: [gridX, gridY, parts] }
}

/** WGSL that stores formulas of sums at `at`. */
function finished(formulas: readonly Expr[], sums: readonly string[], pack: 1 | 4): string {
  const names = sums.map((_, k) => `v${k}`)
  const { code, results } = e.wgslStatements(formulas, names)
  const each = (line: (k: number) => string) => results.map((_, k) => line(k)).join('\n')
  const perPart = partsOf[pack].map((part) => {
    const values = names.map((name, k) => `let ${name} = sum${k}${part};`).join(' ')
    return `{\n${values}\n${code}\n${each((k) => `result${k}${part} = ${results[k]};`)}\n}`
  })
  return [
    ...sums.map((sum, k) => `let sum${k} = ${sum};`),
    each((k) => `var result${k}: ${pack === 4 ? 'vec4f' : 'f32'};`),
    ...perPart,
    each((k) => `y${k}[at] = result${k};`),
  ].join('\n')
}
