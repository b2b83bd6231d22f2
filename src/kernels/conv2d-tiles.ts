import type { AdapterTraits } from '../engine/adapter.js'
import { ceilDiv, type Operand } from '../engine/kernel.js'
import type { Specialization } from '../engine/shader.js'
import type { Shader } from './shaders.generated.js'
import * as shaders from './shaders.generated.js'

/** A convolution as a product of matrices. */
export interface Product {
  /** Of the result: pixels, or the taps and input channels of a weight gradient. */
  readonly rows: number
  readonly columns: number
  /** Products that are added up for one element, at most. */
  readonly terms: number
  /** Whether sums are as a rule so long that adding up slices of them costs next to nothing. */
  readonly long: boolean
  /** Products of these extents that one dispatch computes. */
  readonly phases: number
  /** Elements of a pixel or row of the two buffers that are read: whole vectors where they divide by four. */
  readonly extents: readonly [number, number]
  /** WGSL types of their elements. */
  readonly types: readonly [string, string]
}

/** A shader, its specialization, and how it divides the result. */
export interface Tiling {
  readonly name: string
  readonly shader: Shader
  readonly changes: Specialization
  /** What the shader binds behind its factors. */
  readonly reads?: readonly Operand[]
  /** How it passes the first factor through a formula. */
  readonly loading?: Specialization
  /** What one workgroup owns. */
  readonly rows: number
  readonly columns: number
  /** The channels of each tap of a weight gradient are filled up to a multiple. */
  readonly filling: number
  /** Parts of the sums that are computed apart, and then added up in order. */
  readonly slices: number
  /** Whether the kernel wants the weights of an input gradient with their last two axes exchanged. */
  readonly transposed?: boolean
  readonly usesMatrixUnits?: boolean
  /** See `Candidate.estimate`. */
  readonly estimate?: number
  /** Whether the shader stores eight channels at once, by the hook `store_group`. */
  readonly storesGroups?: boolean
}

type Unsliced = Omit<Tiling, 'slices'>

/** Lanes of the subgroups of a CPU driver for which kernels are made: 8, or 4 without AVX; undefined on other adapters. */
export const cpuLanes = ({ software, subgroupSize }: AdapterTraits): 4 | 8 | undefined =>
  software && (subgroupSize === 4 || subgroupSize === 8) ? subgroupSize : undefined

/**
 * Register tiles of one subgroup: what is fast on a CPU driver. A tile is vectors of rows by vectors of columns; where lanes
 * are 8, the smallest ones hold 4, and are held twice.
 *
 * @param fixed the shader's other constants
 * @param rowLanes name of the shader's constant for the rows of a vector, where it has one
 */
function subgroupTile(
  shader: Shader,
  { rows, columns, types: [A, B] }: Product,
  LANES: 4 | 8,
  fixed: Readonly<Record<string, boolean>> = {},
  rowLanes?: string,
): Unsliced {
  const lanes = (extent: number) => (extent <= 4 ? 4 : LANES)
  const R = rowLanes === undefined ? LANES : lanes(rows)
  const C = lanes(columns)
  const P = Math.min(4, ceilDiv(rows, R))
  // Loads and products of a tile take about as long as 2 + N of its vectors.
  const cost = (N: number) => ceilDiv(columns, N * C) * (2 + N)
  const N = [4, 3, 2, 1].reduce((best, each) => (cost(each) < cost(best) ? each : best))
  const changes = {
    constants: { ...fixed, LANES, P, N, CHANNELS: C, ...(rowLanes === undefined ? {} : { [rowLanes]: R }) },
    aliases: { A, B, V: `vec${Math.max(2, N)}f` },
  }
  return { name: 'subgroup', shader, changes, rows: P * R, columns: N * C, filling: 1 }
}

/** Loads four elements at once where every row of a buffer is a whole number of them. */
function vectorLoads({ extents: [a, b], types: [A, B] }: Product, names: readonly [string, string]): Specialization {
  const buffers = [
    { extent: a, hook: 'load_a', name: names[0] },
    { extent: b, hook: 'load_b', name: names[1] },
  ]
  const whole = buffers.filter(({ extent }) => extent % 4 === 0)
  return {
    aliases: { A: a % 4 === 0 ? `vec4<${A}>` : A, B: b % 4 === 0 ? `vec4<${B}>` : B },
    hooks: Object.fromEntries(
      whole.map(({ hook, name }) => [
        hook,
        `fn ${hook}(i: u32, count: u32) -> vec4f {\n  return vec4f(${name}[i / 4]);\n}`,
      ]),
    ),
  }
}

/** Elements of a tile of which a processor of a GPU holds two: of larger ones it holds one. */
const largestOfTwo = 2 ** 14

/** Workgroups that keep an adapter busy: a large GPU has over a hundred processors, which hide latency with two each. */
const busyWorkgroups = ({ software }: AdapterTraits, tile = { rows: 1, columns: 1 }): number => {
  if (software) return 8
  return tile.rows * tile.columns > largestOfTwo ? 128 : 256
}

const tilesIn = ({ rows, columns, phases }: Product, tile: { rows: number; columns: number }): number =>
  ceilDiv(rows, tile.rows) * ceilDiv(columns, tile.columns) * phases

/** How many slices of the sums, of at least 256 terms, give enough workgroups. */
export const slicesFor = (
  tiles: number,
  terms: number,
  adapter: AdapterTraits,
  tile?: { rows: number; columns: number },
): number => Math.max(1, Math.min(ceilDiv(busyWorkgroups(adapter, tile), tiles), Math.floor(terms / 256)))

/** A tile in workgroup memory, and the rows and columns of threads that compute it. */
interface WorkgroupTile {
  readonly rows: number
  readonly columns: number
  readonly TY: number
  readonly TX: number
}

/** Eight by eight elements for each thread where the columns are enough. Large tiles load less. */
const workgroupTiles: readonly WorkgroupTile[] = [
  { rows: 128, columns: 128, TY: 16, TX: 16 },
  { rows: 128, columns: 64, TY: 16, TX: 8 },
  { rows: 64, columns: 64, TY: 8, TX: 8 },
  { rows: 32, columns: 64, TY: 8, TX: 8 },
  { rows: 64, columns: 32, TY: 8, TX: 8 },
  { rows: 32, columns: 32, TY: 8, TX: 8 },
]

/** Bytes of workgroup memory: sixteen terms of a tile's rows, which `conv_workgroup.wgsl` pads, and of its columns. */
const storageOf = ({ rows, columns }: WorkgroupTile): number => 4 * (20 * rows + 16 * columns)

/** Tiles in workgroup memory that fit a product, the best by rule first. */
function workgroupTilesFor(product: Product, adapter: AdapterTraits): WorkgroupTile[] {
  const narrow = product.columns <= 32
  const fitting = workgroupTiles.filter(
    (tile) =>
      (tile.columns === 32) === narrow &&
      tile.columns < 2 * Math.max(product.columns, 32) &&
      (tile.rows <= 32 || tile.rows < 2 * product.rows) &&
      storageOf(tile) <= adapter.maxWorkgroupStorage,
  )
  // The largest are for adapters that prove to be faster with them.
  const modest = fitting.filter(({ rows }) => rows <= 64)
  const best = modest.find((tile) => isBusy(product, tile, adapter)) ?? modest.at(-1)
  return best ? [best, ...fitting.filter((tile) => tile !== best)] : []
}

/** Tiles of a product, slices of its sums, and how many workgroups keep the adapter busy. */
export function workgroupsOf(product: Product, tile: { rows: number; columns: number }, adapter: AdapterTraits) {
  const tiles = tilesIn(product, tile)
  return { tiles, slices: slicesFor(tiles, product.terms, adapter, tile), busy: busyWorkgroups(adapter, tile) }
}

/** Whether a tile, and slices of long sums, give an adapter enough workgroups. */
export function isBusy(product: Product, tile: { rows: number; columns: number }, adapter: AdapterTraits): boolean {
  const { tiles, slices, busy } = workgroupsOf(product, tile, adapter)
  return tiles * (product.long ? slices : 1) >= busy
}

/** A tiling with as many slices of the sums as keep an adapter busy. */
export const sliced = (product: Product, tiling: Unsliced, adapter: AdapterTraits): Tiling => ({
  ...tiling,
  slices: workgroupsOf(product, tiling, adapter).slices,
})

/**
 * The tilings to choose from. Where there are some for subgroups of a CPU driver, others only take part, but for wide results
 * on drivers that read no mirrors.
 */
function tilings(
  product: Product,
  adapter: AdapterTraits,
  subgroups: readonly Tiling[],
  workgroup: (tile: WorkgroupTile) => Unsliced,
): Tiling[] {
  const [first, ...others] = workgroupTilesFor(product, adapter).map((tile) =>
    sliced(product, workgroup(tile), adapter),
  )
  if (!first) return []
  if (subgroups.length > 0)
    return adapter.maxMirrorRows > 0 || product.columns <= 32 ? [...subgroups, first] : [first, ...subgroups]
  const whole = first.slices > 1 && !product.long ? [{ ...first, name: `${first.name}, whole sums`, slices: 1 }] : []
  return [first, ...whole, ...others]
}

/** Tilings of a convolution or of its input gradient, best by rule first. */
export function convTilings(product: Product, inputGrad: boolean, adapter: AdapterTraits): Tiling[] {
  const lanes = cpuLanes(adapter)
  const subgroup = (name: string, transposed: boolean): Tiling[] => {
    if (lanes === undefined) return []
    const constants = { INPUT_GRAD: inputGrad, TRANSPOSED: transposed }
    return [
      { ...subgroupTile(shaders.conv_subgroup, product, lanes, constants, 'PIXELS'), name, slices: 1, transposed },
    ]
  }
  const plain = subgroup('subgroup', false)
  // Weights a multiple of 2 KiB apart meet in few sets of a cache of the first level, where few of them find room. With
  // several taps, exchanging their axes takes as long as it saves.
  const crowded = inputGrad && product.terms === product.extents[1] && product.terms % 512 === 0 && product.rows >= 64
  const subgroups = crowded ? [...subgroup('subgroup, transposed weights', true), ...plain] : plain
  return tilings(product, adapter, subgroups, ({ rows, columns, TY, TX }) => {
    const constants = { TX, TY, R: rows / TY, C: columns / TX / 4, INPUT_GRAD: inputGrad }
    const changes = { constants, ...vectorLoads(product, ['a', 'w']) }
    return { name: `workgroup ${rows}x${columns}`, shader: shaders.conv_workgroup, changes, rows, columns, filling: 4 }
  })
}

/** Tilings of a weight gradient, best by rule first. */
export function weightGradTilings(product: Product, adapter: AdapterTraits): Tiling[] {
  const lanes = cpuLanes(adapter)
  const tile = lanes && subgroupTile(shaders.conv_weight_grad_subgroup, product, lanes)
  return tilings(product, adapter, tile ? [sliced(product, tile, adapter)] : [], ({ rows, columns, TY, TX }) => {
    const constants = { TX, TY, R: rows / TY / 4, C: columns / TX / 4 }
    const changes = { constants, ...vectorLoads(product, ['x', 'dy']) }
    return {
      name: `workgroup ${rows}x${columns}`,
      shader: shaders.conv_weight_grad_workgroup,
      changes,
      rows,
      columns,
      filling: 4,
    }
  })
}
