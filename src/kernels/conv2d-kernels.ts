import type { Expr } from '../engine/expr.js'
import {
  type AdapterTraits,
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  input,
  type Operand,
  output,
  temporary,
} from '../engine/op.js'
import type { Specialization } from '../engine/shader.js'
import { type Spec, spec } from '../engine/shape.js'
import { storeThrough } from './epilogue.js'
import { type ShaderName, shader } from './shaders.js'

/** A convolution's sizes: x [n, xHeight, xWidth, xChannels] → y [n, yHeight, yWidth, yChannels]. */
export interface ConvGeometry {
  readonly n: number
  readonly xHeight: number
  readonly xWidth: number
  readonly xChannels: number
  readonly yHeight: number
  readonly yWidth: number
  readonly yChannels: number
  readonly kh: number
  readonly kw: number
  readonly stride: number
  readonly padding: number
  readonly dilation: number
  readonly groups: number
}

/** A formula over a convolution's result and further operands, stored in the result's place. */
export interface Epilogue {
  readonly expr: Expr
  /** Specs of the operator's inputs from 2 on. */
  readonly operands: readonly Spec[]
  readonly result: Spec
}

type Extents = readonly [height: number, width: number, channels: number]

const xExtents = (g: ConvGeometry): Extents => [g.xHeight, g.xWidth, g.xChannels]
const yExtents = (g: ConvGeometry): Extents => [g.yHeight, g.yWidth, g.yChannels]

/** The uniform struct `Shape` that all convolution shaders share; `last` is the meaning of its 16th field there. */
const shapeUniforms = (g: ConvGeometry, read: Extents, written: Extents, last: number): number[] => [
  ...[g.n, ...read, ...written, g.kh, g.kw, g.stride, g.stride],
  ...[g.padding, g.padding, g.dilation, g.dilation, last, g.groups],
]

/** The shader, its specialization, and the pixels or rows by channels that one workgroup of it owns. */
interface Tiling {
  readonly name: string
  readonly shader: ShaderName
  readonly changes: Specialization
  readonly rows: number
  readonly columns: number
}

/**
 * Register tiles of one subgroup of 8 lanes: what is fast on a CPU driver. A tile is vectors of rows by vectors of
 * columns; the smallest ones hold 4, and are held twice.
 *
 * @param rowLanes name of the shader's constant for the rows of a vector, where it has one
 */
function subgroupTiling(
  name: ShaderName,
  [rows, rowLanes]: readonly [number, string?],
  channels: number,
  constants: Readonly<Record<string, boolean>> = {},
): Tiling {
  const lanes = (extent: number) => (extent <= 4 ? 4 : 8)
  const R = rowLanes === undefined ? 8 : lanes(rows)
  const C = lanes(channels)
  const P = Math.min(4, ceilDiv(rows, R))
  // Loads and products of a tile take about as long as 2 + N of its vectors.
  const cost = (N: number) => ceilDiv(channels, N * C) * (2 + N)
  const N = [4, 3, 2, 1].reduce((best, each) => (cost(each) < cost(best) ? each : best))
  const changes = {
    constants: { P, N, CHANNELS: C, ...(rowLanes === undefined ? {} : { [rowLanes]: R }), ...constants },
    aliases: { V: `vec${Math.max(2, N)}f` },
  }
  return { name: 'subgroup', shader: name, changes, rows: P * R, columns: N * C }
}

/** Loads four elements at once where every row of a buffer is a whole number of them. */
function vectorLoads(buffers: readonly { hook: 'load_a' | 'load_b'; alias: string; name: string; extent: number }[]) {
  const whole = buffers.filter(({ extent }) => extent % 4 === 0)
  return {
    aliases: Object.fromEntries(whole.map(({ alias }) => [alias, 'vec4<T>'])),
    hooks: Object.fromEntries(
      whole.map(({ hook, name }) => [
        hook,
        `fn ${hook}(i: u32, count: u32) -> vec4f {\n  return vec4f(${name}[i / 4]);\n}`,
      ]),
    ),
  }
}

/** Workgroups that keep a GPU busy; smaller tiles where there would be fewer. */
const busyWorkgroups = 256

/** Tiles in workgroup memory: any adapter. */
function workgroupTiling(rows: number, channels: number, inputGrad: boolean, reads: number, weights: number): Tiling {
  const C = channels <= 32 ? 1 : 2
  const R = ceilDiv(rows, 64) * ceilDiv(channels, 32 * C) < busyWorkgroups ? 4 : 8
  const changes = {
    constants: { R, C, INPUT_GRAD: inputGrad },
    ...vectorLoads([
      { hook: 'load_a', alias: 'A', name: 'a', extent: reads },
      { hook: 'load_b', alias: 'B', name: 'w', extent: weights },
    ]),
  }
  return { name: 'workgroup', shader: 'conv_workgroup', changes, rows: 8 * R, columns: 32 * C }
}

const wants = (adapter: AdapterTraits, subgroup: () => Tiling, workgroup: () => Tiling): Tiling[] =>
  adapter.subgroupSize === 8 ? [subgroup(), workgroup()] : [workgroup()]

/** Kernels of a convolution, or of its input gradient: x or dy, and w, to y or dx. */
export function convCandidates(
  kind: 'forward' | 'inputGrad',
  g: ConvGeometry,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
): Candidate[] {
  const inputGrad = kind === 'inputGrad'
  const [read, written] = inputGrad ? [yExtents(g), xExtents(g)] : [xExtents(g), yExtents(g)]
  const [height, width, channels] = written
  const label = inputGrad ? 'conv2dInputGrad' : 'conv2d'
  const reads = [0, 1, ...(epilogue?.operands.map((_, k) => k + 2) ?? [])].map(input)
  const operands = { label, reads, writes: [output(0)] }
  const stored = epilogue ? storeThrough(epilogue.expr, epilogue.operands, epilogue.result) : {}
  // The written pixels of one phase of the stride are reached by the same taps.
  const step = inputGrad ? g.stride : 1
  const pixels = g.n * ceilDiv(height, step) * ceilDiv(width, step)
  const phases = step * step
  if (g.groups > 1) {
    const pixelsPerThread = 8
    const [x, y] = flatGrid(ceilDiv(ceilDiv(pixels, pixelsPerThread) * channels, 64))
    const source = shader('conv_grouped', { constants: { P: pixelsPerThread, INPUT_GRAD: inputGrad } })
    const uniforms = shapeUniforms(g, read, written, 0)
    return [{ name: 'direct', dispatches: [{ ...operands, source, uniforms, grid: [x, y, phases] }] }]
  }
  const tilings = wants(
    adapter,
    () => subgroupTiling('conv_subgroup', [pixels, 'PIXELS'], channels, { INPUT_GRAD: inputGrad }),
    () => workgroupTiling(pixels, channels, inputGrad, read[2], inputGrad ? read[2] : channels),
  )
  return tilings.map(({ name, shader: file, changes, rows, columns }) => {
    const [x, layers] = flatGrid(ceilDiv(pixels, rows))
    const uniforms = shapeUniforms(g, read, written, x)
    const grid = [x, ceilDiv(channels, columns), phases * layers] as const
    const source = shader(file, together(changes, stored))
    return { name, dispatches: [{ ...operands, source, uniforms, grid }] }
  })
}

const together = (a: Specialization, b: Specialization): Specialization => ({
  constants: { ...a.constants, ...b.constants },
  aliases: { ...a.aliases, ...b.aliases },
  hooks: { ...a.hooks, ...b.hooks },
})

/** Kernels of a convolution's weight gradient: x and dy to dw. */
export function weightGradCandidates(g: ConvGeometry, adapter: AdapterTraits): Candidate[] {
  const taps = g.kh * g.kw
  const rows = (taps * g.xChannels) / g.groups
  const size = rows * g.yChannels
  const pixels = g.n * g.yHeight * g.yWidth
  const wanted = adapter.software ? 8 : busyWorkgroups
  const candidate = (name: string, source: string, across: number, down: number): Candidate => {
    const tiles = across * down
    const slices = tiles >= wanted ? 1 : Math.max(1, Math.min(ceilDiv(wanted, tiles), Math.floor(pixels / 256)))
    return splitSum(name, size, slices, (target) => ({
      label: 'conv2dWeightGrad',
      source,
      reads: [input(0), input(1)],
      writes: [target],
      uniforms: shapeUniforms(g, xExtents(g), yExtents(g), slices),
      grid: [across, down, slices],
    }))
  }
  if (g.groups > 1) {
    const rowsPerThread = 9
    const source = shader('conv_grouped_weight_grad', { constants: { R: rowsPerThread } })
    return [candidate('direct', source, ceilDiv(ceilDiv(rows, rowsPerThread) * g.yChannels, 64), 1)]
  }
  const tilings = wants(
    adapter,
    () => subgroupTiling('conv_weight_grad_subgroup', [rows], g.yChannels),
    () => weightGradWorkgroupTiling(g),
  )
  return tilings.map((tiling) => {
    // The workgroup kernel fills the channels of each tap up to whole vectors.
    const padded = tiling.name === 'workgroup' ? taps * ceilDiv(g.xChannels, 4) * 4 : rows
    const source = shader(tiling.shader, tiling.changes)
    return candidate(tiling.name, source, ceilDiv(padded, tiling.rows), ceilDiv(g.yChannels, tiling.columns))
  })
}

function weightGradWorkgroupTiling(g: ConvGeometry): Tiling {
  const R = g.kh * g.kw * g.xChannels <= 32 ? 1 : 2
  const C = g.yChannels <= 32 ? 1 : 2
  const changes = {
    constants: { R, C },
    ...vectorLoads([
      { hook: 'load_a', alias: 'A', name: 'x', extent: g.xChannels },
      { hook: 'load_b', alias: 'B', name: 'dy', extent: g.yChannels },
    ]),
  }
  return { name: 'workgroup', shader: 'conv_weight_grad_workgroup', changes, rows: 32 * R, columns: 32 * C }
}

/** A product whose inner dimension is cut into slices, each written apart and then added up in order. */
function splitSum(name: string, size: number, slices: number, product: (target: Operand) => Dispatch): Candidate {
  if (slices === 1) return { name, dispatches: [product(output(0))] }
  const first = product(temporary(0))
  const sum: Dispatch = {
    label: `${first.label} sum`,
    source: shader('sum_slices'),
    reads: [temporary(0)],
    writes: [output(0)],
    uniforms: [size, slices],
    grid: flatGrid(ceilDiv(size, 64)),
  }
  return { name, temporaries: [spec([slices, size])], dispatches: [first, sum] }
}
