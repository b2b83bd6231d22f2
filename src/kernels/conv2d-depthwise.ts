import type { AdapterTraits } from '../engine/adapter.js'
import {
  type Candidate,
  ceilDiv,
  type Dispatch,
  flatGrid,
  inputBuffer,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import { mirrorFormat } from '../engine/mirror.js'
import { elements, type Spec } from '../engine/shape.js'
import {
  type ConvGeometry,
  type ConvKind,
  type ConvTensors,
  passOf,
  shapeUniforms,
  xExtents,
  yExtents,
} from './conv2d-geometry.js'
import { canMirror, mirrorType } from './conv2d-panels.js'
import * as shaders from './mirror-shaders.generated.js'
import { shader } from './shaders.js'
import { slicesOf, sumSlices, type Target } from './slice-sums.js'
import { packType, storedType } from './views.js'

/** Rows and columns of the pixels that a thread computes, or adds up, at a time. */
const side = 3
/** Larger windows are for the plain kernels: what is written out grows with them. */
const largestWindow = 5
/** Threads that keep the cores of a CPU busy. */
const busyThreads = 1024
/** Rows of blocks that a thread takes at most: more save nothing of what it computes once. */
const mostBands = 8

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

/** How blocks of pixels and their windows lie in the maps. */
interface Blocks {
  /** Pixels between those of a block. */
  readonly spacing: number
  /** Rows of blocks of a map, or of a phase of it, of so many rows. */
  readonly bandsOf: (rows: number) => number
  readonly constants: Readonly<Record<string, number>>
}

/** Blocks whose windows are of so many rows and columns, and are `step` of them apart. */
function blocksOf([down, taps]: readonly [number, number], step: number, spacing: number): Blocks {
  const reads = (window: number) => (side - 1) * step + window
  return {
    spacing,
    bandsOf: (rows) => ceilDiv(rows, spacing * side) * spacing,
    constants: {
      ...{ R: side, P: side, DOWN: down, TAPS: taps, WEIGHTS: down * taps, STEP: step },
      ...{ ROWS: reads(down), SPAN: reads(taps) },
    },
  }
}

/** Whether the kernels here are for a convolution: depthwise, of whole packs of channels, on an adapter with mirrors. */
const applies = (g: ConvGeometry, factors: readonly Spec[], adapter: AdapterTraits): boolean =>
  g.groups === g.xChannels &&
  g.xChannels === g.yChannels &&
  g.xChannels % 4 === 0 &&
  Math.max(g.kh, g.kw) <= largestWindow &&
  canMirror(
    adapter,
    factors.map(({ shape }) => elements(shape)),
  )

const mirrored = (index: number, factor: Spec) => ({ ...inputBuffer(index), mirror: mirrorFormat(factor) })

/** The kernel of `conv_depthwise.wgsl` for a convolution or its input gradient; undefined where it is not for them. */
export function convDepthwise(
  kind: ConvKind,
  g: ConvGeometry,
  { factors: [a, w], result }: ConvTensors,
  adapter: AdapterTraits,
): Candidate | undefined {
  if (!applies(g, [a, w], adapter)) return undefined
  const { inputGrad, label, read, written, step } = passOf(kind, g)
  const [height, , channels] = written
  // Of an input gradient the taps that reach a phase of the stride are `stride / shared` apart, and read neighbours.
  const shared = gcd(g.stride, g.dilation)
  const apart = g.stride / shared
  const spacing = g.dilation / shared
  const { bandsOf, constants } = inputGrad
    ? blocksOf([ceilDiv(g.kh, apart), ceilDiv(g.kw, apart)], 1, spacing)
    : blocksOf([g.kh, g.kw], apart, spacing)
  const bands = g.n * bandsOf(ceilDiv(height, step))
  const packs = channels / 4
  const each = Math.max(1, Math.min(mostBands, Math.floor((bands * packs * step ** 2) / busyThreads)))
  const [x, y] = flatGrid(ceilDiv(ceilDiv(bands, each) * packs, 64))
  const dispatch: Dispatch = {
    label,
    source: shader(shaders.conv_depthwise, {
      constants: { ...constants, SUMS: side * side, INPUT_GRAD: inputGrad },
      aliases: { A: mirrorType(a), B: mirrorType(w), U: packType(result, 4) },
    }),
    reads: [mirrored(0, a), mirrored(1, w)],
    writes: [outputBuffer(0)],
    uniforms: shapeUniforms(g, read, written, [inputGrad ? spacing : g.dilation, spacing, each]),
    grid: [x, y, step ** 2],
  }
  return { name: 'depthwise', dispatches: [dispatch] }
}

/** The kernel of `conv_depthwise_weight_grad.wgsl`; undefined where it is not for the convolution. */
export function depthwiseWeightGrad(
  g: ConvGeometry,
  { factors: [x, dy], result }: ConvTensors,
  adapter: AdapterTraits,
): Candidate | undefined {
  if (!applies(g, [x, dy], adapter)) return undefined
  const shared = gcd(g.stride, g.dilation)
  const { spacing, bandsOf, constants } = blocksOf([g.kh, g.kw], g.stride / shared, g.dilation / shared)
  const bands = g.n * bandsOf(g.yHeight)
  const packs = g.yChannels / 4
  const slices = Math.min(bands, ceilDiv(busyThreads, packs))
  const label = 'conv2dWeightGrad'
  const target: Target = { extents: [1, g.kh, g.kw, g.yChannels], type: storedType(result) }
  const whole = slices === 1
  const written = whole ? outputBuffer(0) : temporaryBuffer(0)
  const dispatch: Dispatch = {
    label,
    source: shader(shaders.conv_depthwise_weight_grad, {
      constants: { ...constants, PIXELS: side * side },
      aliases: { A: mirrorType(x), B: mirrorType(dy), U: whole ? packType(result, 4) : 'vec4f' },
    }),
    reads: [mirrored(0, x), mirrored(1, dy)],
    writes: [written],
    uniforms: shapeUniforms(g, xExtents(g), yExtents(g), [slices, spacing]),
    grid: [ceilDiv(slices * packs, 64), 1, 1],
  }
  if (whole) return { name: 'depthwise', dispatches: [dispatch] }
  const dispatches = [dispatch, sumSlices(label, written, slices, target)]
  return { name: 'depthwise', temporaries: [slicesOf(target, slices)], dispatches }
}
