import type { AdapterTraits } from '../engine/adapter.js'
import { ceilDiv, type Dispatch, flatGrid, type Operand, outputBuffer } from '../engine/kernel.js'
import { spec } from '../engine/shape.js'
import { type BatchedProduct, batchedProduct, batchedTermChoices } from './batched-panels.js'
import {
  type ConvGeometry,
  type ConvKind,
  type ConvTensors,
  type Extents,
  passOf,
  xExtents,
  yExtents,
} from './conv2d-geometry.js'
import {
  byFours,
  canMirror,
  filledElements,
  type PanelCandidate,
  Preparation,
  panelsOf,
  worthwhile,
} from './conv2d-panels.js'
import * as shaders from './mirror-shaders.generated.js'
import { shader } from './shaders.js'
import { type Epilogue, operandsOf, stored, together } from './slice-sums.js'

// Winograd's convolutions F(3x3, 3x3) take 25 products for each pair of channels and 3x3 pixels, where 3x3 taps take 81. The
// results differ from those of other kernels in their last bits, with errors of the same size (docs/performance.md).

/** Pixels of a side of a tile, and taps of a side of the filters. */
const side = 3
/** Values that stand for a tile. */
const points = (2 * side - 1) ** 2
/** Bytes of the transformed map of a piece of the tiles: more make the products hardly faster, and fewer the plan longer. */
const pieceBytes = { least: 2 ** 24, most: 2 ** 26 }
/** Pieces of a map, while they are larger than the least and smaller than the most. */
const usualPieces = 16

/** How the written pixels of all images are divided into tiles. */
interface Tiling {
  /** Of the map. */
  readonly height: number
  readonly width: number
  readonly dilation: number
  /** Tiles of a row of tiles, of an image and of all images. */
  readonly across: number
  readonly perImage: number
  readonly count: number
}

/** Tiles along an axis: those of each phase of the dilation, whose pixels lie `dilation` apart. */
function tilesAlong(size: number, dilation: number): number {
  const each = Math.floor(size / dilation)
  const larger = size % dilation
  return larger * ceilDiv(each + 1, side) + (dilation - larger) * ceilDiv(each, side)
}

function tilingOf({ n, dilation }: ConvGeometry, [height, width]: Extents): Tiling {
  const across = tilesAlong(width, dilation)
  const perImage = across * tilesAlong(height, dilation)
  return { height, width, dilation, across, perImage, count: n * perImage }
}

/** Some of the tiles, one after the other. */
interface Piece {
  readonly first: number
  readonly tiles: number
}

/** Pieces of a tiling whose values, for so many channels, take about as many bytes as is worthwhile. */
function piecesOf({ count }: Tiling, channels: number): Piece[] {
  const bytes = count * channels * points * 4
  const number = ceilDiv(bytes, Math.max(pieceBytes.least, Math.min(pieceBytes.most, bytes / usualPieces)))
  const each = Math.min(count, byFours(ceilDiv(count, number)))
  return Array.from({ length: ceilDiv(count, each) }, (_, i) => {
    return { first: i * each, tiles: Math.min(each, count - i * each) }
  })
}

/** What a transform reads and writes. */
interface Transform {
  readonly source: Operand
  readonly to: Operand
  readonly channels: number
  readonly tiles: number
  /** Tiles with the zeros behind them. */
  readonly filled: number
  /** Whether the channels come before the tiles. */
  readonly transposed: boolean
}

const expanded = 'fn transform(d: array<vec4f, SIZE>) -> array<vec4f, 5> {\nreturn expand(d);\n}'

const storedTransposed = `fn store(point: u32, tile: u32, quad: u32, v: vec4f) {
for (var i = 0u; i < 4u; i++) {
y[((point * ((s.c + 3) / 4) + quad) * 4 + i) * s.filled + tile] = v[i];
}
}`

function transform(
  label: string,
  { source, to, channels, tiles, filled, transposed }: Transform,
  { isExpanded, WEIGHTS }: { readonly isExpanded: boolean; readonly WEIGHTS: boolean },
  place: readonly number[],
): Dispatch {
  const [x, layers] = flatGrid(transposed ? ceilDiv(filled, 8) : filled)
  return {
    label,
    source: shader(shaders.winograd_transform, {
      constants: { SIZE: isExpanded ? 3 : 5, TRANSPOSED: transposed, WEIGHTS },
      aliases: transposed ? { T: 'f32' } : {},
      hooks: {
        ...(isExpanded ? { interpolate: '', transform: expanded } : {}),
        ...(transposed ? { store: storedTransposed } : {}),
      },
    }),
    reads: [source],
    writes: [to],
    uniforms: [channels, tiles, filled, x, ...place],
    grid: [x, ceilDiv(channels, transposed ? 4 : 32), layers],
  }
}

/** The values of filters [3, 3, tiles, channels], whose tiles are channels, too. */
function transformFilters(what: Transform): Dispatch {
  // They lie in no map: what divides by these extents must not divide by zero.
  const place = Array(9).fill(1)
  return transform('filter transform', what, { isExpanded: true, WEIGHTS: true }, place)
}

/** The values of a piece of a map: of windows of 5x5 pixels around its tiles, or of the tiles themselves. */
function transformMap(
  what: Omit<Transform, 'channels' | 'tiles'>,
  [height, width, channels]: Extents,
  tiling: Tiling,
  { first, tiles }: Piece,
  window?: { readonly padding: number },
): Dispatch {
  const isExpanded = window === undefined
  const place = [first, tiling.perImage, tiling.across, tiling.height, tiling.width, tiling.dilation]
  return transform(
    isExpanded ? 'gradient transform' : 'input transform',
    { ...what, channels, tiles },
    { isExpanded, WEIGHTS: false },
    [...place, height, width, window?.padding ?? 0],
  )
}

/** The products of matrices for all points. */
const product = (label: string, what: Omit<BatchedProduct, 'batch'>, adapter: AdapterTraits): Dispatch =>
  batchedProduct(label, { ...what, batch: points }, adapter)

/** What products stand for: tiles of a map [n, height, width, channels], or filters [3, 3, tiles, channels]. */
function outputTransform(
  p: Operand,
  channels: number,
  tiles: number,
  epilogue: Epilogue | undefined,
  map?: { readonly tiling: Tiling; readonly first: number },
): Dispatch {
  const [x, layers] = flatGrid(tiles)
  const { height, width, perImage, across, dilation } = map?.tiling ?? filters(tiles)
  return {
    label: 'output transform',
    source: shader(shaders.winograd_output, together({ constants: { WEIGHTS: !map } }, stored('f32', epilogue, 2))),
    reads: [p, ...operandsOf(epilogue)],
    writes: [outputBuffer(0)],
    uniforms: [height, width, channels, tiles, x, map?.first ?? 0, perImage, across, dilation],
    grid: [x, ceilDiv(channels, 32), layers],
  }
}

/** The extents of filters, as an epilogue sees them. */
const filters = (tiles: number): Omit<Tiling, 'count'> => {
  return { height: side, width: tiles, perImage: 1, across: 1, dilation: 1 }
}

/** Places of an axis and taps that meet within the map: other kernels skip the others. */
function meetings(read: number, written: number, padding: number, dilation: number): number {
  const ofTap = (offset: number) => Math.max(0, Math.min(written, read - offset) - Math.max(0, -offset))
  return ofTap(-padding) + ofTap(dilation - padding) + ofTap(2 * dilation - padding)
}

/** What a transform costs for each value, in multiply-adds of a product. */
const costOfValue = 60
/** How many times as fast an estimate must be. */
const leastGain = 1.2

/**
 * Whether the rule takes these kernels.
 * @param terms of the products, and their columns
 */
function isWorthwhile(
  g: ConvGeometry,
  { count }: Tiling,
  [terms, columns]: readonly [number, number],
  adapter: AdapterTraits,
): boolean {
  if (!panelsOf(terms, columns, batchedTermChoices, adapter).isEfficient) return false
  const { xHeight, xWidth, xChannels, yChannels, padding, dilation } = g
  const pairs = xChannels * yChannels
  const rows = meetings(xHeight, g.yHeight, padding, dilation)
  const products = g.n * rows * meetings(xWidth, g.yWidth, padding, dilation) * pairs
  const values = count * (xChannels + yChannels) + pairs
  return products >= worthwhile && products >= leastGain * points * (count * pairs + costOfValue * values)
}

/** Whether the kernels can compute it: 3x3 taps one after the other, all in float32, on an adapter that they are for. */
function isPossible(g: ConvGeometry, { factors, result }: ConvTensors, adapter: AdapterTraits): boolean {
  return (
    [g.kh, g.kw].every((taps) => taps === side) &&
    g.stride === 1 &&
    [...factors, result].every(({ dtype }) => dtype === 'f32') &&
    canMirror(adapter, [
      filledElements(g.n, xExtents(g)),
      filledElements(g.n, yExtents(g)),
      points * byFours(g.xChannels) * byFours(g.yChannels),
    ])
  )
}

/** The kernel for a convolution or its input gradient; undefined where it cannot compute it, or the adapter is not for it. */
export function convWinograd(
  kind: ConvKind,
  g: ConvGeometry,
  tensors: ConvTensors,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
): PanelCandidate | undefined {
  const { inputGrad, label, read, written } = passOf(kind, g)
  const tiling = tilingOf(g, written)
  if (!isPossible(g, tensors, adapter)) return undefined
  // The input gradient is a convolution of dy with the filters mirrored and their channels exchanged.
  const padding = inputGrad ? (side - 1) * g.dilation - g.padding : g.padding
  const [terms, columns] = [byFours(read[2]), byFours(written[2])]
  const preparation = new Preparation()
  const { dispatches, temporaries } = preparation
  const [map, weights] = tensors.factors
  const source = preparation.mirrorMap(0, map, g.n, read)
  const filtersSource = preparation.mirrorMap(1, weights, 1, [side * side, g.xChannels, g.yChannels])
  const u = preparation.temporary(spec([points, terms, columns]))
  dispatches.push(
    transformFilters({
      source: filtersSource,
      to: u,
      channels: g.yChannels,
      tiles: g.xChannels,
      filled: byFours(g.xChannels),
      transposed: inputGrad,
    }),
  )
  for (const piece of piecesOf(tiling, Math.max(terms, columns))) {
    const { first, tiles } = piece
    const v = preparation.temporary(spec([points, tiles, terms]))
    const p = preparation.temporary(spec([points, tiles, columns]))
    dispatches.push(
      transformMap({ source, to: v, filled: tiles, transposed: false }, read, tiling, piece, { padding }),
      product(label, { a: v, b: u, y: p, rows: tiles, filled: tiles, terms, columns, added: false }, adapter),
      outputTransform(p, written[2], tiles, epilogue, { tiling, first }),
    )
  }
  const isBest = isWorthwhile(g, tiling, [terms, written[2]], adapter)
  return { candidate: { name: 'winograd', temporaries, dispatches }, isBest }
}

/** The kernel for a weight gradient; undefined where it cannot compute it, or the adapter is not for it. */
export function weightGradWinograd(
  g: ConvGeometry,
  tensors: ConvTensors,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
): PanelCandidate | undefined {
  const [input, gradient] = [xExtents(g), yExtents(g)]
  const tiling = tilingOf(g, gradient)
  if (!isPossible(g, tensors, adapter)) return undefined
  const [rows, columns] = [byFours(g.xChannels), byFours(g.yChannels)]
  const preparation = new Preparation()
  const { dispatches, temporaries } = preparation
  const x = preparation.mirrorMap(0, tensors.factors[0], g.n, input)
  const dy = preparation.mirrorMap(1, tensors.factors[1], g.n, gradient)
  const p = preparation.temporary(spec([points, g.xChannels, columns]))
  const pieces = piecesOf(tiling, Math.max(rows, columns))
  for (const piece of pieces) {
    const filled = byFours(piece.tiles)
    const v = preparation.temporary(spec([points, rows, filled]))
    const d = preparation.temporary(spec([points, filled, columns]))
    const added = piece.first > 0
    dispatches.push(
      transformMap({ source: x, to: v, filled, transposed: true }, input, tiling, piece, { padding: g.padding }),
      transformMap({ source: dy, to: d, filled, transposed: false }, gradient, tiling, piece),
      product(
        'conv2dWeightGrad',
        { a: v, b: d, y: p, rows: g.xChannels, filled: rows, terms: filled, columns, added },
        adapter,
      ),
    )
  }
  dispatches.push(outputTransform(p, g.yChannels, g.xChannels, epilogue))
  const isBest = isWorthwhile(g, tiling, [pieces[0]?.tiles ?? 1, g.yChannels], adapter)
  return { candidate: { name: 'winograd', temporaries, dispatches }, isBest }
}
