import type { AdapterTraits } from '../engine/adapter.js'
import { type Candidate, ceilDiv, flatGrid, inputBuffer, type Operand, temporaryBuffer } from '../engine/kernel.js'
import { type Spec, spec } from '../engine/shape.js'
import {
  type ConvGeometry,
  type ConvKind,
  type ConvTensors,
  factorTypes,
  passOf,
  shapeUniforms,
  xExtents,
  yExtents,
} from './conv2d-geometry.js'
import { convMatrixTilings, weightGradMatrixTilings } from './conv2d-matrix.js'
import { convTilings, cpuLanes, type Product, type Tiling, weightGradTilings } from './conv2d-tiles.js'
import { exchangeAxes } from './exchange-axes.js'
import type { Loader } from './prologue.js'
import type { Reader } from './row-sums.js'
import { type Epilogue, sliceSums, type Target } from './slice-sums.js'
import { storedType } from './views.js'

/**
 * Kernels of a convolution without groups, or of its input gradient: x or dy, and w, to y or dx.
 * @param reader a call that follows, and sums the rows of the result
 * @param loader of x, where that is computed as it is loaded
 */
export async function convCandidates(
  kind: ConvKind,
  g: ConvGeometry,
  tensors: ConvTensors,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
  reader?: Reader,
  loader?: Loader,
): Promise<readonly Candidate[]> {
  const { inputGrad, label, read, written, pixels } = passOf(kind, g)
  const product = productOf(kind, g, tensors)
  const { columns: channels, phases } = product
  const matrix = through(loader, convMatrixTilings(product, inputGrad, adapter))
  const tiles = inOrder(adapter, matrix, convTilings(product, inputGrad, adapter)).map((tiling) => {
    const [x, layers] = flatGrid(ceilDiv(pixels, tiling.rows))
    const dispatch = {
      label,
      uniforms: shapeUniforms(g, read, written, [x, layers, tiling.slices]),
      grid: [x, ceilDiv(channels, tiling.columns), phases * layers * tiling.slices] as const,
    }
    const target = { extents: [g.n, ...written] as const, type: storedType(tensors.result), epilogue }
    const { fused } = reader ?? {}
    if (fused && canSum(tiling, product)) {
      const summing = sliceSums(tiling, dispatch, { ...target, sums: fused.target }, callOf(label, product))
      return fused.complete(summing, tiling.rows)
    }
    const alone = loaded(sliceSums(tiling, dispatch, target, callOf(label, product)), loader)
    const candidate = reader ? reader.after(alone) : alone
    return tiling.transposed ? withTransposedWeights(candidate, g, tensors.factors[1]) : candidate
  })
  // The kernels that read mirrors sum nothing on the way, and load x as it is.
  if (reader || loader || cpuLanes(adapter) === undefined) return tiles
  const { withMirroredConv } = await import('./conv2d-mirrored.js')
  return withMirroredConv(tiles, kind, g, tensors, adapter, epilogue)
}

function productOf(kind: ConvKind, g: ConvGeometry, tensors: ConvTensors): Product {
  const { inputGrad, read, written, step, pixels } = passOf(kind, g)
  return {
    rows: pixels,
    columns: written[2],
    terms: g.kh * g.kw * read[2],
    long: false,
    phases: step ** 2,
    extents: [read[2], inputGrad ? read[2] : written[2]],
    types: factorTypes(tensors),
  }
}

/** The best tiling by rule, where it is one of matrix units. A CPU only imitates them. */
const matrixTilingOf = (kind: ConvKind, product: Product, adapter: AdapterTraits): Tiling | undefined =>
  adapter.software ? undefined : convMatrixTilings(product, kind === 'inputGrad', adapter)[0]

/** Whether the best kernel by rule runs on matrix units. */
export const onMatrixUnits = (kind: ConvKind, g: ConvGeometry, tensors: ConvTensors, adapter: AdapterTraits): boolean =>
  matrixTilingOf(kind, productOf(kind, g, tensors), adapter) !== undefined

/** Whether the best kernel by rule is one that sums the rows of the result as it stores them. */
export function sumsRows(kind: ConvKind, g: ConvGeometry, tensors: ConvTensors, adapter: AdapterTraits): boolean {
  const product = productOf(kind, g, tensors)
  const best = matrixTilingOf(kind, product, adapter)
  return best !== undefined && canSum(best, product)
}

/**
 * How often the best kernel by rule loads an element of x, where it can pass it through a formula: for every tap and tile of
 * columns. Undefined where it cannot. A CPU only imitates it.
 */
export function timesLoaded(g: ConvGeometry, tensors: ConvTensors, weightGrad: boolean, adapter: AdapterTraits) {
  const product = weightGrad ? weightGradProductOf(g, tensors) : productOf('forward', g, tensors)
  const tilings = () =>
    weightGrad ? weightGradMatrixTilings(product, adapter) : convMatrixTilings(product, false, adapter)
  const [best] = adapter.software || g.xChannels % 8 !== 0 ? [] : tilings()
  const loads = best && product.rows * product.terms * ceilDiv(product.columns, best.columns)
  return loads && loads / (g.n * g.xHeight * g.xWidth * g.xChannels)
}

const through = (loader: Loader | undefined, tilings: readonly Tiling[]): readonly Tiling[] =>
  loader ? tilings.map(loader.through) : tilings

/** Kernels without matrix units read x as it is stored before. */
const loaded = (candidate: Candidate, loader: Loader | undefined): Candidate =>
  loader && !candidate.usesMatrixUnits ? loader.before(candidate) : candidate

/** Whether a tile sums its rows as it stores them: whole results, eight channels at a time. */
const canSum = ({ storesGroups, slices }: Tiling, { columns, phases }: Product): boolean =>
  storesGroups === true && slices === 1 && phases === 1 && columns % 8 === 0

/** Exchanges the channels of the weights first, of which the candidate then reads the result. */
function withTransposedWeights(candidate: Candidate, g: ConvGeometry, weights: Spec): Candidate {
  const [rows, columns, taps] = [g.xChannels, g.yChannels, g.kh * g.kw]
  const transposed = spec([taps, columns, rows], weights.dtype)
  const sizes = [taps, rows, columns] as const
  const transpose = exchangeAxes('transpose', [weights, transposed], sizes, inputBuffer(1), temporaryBuffer(0))
  const exchanged = (read: Operand) => (read.role === 'input' && read.index === 1 ? temporaryBuffer(0) : read)
  const products = candidate.dispatches.map((dispatch) => ({ ...dispatch, reads: dispatch.reads.map(exchanged) }))
  return {
    ...candidate,
    temporaries: [transposed],
    dispatches: [transpose, ...products],
  }
}

/** Kernels of the weight gradient of a convolution without groups: x and dy to dw. */
export async function weightGradCandidates(
  g: ConvGeometry,
  tensors: ConvTensors,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
  loader?: Loader,
): Promise<readonly Candidate[]> {
  const label = 'conv2dWeightGrad'
  const product = weightGradProductOf(g, tensors)
  const { rows } = product
  const uniforms = (slices: number) => shapeUniforms(g, xExtents(g), yExtents(g), [slices, g.groups])
  const target: Target = { extents: [1, 1, rows, g.yChannels], type: storedType(tensors.result), epilogue }
  const matrix = through(loader, weightGradMatrixTilings(product, adapter))
  const tilings = inOrder(adapter, matrix, weightGradTilings(product, adapter))
  const tiles = tilings.map((tiling) => {
    const filled = g.kh * g.kw * ceilDiv(g.xChannels, tiling.filling) * tiling.filling
    const grid = [ceilDiv(filled, tiling.rows), ceilDiv(g.yChannels, tiling.columns), tiling.slices] as const
    const dispatch = { label, uniforms: uniforms(tiling.slices), grid }
    return loaded(sliceSums(tiling, dispatch, target, callOf(label, product)), loader)
  })
  if (loader || cpuLanes(adapter) === undefined) return tiles
  const { withMirroredWeightGrad } = await import('./conv2d-mirrored.js')
  return withMirroredWeightGrad(tiles, g, tensors, adapter, epilogue)
}

const weightGradProductOf = (g: ConvGeometry, tensors: ConvTensors): Product => ({
  rows: g.kh * g.kw * g.xChannels,
  columns: g.yChannels,
  terms: g.n * g.yHeight * g.yWidth,
  long: true,
  phases: 1,
  extents: [g.xChannels, g.yChannels],
  types: factorTypes(tensors),
})

/** More rows keep every adapter as busy, and more terms take no other tiling. */
const manyRows = 4 ** 8
const manyTerms = 4 ** 6

/** Products of as many rows and terms, to a power of four, and of equal columns share the choice of a tiling. */
function callOf(label: string, { rows, columns, terms, long, phases, types }: Product): string {
  const about = (count: number, most: number) => `~${Math.min(most, 4 ** Math.round(Math.log2(count) / 2))}`
  const extents = [about(rows, manyRows), columns, about(terms, long ? manyRows : manyTerms)].join(' x ')
  return `${label} as a product of ${extents}, ${types.join(' by ')}${phases > 1 ? `, ${phases} phases` : ''}`
}

/**
 * Matrix units multiply several times faster than other kernels do, so that beside them there is but one without, for
 * drivers that refuse them: a short list is measured sooner. On a CPU, which imitates the units, they come last.
 */
const inOrder = ({ software }: AdapterTraits, matrix: readonly Tiling[], others: readonly Tiling[]): Tiling[] => {
  if (software) return [...others, ...matrix]
  return [...matrix, ...(matrix.length > 0 ? others.slice(0, 1) : others)]
}
