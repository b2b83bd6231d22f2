import type { AdapterTraits } from '../engine/adapter.js'
import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  inputBuffer,
  type Operand,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import { mirrorFormat, mirrorOf } from '../engine/mirror.js'
import { type Spec, spec } from '../engine/shape.js'
import {
  type ConvGeometry,
  type ConvKind,
  type ConvTensors,
  type Extents,
  passOf,
  shapeUniforms,
  xExtents,
  yExtents,
} from './conv2d-geometry.js'
import { cpuLanes } from './conv2d-tiles.js'
import * as shaders from './mirror-shaders.generated.js'
import { shader } from './shaders.js'
import { type Epilogue, operandsOf, slicesOf, stored, sumSlices, type Target, together } from './slice-sums.js'
import { storedType } from './views.js'

/** Vectors of columns that a lane holds at most, by the number of lanes. */
const mostHalves = { 4: 4, 8: 2 } as const
/** Columns of a workgroup: with fewer, there are too few sums for each row that is read. */
const leastWidth = 32
/** Terms of a panel: with 64 columns they fill half of a cache of 32 KiB, or three quarters. */
const termChoices = [96, 64] as const
/** Those of a weight gradient are pixels, whose numbers on small maps leave little choice. */
const pixelChoices = [112, 96, 64] as const
/** What a panel costs beside its products, in terms. */
const panelOverhead = 8

/** Products below which panels save less time in a run than their kernels take to compile, a second each. */
export const worthwhile = 2 ** 24
/** The share of a panel's products that must be asked for: the others are computed for nothing. */
const leastEfficiency = 0.7

/** Terms of the panels that compute the fewest products beside those asked for. */
function termsOf(terms: number, choices: readonly number[]): number {
  const cost = (each: number) => ceilDiv(terms, each) * (each + panelOverhead)
  return choices.reduce((best, each) => (cost(each) < cost(best) ? each : best))
}

/** How a product is divided into panels. */
interface Panels {
  readonly constants: {
    readonly LANES: number
    readonly TERMS: number
    readonly BLOCKS: number
    readonly READS: number
    readonly HALVES: number
    readonly ROWS: number
  }
  /** Rows that workgroup memory has room for. */
  readonly rows: number
  /** Tiles of columns. */
  readonly tiles: number
  /** Whether enough of its products were asked for, and a row that is read meets enough columns. */
  readonly isEfficient: boolean
}

export function panelsOf(terms: number, columns: number, choices: readonly number[], adapter: AdapterTraits): Panels {
  const LANES = cpuLanes(adapter) ?? 8
  const TERMS = termsOf(terms, choices)
  const HALVES = Math.min(mostHalves[LANES], ceilDiv(columns, 4 * LANES))
  const width = 4 * LANES * HALVES
  const tiles = ceilDiv(columns, width)
  const rows = Math.min(128, Math.floor(adapter.maxWorkgroupStorage / (4 * width)))
  const efficiency = ((terms / ceilDiv(terms, TERMS) / TERMS) * columns) / (tiles * width)
  const constants = { LANES, TERMS, BLOCKS: TERMS / 16, READS: ceilDiv(TERMS, 4 * LANES), HALVES, ROWS: rows }
  return { constants, rows, tiles, isEfficient: efficiency >= leastEfficiency && width >= leastWidth }
}

/** Whether kernels that read mirrors are for an adapter: CPU drivers whose textures hold mirrors of so many elements. */
export const canMirror = (adapter: AdapterTraits, counts: readonly number[]): boolean =>
  cpuLanes(adapter) !== undefined && counts.every((count) => mirrorOf(spec([count])).rows <= adapter.maxMirrorRows)

/** Elements of a map whose channels are filled up by fours. */
export const filledElements = (n: number, [height, width, channels]: Extents): number =>
  n * height * width * byFours(channels)

export const byFours = (count: number): number => 4 * ceilDiv(count, 4)

export const mirrorType = (factor: Spec): string => `texture_storage_2d<${mirrorFormat(factor)}, read>`

/** The dispatches in front of a product that fill its factors up to whole texels, with what they write. */
export class Preparation {
  readonly temporaries: Spec[] = []
  readonly dispatches: Dispatch[] = []

  temporary(temporary: Spec): Operand {
    return temporaryBuffer(this.temporaries.push(temporary) - 1)
  }

  /** The mirror of an input, seen as planes of rows and columns that are filled up with zeros: columns to whole texels. */
  mirror(
    index: number,
    { dtype }: Spec,
    [planes, rows, columns]: readonly [number, number, number],
    [filledRows, filledColumns]: readonly [number, number],
  ): Operand {
    const mirror = mirrorFormat({ dtype })
    if (filledRows === rows && filledColumns === columns) return { ...inputBuffer(index), mirror }
    const filled = spec([planes, filledRows, filledColumns], dtype)
    const buffer = this.temporary(filled)
    const quads = filledColumns / 4
    const count = planes * filledRows * quads
    const grid = flatGrid(ceilDiv(count, 64))
    this.dispatches.push({
      label: 'pad',
      source: shader(shaders.pad_rows, { aliases: { T: storedType(filled) } }),
      reads: [inputBuffer(index)],
      writes: [buffer],
      uniforms: [rows, columns, filledRows, quads, count, grid[0]],
      grid,
    })
    return { ...buffer, mirror }
  }

  /** The mirror of a map [n, height, width, channels], its channels filled up. */
  mirrorMap(index: 0 | 1, factor: Spec, n: number, [height, width, channels]: Extents): Operand {
    const pixels = n * height * width
    return this.mirror(index, factor, [1, pixels, channels], [pixels, byFours(channels)])
  }

  /**
   * The mirrors of both factors of a convolution or its input gradient: the map that is read, [n, height, width, channels], and
   * the weights [taps, in_c, out_c], or [taps * out_c, in_c] of an input gradient. What is summed over is filled up by fours.
   */
  mirrorFactors(kind: ConvKind, g: ConvGeometry, [map, weights]: ConvTensors['factors']): [Operand, Operand] {
    const { inputGrad, read, written } = passOf(kind, g)
    const [channels, columns] = [read[2], written[2]]
    const taps = g.kh * g.kw
    return [
      this.mirrorMap(0, map, g.n, read),
      inputGrad
        ? this.mirror(1, weights, [1, taps * columns, channels], [taps * columns, byFours(channels)])
        : this.mirror(1, weights, [taps, channels, columns], [byFours(channels), byFours(columns)]),
    ]
  }
}

/** A kernel that reads mirrors, and whether the rule prefers it to the others. */
export interface PanelCandidate {
  readonly candidate: Candidate
  readonly isBest: boolean
}

/** The candidates with those that read mirrors: where the rule prefers some they come first, the last of them in front. */
export const withMirrored = (
  mirrored: readonly (PanelCandidate | undefined)[],
  others: readonly Candidate[],
): readonly Candidate[] => {
  const kernels = mirrored.flatMap((each) => each ?? [])
  const preferred = (isBest: boolean) =>
    kernels.filter((each) => each.isBest === isBest).map(({ candidate }) => candidate)
  return [...preferred(true).reverse(), ...others, ...preferred(false)]
}

/** Rows of a workgroup: as many as its memory holds, unless that leaves cores idle. */
export function rowsOf(rows: number, others: number, most: number): number {
  const least = 24
  let tiles = ceilDiv(rows, most)
  while (tiles * others < 8 && ceilDiv(rows, tiles) > least) tiles++
  return ceilDiv(rows, tiles)
}

/** The kernel of `conv_panel.wgsl` for a convolution or its input gradient; undefined where the adapter is not for it. */
export function convPanel(
  kind: ConvKind,
  g: ConvGeometry,
  { factors: [a, w], result }: ConvTensors,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
): PanelCandidate | undefined {
  const { inputGrad, label, read, written, step, pixels: rows } = passOf(kind, g)
  const [channels, columns] = [read[2], written[2]]
  const filled = byFours(channels)
  const taps = g.kh * g.kw
  if (!canMirror(adapter, [filledElements(g.n, read), taps * filled * byFours(columns)])) return undefined
  const phases = step ** 2
  const { constants, rows: most, tiles, isEfficient } = panelsOf(taps * filled, columns, termChoices, adapter)
  const rowsEach = rowsOf(rows, tiles * phases, most)
  const preparation = new Preparation()
  const reads = preparation.mirrorFactors(kind, g, [a, w])
  const changes = {
    constants: { ...constants, QUADS: constants.TERMS / 4, INPUT_GRAD: inputGrad },
    aliases: { A: mirrorType(a), B: mirrorType(w) },
  }
  const [x, layers] = flatGrid(ceilDiv(rows, rowsEach))
  const product: Dispatch = {
    multiplies: true,
    label,
    source: shader(shaders.conv_panel, together(changes, stored(storedType(result), epilogue, 3))),
    reads: [...reads, ...operandsOf(epilogue)],
    writes: [outputBuffer(0)],
    uniforms: shapeUniforms(g, [read[0], read[1], filled], written, [x, rowsEach]),
    grid: [x, tiles, phases * layers],
  }
  const { temporaries, dispatches } = preparation
  const candidate = { name: 'panel', temporaries, dispatches: [...dispatches, product] }
  const products = rows * phases * columns * channels * ceilDiv(taps, phases)
  const isBest = isEfficient && channels >= 16 && rows >= 32 && products >= worthwhile
  return { candidate, isBest }
}

/** The kernel of `conv_weight_grad_panel.wgsl`; undefined where the adapter is not for it. */
export function weightGradPanel(
  g: ConvGeometry,
  { factors, result }: ConvTensors,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
): PanelCandidate | undefined {
  // The smaller map is transposed, where the convolution is a product of matrices.
  const SWAPPED = g.kh * g.kw === 1 && g.stride === 1 && g.padding === 0 && g.xChannels < g.yChannels
  const [rowIndex, panelIndex] = SWAPPED ? ([0, 1] as const) : ([1, 0] as const)
  const [rowMap, panelMap] = SWAPPED ? [xExtents(g), yExtents(g)] : [yExtents(g), xExtents(g)]
  const [rowFactor, panelFactor] = [factors[rowIndex], factors[panelIndex]]
  const [[, , rows], [, , columns]] = [rowMap, panelMap]
  const pixels = g.n * g.yHeight * g.yWidth
  const taps = g.kh * g.kw
  const most = panelsOf(pixels, columns, pixelChoices, adapter)
  const tilesOfRows = ceilDiv(rows, most.rows)
  const slices = Math.max(1, Math.min(ceilDiv(4, tilesOfRows * taps * most.tiles), Math.floor(pixels / 512)))
  const { constants, tiles, isEfficient } = panelsOf(ceilDiv(pixels, slices), columns, pixelChoices, adapter)
  const filled = byFours(pixels)
  const mirrored = [filledElements(g.n, rowMap), filledElements(g.n, panelMap), rows * filled]
  if (!canMirror(adapter, mirrored)) return undefined

  const preparation = new Preparation()
  const { dispatches, temporaries } = preparation
  const panel = preparation.mirrorMap(panelIndex, panelFactor, g.n, panelMap)
  const map = preparation.mirrorMap(rowIndex, rowFactor, g.n, rowMap)
  const transposed = preparation.temporary(spec([rows, filled], rowFactor.dtype))
  dispatches.push({
    label: 'transpose',
    source: shader(shaders.transpose_pixels, { aliases: { A: mirrorType(rowFactor), T: storedType(rowFactor) } }),
    reads: [map],
    writes: [transposed],
    uniforms: [g.n, rowMap[0] * rowMap[1], rows, filled],
    grid: [ceilDiv(filled, 8), ceilDiv(rows, 64), 1],
  })
  const target: Target = { extents: [1, taps, g.xChannels, g.yChannels], type: storedType(result), epilogue }
  const storing = slices > 1 ? stored('f32', undefined, 3) : stored(target.type, epilogue, 3)
  const label = 'conv2dWeightGrad'
  const written = slices > 1 ? preparation.temporary(slicesOf(target, slices)) : outputBuffer(0)
  const changes = {
    constants: { ...constants, VECTORS: constants.TERMS / constants.LANES, SWAPPED },
    aliases: { A: mirrorType(rowFactor), B: mirrorType(panelFactor) },
  }
  dispatches.push({
    multiplies: true,
    label,
    source: shader(shaders.conv_weight_grad_panel, together(changes, storing)),
    reads: [{ ...transposed, mirror: mirrorFormat(rowFactor) }, panel, ...(slices > 1 ? [] : operandsOf(epilogue))],
    writes: [written],
    uniforms: shapeUniforms(g, xExtents(g), yExtents(g), [slices, ceilDiv(rows, tilesOfRows), filled]),
    grid: [tilesOfRows, taps * tiles, slices],
  })
  if (slices > 1) dispatches.push(sumSlices(label, written, slices, target))
  const candidate = { name: 'panel', temporaries, dispatches }
  const products = pixels * taps * rows * columns
  return { candidate, isBest: isEfficient && rows >= 32 && products >= worthwhile }
}
