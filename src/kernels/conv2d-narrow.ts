import type { AdapterTraits } from '../engine/adapter.js'
import * as e from '../engine/expr.js'
import { ceilDiv, type Dispatch, inputBuffer, outputBuffer, temporaryBuffer } from '../engine/kernel.js'
import { mirrorFormat } from '../engine/mirror.js'
import {
  type ConvGeometry,
  type ConvKind,
  type ConvTensors,
  passOf,
  shapeUniforms,
  xExtents,
  yExtents,
} from './conv2d-geometry.js'
import { byFours, canMirror, filledElements, mirrorType, type PanelCandidate, Preparation } from './conv2d-panels.js'
import { cpuLanes } from './conv2d-tiles.js'
import { storeQuads } from './epilogue.js'
import * as shaders from './mirror-shaders.generated.js'
import { shader } from './shaders.js'
import { type Epilogue, operandsOf, slicesOf, stored, sumSlices, type Target, together } from './slice-sums.js'
import { storedType } from './views.js'

/** Neighbouring pixels that a lane computes at once: with four channels each, as many sums as hide the adders' latency. */
const pixelsAtOnce = 2
/** Terms of a window above which what is written out for them fills the processor's caches, and takes long to compile. */
const mostTerms = 144
/** Channels that are read above which windows of a single pixel are left to panels: whole steps gain nothing. */
const mostChannels = 32
/** Products below which a kernel, whose text is made for its channels, saves less time in a run than it takes to compile. */
const worthwhile = 2 ** 21
/** Products for each pixel that is read below which filling its channels up to whole texels takes longer than is saved. */
const worthFilling = 128
/** Least share of the lanes' sums, and of their terms, that are asked for. */
const leastEfficiency = 0.55
/** Turns of a group of lanes for which a workgroup loads the weights once. */
const mostStrips = 64
/** Workgroups that keep the cores of a CPU busy. */
const busyWorkgroups = 12
/** WebGPU's limit along an axis. */
const mostWorkgroups = 65535

/** How the lanes of a subgroup share the output channels, four each. */
function groupsOf(columns: number, adapter: AdapterTraits) {
  const lanes = cpuLanes(adapter) ?? 8
  const quads = ceilDiv(columns, 4)
  const tiles = ceilDiv(quads, lanes)
  const QUADS = ceilDiv(quads, tiles)
  const GROUPS = [8, 4, 2].find((groups) => groups * QUADS <= lanes) ?? 1
  return { QUADS, GROUPS, LANES: lanes / GROUPS, tiles, efficiency: (columns / 4 / tiles) * (GROUPS / lanes) }
}

/** The kernel of `conv_narrow.wgsl` for a convolution or its input gradient; undefined where it is not for them. */
export function convNarrow(
  kind: ConvKind,
  g: ConvGeometry,
  { factors: [a, w], result }: ConvTensors,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
): PanelCandidate | undefined {
  const { inputGrad, label, read, written, step, pixels } = passOf(kind, g)
  const [[, , channels], [height, width, columns]] = [read, written]
  // Of an input gradient, the taps that reach one phase of the stride, or those places of zeros.
  const [ROWS, TAPS] = [ceilDiv(g.kh, step), ceilDiv(g.kw, step)]
  const filled = byFours(channels)
  const taps = g.kh * g.kw
  if (ROWS * TAPS * filled > mostTerms || (g.dilation > 1 && taps > 1)) return undefined
  if (!canMirror(adapter, [filledElements(g.n, read), taps * filled * byFours(columns)])) return undefined
  const { QUADS, GROUPS, LANES, tiles, efficiency } = groupsOf(columns, adapter)
  const strips = g.n * ceilDiv(height, step) * ceilDiv(ceilDiv(width, step), pixelsAtOnce)
  const wanted = Math.min(mostStrips, ceilDiv(strips * step ** 2, GROUPS * busyWorkgroups))
  const each = Math.max(wanted, ceilDiv(strips, GROUPS * mostWorkgroups))
  const groups = ceilDiv(strips, GROUPS * each)
  const preparation = new Preparation()
  const reads = preparation.mirrorFactors(kind, g, [a, w])
  const IN_QUADS = filled / 4
  const TEXELS = TAPS * IN_QUADS
  const STEP = (inputGrad ? 1 : g.stride) * IN_QUADS
  const changes = {
    constants: {
      ...{ P: pixelsAtOnce, GROUPS, LANES, QUADS, IN_QUADS, STEP, INPUT_GRAD: inputGrad },
      ...{ ROWS, TAPS, TEXELS, TERMS: 4 * TEXELS, PANEL: ROWS * TAPS * filled },
      READS: ceilDiv((pixelsAtOnce - 1) * STEP + TEXELS, LANES),
    },
    aliases: { A: mirrorType(a), B: mirrorType(w) },
  }
  const U = storedType(result)
  const { expr = e.input(0), operands = [] } = epilogue ?? {}
  const storing =
    columns % 4 === 0
      ? together({ aliases: { U } }, storeQuads(expr, operands, epilogue?.result ?? result, 3))
      : together({ aliases: { Y: U } }, stored(U, epilogue, 3))
  const product: Dispatch = {
    multiplies: true,
    label,
    source: shader(shaders.conv_narrow, together(changes, storing)),
    reads: [...reads, ...operandsOf(epilogue)],
    writes: [outputBuffer(0)],
    uniforms: shapeUniforms(g, [read[0], read[1], filled], written, [each]),
    grid: [groups, tiles, step ** 2],
  }
  const { temporaries, dispatches } = preparation
  const candidate = { name: 'narrow', temporaries, dispatches: [...dispatches, product] }
  const products = pixels * taps * channels * columns
  const isWhole = filled === channels || (taps * channels * columns) / g.stride ** 2 >= worthFilling
  const reached = taps / (ROWS * TAPS * step ** 2)
  const fills = efficiency * reached >= leastEfficiency
  return { candidate, isBest: fills && isWhole && channels <= mostChannels && products >= worthwhile }
}

/** Least share of the lanes' sums of a weight gradient that are asked for. */
const leastEfficiencyOfSums = 0.8
/** As many products with more than two channels for each lane are left to panels. */
const largeSums = 2 ** 26
/** Workgroups of a weight gradient that keep the cores of a CPU busy. */
const busyWorkgroupsOfSums = 16
/** Pixels of a row over which a lane sums at once. */
const pixelsOfSum = 6

/** The kernel of `conv_narrow_weight_grad.wgsl`; undefined where it is not for the convolution. */
export function weightGradNarrow(
  g: ConvGeometry,
  { factors: [x, dy], result }: ConvTensors,
  adapter: AdapterTraits,
  epilogue?: Epilogue,
): PanelCandidate | undefined {
  const taps = g.kh * g.kw
  const { xChannels: channels, yChannels: columns } = g
  if (channels % 4 > 0 || columns % 4 > 0 || taps > 9 || (g.dilation > 1 && taps > 1)) return undefined
  const [read, written] = [xExtents(g), yExtents(g)]
  if (!canMirror(adapter, [filledElements(g.n, read), filledElements(g.n, written)])) return undefined
  const { QUADS, GROUPS, LANES, tiles, efficiency } = groupsOf(columns, adapter)
  const quads = channels / 4
  const strips = g.n * g.yHeight * ceilDiv(g.yWidth, pixelsOfSum)
  const wanted = Math.max(1, Math.min(ceilDiv(busyWorkgroupsOfSums, quads * tiles), Math.floor(strips / (GROUPS * 8))))
  const each = ceilDiv(strips, GROUPS * wanted)
  const slices = ceilDiv(strips, GROUPS * each)
  const label = 'conv2dWeightGrad'
  const target: Target = { extents: [1, taps, channels, columns], type: storedType(result), epilogue }
  const whole = slices === 1 && !epilogue
  const into = whole ? outputBuffer(0) : temporaryBuffer(0)
  const product: Dispatch = {
    multiplies: true,
    label,
    source: shader(shaders.conv_narrow_weight_grad, {
      constants: {
        ...{ P: pixelsOfSum, GROUPS, LANES, QUADS, ROWS: g.kh, TAPS: g.kw, STRIDE: g.stride, TERMS: taps * 4 },
        READS: ceilDiv((pixelsOfSum - 1) * g.stride + g.kw, LANES),
      },
      aliases: { A: mirrorType(x), B: mirrorType(dy), U: `vec4<${whole ? storedType(result) : 'f32'}>` },
    }),
    reads: [
      { ...inputBuffer(0), mirror: mirrorFormat(x) },
      { ...inputBuffer(1), mirror: mirrorFormat(dy) },
    ],
    writes: [into],
    uniforms: shapeUniforms(g, read, written, [each]),
    grid: [slices, quads, tiles],
  }
  const dispatches = whole ? [product] : [product, sumSlices(label, into, slices, target)]
  const candidate = { name: 'narrow', temporaries: whole ? [] : [slicesOf(target, slices)], dispatches }
  const products = g.n * g.yHeight * g.yWidth * taps * channels * columns
  const lanes = GROUPS * LANES
  const isSmall = columns <= 2 * lanes || (columns <= 4 * lanes && products < largeSums)
  return { candidate, isBest: efficiency >= leastEfficiencyOfSums && isSmall && products >= worthwhile }
}
