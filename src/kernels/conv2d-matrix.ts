import type { AdapterTraits, MatrixShape, MatrixUnits } from '../engine/adapter.js'
import { type Product, type Tiling, workgroupsOf } from './conv2d-tiles.js'
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
  { rows: 128, columns: 256, SY: 2, SX: 4 },
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

/** Matrices that a subgroup adds up at most: they lie in registers, and the text of a kernel names each. */
const mostMatrices = 32

/** Sums of a lane at most: more of them find no room in its registers. On the CPU those are memory. */
const mostSums = 128

/** Elements of the tiles' lines are brought, and lines are padded, by so many. */
const group = 8

/** Matrices of a row that are stored at once are at most so wide. */
const widestSpan = 64

/** The shader of a product, the names of its buffers, and its other constants. */
type MatrixShader = Pick<Tiling, 'shader'> & {
  readonly buffers: readonly [string, string]
  readonly constants: Readonly<Record<string, boolean>>
  /** Terms of the sums that lie side by side. */
  readonly terms: number
  /** Lines of the tiles of both factors, and elements of a line. */
  readonly tilesOf: (tile: MatrixTile, depth: number) => readonly [a: Lines, b: Lines]
  /** Words beside the tiles and results, such as the places of the rows. */
  readonly words: (tile: MatrixTile) => number
}

interface Lines {
  readonly lines: number
  readonly length: number
}

/** How a tile lies in workgroup memory. */
interface Staging {
  /** Terms that are brought at once. */
  readonly DEPTH: number
  readonly BUFFERS: number
  /** Matrices of a row that are stored at once. */
  readonly SPAN: number
}

/**
 * The staging of a tile that fits, the best first: as many terms as may be; two buffers, so that a step takes one barrier;
 * and wide stores.
 */
function stagingOf(tile: MatrixTile, shape: MatrixShape, own: MatrixShader, units: MatrixUnits, limit: number) {
  const { M, N, K } = shape
  const { SY, SX, columns } = tile
  const across = columns / SX / N
  const spans = [4, 2, 1].filter((span) => across % span === 0 && (span === 1 || span * N <= widestSpan))
  // Dawn wants tiles that hold a square matrix.
  const [short = 16, long = 32] = [16, 32].map((depth) => Math.max(depth, M, N, K))
  const depths = own.terms <= 16 ? [short] : [long, short]
  const bytes = units.factors === 'f32' ? 4 : 2
  const storage = ({ DEPTH, BUFFERS, SPAN }: Staging) => {
    const tiles = own.tilesOf(tile, DEPTH).map(({ lines, length }) => lines * (length + group))
    const results = SY * SX * M * N * SPAN + own.words(tile)
    return BUFFERS * bytes * tiles.reduce((sum, size) => sum + size) + 4 * results
  }
  const all = [2, 1].flatMap((BUFFERS) =>
    depths.flatMap((DEPTH) => spans.map((SPAN): Staging => ({ DEPTH, BUFFERS, SPAN }))),
  )
  return all.find((staging) => staging.DEPTH % K === 0 && storage(staging) <= limit)
}

/** WGSL that loads eight elements from `name`, whose elements are 16 bytes. */
function groupLoad(hook: string, name: string, type: string, factors: string): string {
  const body =
    type === 'f16'
      ? `  let v = ${name}[i / 8];
  return mat2x4<E>(${['v.xy', 'v.zw'].map((half) => widened(`bitcast<vec4h>(${half})`, factors)).join(', ')});`
      : `  return mat2x4<E>(${name}[i / 4], ${name}[i / 4 + 1]);`
  return `fn ${hook}(i: u32, count: u32) -> mat2x4<E> {\n${body}\n}`
}

const widened = (vector: string, factors: string): string => (factors === 'f32' ? `vec4f(${vector})` : vector)

/** Loads eight elements at once where every row of a buffer is a whole number of them. */
function groupLoads({ extents, types }: Product, names: readonly [string, string], factors: string) {
  const buffers = (['a', 'b'] as const).map((letter, i) => ({
    hook: `load_${letter}`,
    alias: letter.toUpperCase(),
    name: names[i] ?? '',
    type: types[i] ?? 'f16',
    whole: (extents[i] ?? 1) % group === 0,
  }))
  const wide = (type: string) => (type === 'f16' ? 'vec4u' : 'vec4f')
  return {
    aliases: Object.fromEntries(buffers.map(({ alias, type, whole }) => [alias, whole ? wide(type) : type])),
    hooks: Object.fromEntries(
      buffers.flatMap(({ hook, name, type, whole }) => (whole ? [[hook, groupLoad(hook, name, type, factors)]] : [])),
    ),
  }
}

/** Products of the units in the time of a byte that a tile loads, about: of caches that all workgroups share. */
const productsPerLoad = 24
/** The same of a byte in memory, and of the dispatch that adds slices up. */
const productsPerStore = 100
const productsPerDispatch = 2 ** 28

/** Processors of a GPU, about, for whose last workgroups the others wait. */
const processors = 128

/**
 * Time of a product by its tiles and slices, in products of the units: all of a tile are computed; few workgroups leave units
 * idle, and so do the last ones that are no whole round; slices are written and read again.
 */
function timeOf(product: Product, tile: MatrixTile, slices: number, adapter: AdapterTraits): number {
  const { rows, columns } = tile
  const { tiles, busy } = workgroupsOf(product, tile, adapter)
  const term = tiles * Math.max(rows * columns, productsPerLoad * 2 * (rows + columns))
  const workgroups = tiles * slices
  const rounds = adapter.software ? 0 : (Math.ceil(workgroups / processors) * processors) / workgroups
  const multiplying = product.terms * term * Math.max(1, busy / workgroups, rounds)
  if (slices === 1) return multiplying
  return multiplying + productsPerDispatch + productsPerStore * 8 * slices * product.rows * product.columns
}

/** The slices of the sums, of those that keep an adapter busy or of fewer, that take the least time. */
function bestSlices(product: Product, tile: MatrixTile, adapter: AdapterTraits): { slices: number; estimate: number } {
  const most = workgroupsOf(product, tile, adapter).slices
  const all = Array.from({ length: most }, (_, i) => ({
    slices: i + 1,
    estimate: timeOf(product, tile, i + 1, adapter),
  }))
  return all.reduce((best, each) => (each.estimate < best.estimate ? each : best))
}

/** Tilings for one shape of the units, the best by rule first. */
function tilingsOf(
  shape: MatrixShape,
  lanes: number,
  product: Product,
  own: MatrixShader,
  adapter: AdapterTraits,
  units: MatrixUnits,
): Tiling[] {
  const { M, N, K } = shape
  // Matrices begin at whole groups.
  if ([M, N, K].some((extent) => extent % group !== 0)) return []
  const suits = (tile: MatrixTile) =>
    tile.rows % (tile.SY * M) === 0 &&
    tile.columns % (tile.SX * N) === 0 &&
    tile.SY * tile.SX * lanes <= maxThreads &&
    (tile.rows / tile.SY / M) * (tile.columns / tile.SX / N) <= mostMatrices &&
    (adapter.software || (tile.rows * tile.columns) / (tile.SY * tile.SX * lanes) <= mostSums) &&
    (tile.rows <= 32 || tile.rows < 2 * product.rows) &&
    (tile.columns <= 32 || tile.columns < 2 * product.columns)
  const fitting = (tiles: readonly MatrixTile[]) =>
    tiles.filter(suits).flatMap((tile) => {
      const staging = stagingOf(tile, shape, own, units, adapter.maxWorkgroupStorage)
      return staging ? [{ tile, staging, ...bestSlices(product, tile, adapter) }] : []
    })
  const divided = fitting(matrixTiles)
  const ordered = (divided.length > 0 ? divided : fitting(undividedTiles)).sort((a, b) => a.estimate - b.estimate)
  return ordered.map(({ tile, staging, slices, estimate }): Tiling => {
    const { rows, columns, SY, SX } = tile
    const [a, b] = own.tilesOf(tile, staging.DEPTH)
    const loads = ({ lines, length }: Lines) => Math.ceil((lines * length) / group / (SY * SX * lanes))
    const [WM, WN] = [rows / SY / M, columns / SX / N]
    const constants = {
      ...own.constants,
      ...{ M, N, K, SY, SX, WM, WN, LANES: lanes, SPANS: WN / staging.SPAN },
      ...staging,
      ...{ A_LOADS: loads(a), B_LOADS: loads(b) },
    }
    const { aliases, hooks } = groupLoads(product, own.buffers, units.factors)
    const changes = {
      constants,
      aliases: { ...aliases, E: units.factors },
      hooks,
      ...(adapter.subgroupSizes.length > 1 ? { subgroupSize: lanes } : {}),
    }
    const size = adapter.subgroupSizes.length > 1 ? ` of ${lanes} lanes` : ''
    const name = `matrix ${M}x${N}x${K}, ${rows}x${columns} by ${SY * SX}${size}`
    const fixed = { usesMatrixUnits: true, shader: own.shader, filling: group, storesGroups: true }
    return { ...fixed, name, changes, rows, columns, slices, estimate }
  })
}

/** Whether another shape computes the same in fewer instructions. */
const isContained = (shape: MatrixShape, others: readonly MatrixShape[]): boolean =>
  others.some(({ M, N, K }) => M === shape.M && N === shape.N && K > shape.K && K % shape.K === 0)

/**
 * Sizes of subgroups to try, the likeliest first: units of Intel's have as many lanes as their matrices have columns, others 32.
 * Where a kernel cannot ask for one, the largest there is.
 */
function sizesToTry({ subgroupSizes: sizes }: AdapterTraits, { lanes, shapes }: MatrixUnits): readonly number[] {
  const likely = [...new Set([...shapes.map(({ N }) => N), 32, 16, 64, 8])].filter((size) => sizes.includes(size))
  return sizes.length > 1 && likely.length > 0 ? likely : [lanes]
}

/**
 * The best tilings come first: those of the units' largest shape, its best one with other slices of the sums and other sizes
 * of subgroups, and the best ones of further shapes.
 */
function matrixTilings(product: Product, own: MatrixShader, adapter: AdapterTraits): Tiling[] {
  const { matrixUnits: units } = adapter
  const [type, other] = product.types
  if (!units || type !== other || (type !== 'f16' && type !== units.factors)) return []
  const [size = units.lanes, ...sizes] = sizesToTry(adapter, units)
  const [first, ...others] = units.shapes
    .filter((shape) => !isContained(shape, units.shapes))
    .map((shape) => ({ shape, tilings: tilingsOf(shape, size, product, own, adapter, units) }))
    .filter(({ tilings }) => tilings.length > 0)
  const best = first?.tilings[0]
  if (!first || !best) return []
  const ofSizes = sizes.flatMap((other) => tilingsOf(first.shape, other, product, own, adapter, units).slice(0, 1))
  const ofShapes = others.flatMap(({ tilings }) => tilings.slice(0, 1))
  return [...first.tilings, ...otherSlices(best, product, adapter), ...ofSizes, ...ofShapes]
}

/**
 * A tiling with whole sums, or with twice as many slices where it is a weight gradient's, whose sums are long; and with as many
 * slices as keep an adapter busy.
 */
function otherSlices(tiling: Tiling, product: Product, adapter: AdapterTraits): Tiling[] {
  const { slices } = tiling
  const busy = workgroupsOf(product, tiling, adapter).slices
  const twice = 2 * slices
  const others = new Map<number, string>()
  if (slices > 1 && !product.long) others.set(1, 'whole sums')
  if (slices > 1 && product.long && twice <= product.terms / 256) others.set(twice, 'twice the slices')
  if (slices < busy && !others.has(busy)) others.set(busy, 'more slices')
  return [...others].map(([count, what]) => ({ ...tiling, name: `${tiling.name}, ${what}`, slices: count }))
}

/** Tilings on matrix units of a convolution, or of its input gradient; none where the adapter has no such units. */
export const convMatrixTilings = (product: Product, inputGrad: boolean, adapter: AdapterTraits): Tiling[] =>
  matrixTilings(
    product,
    {
      shader: shaders.conv_matrix,
      buffers: ['a', 'w'],
      constants: { INPUT_GRAD: inputGrad },
      terms: product.extents[0],
      tilesOf: ({ rows, columns }, depth) => [
        { lines: rows, length: depth },
        inputGrad ? { lines: columns, length: depth } : { lines: depth, length: columns },
      ],
      words: ({ rows }) => rows,
    },
    adapter,
  )

/** Tilings on matrix units of a weight gradient; none where the adapter has no such units. */
export const weightGradMatrixTilings = (product: Product, adapter: AdapterTraits): Tiling[] =>
  matrixTilings(
    product,
    {
      shader: shaders.conv_weight_grad_matrix,
      buffers: ['x', 'dy'],
      constants: {},
      terms: product.terms,
      tilesOf: ({ rows, columns }, depth) => [
        { lines: depth, length: rows },
        { lines: depth, length: columns },
      ],
      words: () => 0,
    },
    adapter,
  )
