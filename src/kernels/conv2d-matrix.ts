import type { AdapterTraits, MatrixShape } from '../engine/adapter.js'
import type { Specialization } from '../engine/shader.js'
import { isBusy, type Product, sliced, type Tiling } from './conv2d-tiles.js'
import * as shaders from './shaders.generated.js'

/** What a workgroup owns, and the rows and columns of subgroups that compute it. */
interface MatrixTile {
  readonly rows: number
  readonly columns: number
  readonly SY: number
  readonly SX: number
}

/** Large tiles load less for each product; small ones give small maps more workgroups. */
const matrixTiles: readonly MatrixTile[] = [
  { rows: 128, columns: 128, SY: 2, SX: 4 },
  { rows: 128, columns: 128, SY: 2, SX: 2 },
  { rows: 128, columns: 64, SY: 2, SX: 2 },
  { rows: 64, columns: 64, SY: 2, SX: 2 },
  { rows: 32, columns: 64, SY: 2, SX: 2 },
  { rows: 64, columns: 32, SY: 2, SX: 2 },
  { rows: 32, columns: 32, SY: 2, SX: 2 },
]

/** Of one subgroup, for units whose matrices, or subgroups, are too large for the others. */
const undividedTiles: readonly MatrixTile[] = [
  { rows: 64, columns: 64, SY: 1, SX: 1 },
  { rows: 32, columns: 32, SY: 1, SX: 1 },
]

/** Threads of a workgroup that every adapter starts. */
const maxThreads = 256

/** Elements of the tiles' lines are brought, and lines are padded, by so many. */
const group = 8

/** Terms of the sums that are brought at once. */
const depthOf = ({ K }: MatrixShape, terms: number): number => Math.max(K, terms <= 16 ? 16 : 32)

/** Bytes of workgroup memory: both tiles, whose lines lie along their longer side at worst, results, and places. */
function storageOf({ rows, columns, SY }: MatrixTile, { M }: MatrixShape, depth: number): number {
  const padded = (lines: number, length: number) => 2 * lines * (length + group)
  const tile = (extent: number) => Math.max(padded(extent, depth), padded(depth, extent))
  return tile(rows) + tile(columns) + 4 * (SY * M * (columns + group) + rows)
}

/** Loads eight elements at once where every row of a buffer is a whole number of them. */
function groupLoads({ extents, types }: Product, names: readonly [string, string]): Specialization {
  const buffers = (['a', 'b'] as const).map((letter, i) => ({
    hook: `load_${letter}`,
    alias: letter.toUpperCase(),
    name: names[i],
    type: types[i] ?? 'f16',
    whole: types[i] === 'f16' && (extents[i] ?? 1) % group === 0,
  }))
  const body = (hook: string, name: string | undefined) => `fn ${hook}(i: u32, count: u32) -> mat2x4h {
  let v = ${name}[i / 8];
  return mat2x4h(bitcast<vec4h>(v.xy), bitcast<vec4h>(v.zw));
}`
  return {
    aliases: Object.fromEntries(buffers.map(({ alias, type, whole }) => [alias, whole ? 'vec4u' : type])),
    hooks: Object.fromEntries(buffers.flatMap(({ hook, name, whole }) => (whole ? [[hook, body(hook, name)]] : []))),
  }
}

/** The shader of a product, the names of its buffers, and its other constants. */
type MatrixShader = Pick<Tiling, 'shader'> & {
  readonly buffers: readonly [string, string]
  readonly constants: Readonly<Record<string, boolean>>
  /** Terms of the sums that lie side by side. */
  readonly terms: number
}

/**
 * Tilings for one shape of the units, the best by rule first: the largest tile that still keeps the adapter busy, since a
 * tile of R rows and C columns loads R + C elements for R * C products.
 */
function tilingsOf(shape: MatrixShape, lanes: number, product: Product, own: MatrixShader, adapter: AdapterTraits) {
  const { M, N, K } = shape
  const DEPTH = depthOf(shape, own.terms)
  // Matrices begin at whole groups.
  if ([M, N, K].some((extent) => extent % group !== 0) || DEPTH % K !== 0) return []
  const fits = (tile: MatrixTile) =>
    tile.rows % (tile.SY * M) === 0 &&
    tile.columns % (tile.SX * N) === 0 &&
    tile.SY * tile.SX * lanes <= maxThreads &&
    (tile.rows <= 32 || tile.rows < 2 * product.rows) &&
    (tile.columns <= 32 || tile.columns < 2 * product.columns) &&
    storageOf(tile, shape, DEPTH) <= adapter.maxWorkgroupStorage
  const divided = matrixTiles.filter(fits)
  const fitting = divided.length > 0 ? divided : undividedTiles.filter(fits)
  const best = fitting.find((tile) => isBusy(product, tile, adapter)) ?? fitting.at(-1)
  const ordered = best ? [best, ...fitting.filter((tile) => tile !== best)] : []
  return ordered.map(({ rows, columns, SY, SX }): Tiling => {
    const constants = { ...own.constants, M, N, K, LANES: lanes, SY, SX, DEPTH }
    const matrices = { WM: rows / SY / M, WN: columns / SX / N }
    const changes = { constants: { ...constants, ...matrices }, ...groupLoads(product, own.buffers) }
    const name = `matrix ${M}x${N}x${K}, ${rows}x${columns} by ${SY * SX}`
    const tiling = { name, usesMatrixUnits: true, shader: own.shader, changes, rows, columns, filling: group }
    return sliced(product, tiling, adapter)
  })
}

/** The best tilings come first; of further shapes that the units have, the one best by rule. */
function matrixTilings(product: Product, own: MatrixShader, adapter: AdapterTraits): Tiling[] {
  const { matrixUnits } = adapter
  if (!matrixUnits || product.types.some((type) => type !== 'f16')) return []
  const each = matrixUnits.shapes.map((shape) => tilingsOf(shape, matrixUnits.lanes, product, own, adapter))
  return each.flatMap((tilings, i) => (i === 0 ? tilings : tilings.slice(0, 1)))
}

/** Tilings on matrix units of a convolution of f16, or of its input gradient; none where the adapter has no such units. */
export const convMatrixTilings = (product: Product, inputGrad: boolean, adapter: AdapterTraits): Tiling[] =>
  matrixTilings(
    product,
    {
      shader: shaders.conv_matrix,
      buffers: ['a', 'w'],
      constants: { INPUT_GRAD: inputGrad },
      terms: product.extents[0],
    },
    adapter,
  )

/** Tilings on matrix units of a weight gradient; none where the adapter has no such units. */
export const weightGradMatrixTilings = (product: Product, adapter: AdapterTraits): Tiling[] =>
  matrixTilings(
    product,
    { shader: shaders.conv_weight_grad_matrix, buffers: ['x', 'dy'], constants: {}, terms: product.terms },
    adapter,
  )
