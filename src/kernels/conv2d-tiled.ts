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
import { spec } from '../engine/shape.js'
import { shader } from './shaders.js'

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

type Map3 = readonly [height: number, width: number, channels: number]

/** The uniform struct `Shape` of the tiled kernels; `last` is a field of some of them. */
const shapeUniforms = (g: ConvGeometry, read: Map3, written: Map3, last = 0): number[] => [
  g.n,
  ...read,
  ...written,
  g.kh,
  g.kw,
  g.stride,
  g.stride,
  g.padding,
  g.padding,
  g.dilation,
  g.dilation,
  last,
]

const xMap = (g: ConvGeometry): Map3 => [g.xHeight, g.xWidth, g.xChannels]
const yMap = (g: ConvGeometry): Map3 => [g.yHeight, g.yWidth, g.yChannels]

/** Columns of a subgroup's tile: 8 lanes times 2 or 3, whichever wastes less. */
const columnsPerLane = (columns: number): 2 | 3 => (ceilDiv(columns, 24) * 24 < ceilDiv(columns, 16) * 16 ? 3 : 2)

/**
 * Kernels of a convolution without groups, or of its input gradient: x or dy, and w, to y or dx.
 */
export function convCandidates(kind: 'forward' | 'inputGrad', g: ConvGeometry, adapter: AdapterTraits): Candidate[] {
  const forward = kind === 'forward'
  const read = forward ? xMap(g) : yMap(g)
  const written = forward ? yMap(g) : xMap(g)
  const label = forward ? 'conv2d' : 'conv2dInputGrad'
  const candidates: Candidate[] = []
  if (adapter.subgroupSize === 8) {
    const [height, width, channels] = written
    // Pixels of the written map that the same taps reach: one phase per stride in the input gradient.
    const phases = forward ? 1 : g.stride
    const pixels = g.n * ceilDiv(height, phases) * ceilDiv(width, phases)
    const rows = pixels < 64 || g.dilation > 2 ? 8 : 16
    const columns = columnsPerLane(channels)
    const source = shader('conv_subgroup', {
      constants: { L: rows, G: columns, INPUT_GRAD: !forward },
      aliases: { V: `vec${columns}f` },
    })
    const grid = [ceilDiv(pixels, 2 * rows), ceilDiv(channels, 8 * columns), phases * phases] as const
    const uniforms = shapeUniforms(g, read, written)
    const dispatch: Dispatch = { label, source, reads: [input(0), input(1)], writes: [output(0)], uniforms, grid }
    candidates.push({ name: 'subgroup', dispatches: [dispatch] })
  }
  return candidates
}

/** Kernels of a convolution's weight gradient: x and dy to dw. */
export function weightGradCandidates(g: ConvGeometry, adapter: AdapterTraits): Candidate[] {
  const candidates: Candidate[] = []
  const rows = g.kh * g.kw * g.xChannels
  const pixels = g.n * g.yHeight * g.yWidth
  if (adapter.subgroupSize === 8) {
    const columns = columnsPerLane(g.yChannels)
    const tileRows = 16
    const across = [ceilDiv(rows, 2 * tileRows), ceilDiv(g.yChannels, 8 * columns)] as const
    const tiles = across[0] * across[1]
    const wanted = tiles >= 8 ? 1 : Math.max(1, Math.min(ceilDiv(8, tiles), Math.floor(pixels / 256)))
    const chunk = ceilDiv(ceilDiv(pixels, wanted), 4) * 4
    const slices = ceilDiv(pixels, chunk)
    const source = shader('conv_weight_grad_subgroup', {
      constants: { L: tileRows, G: columns },
      aliases: { V: `vec${columns}f` },
    })
    candidates.push(
      splitSum('subgroup', rows * g.yChannels, slices, (target) => ({
        label: 'conv2dWeightGrad',
        source,
        reads: [input(0), input(1)],
        writes: [target],
        uniforms: shapeUniforms(g, xMap(g), yMap(g), chunk),
        grid: [...across, slices],
      })),
    )
  }
  return candidates
}

/** A product whose inner dimension is cut into slices, each written apart and then added up in order. */
export function splitSum(
  name: string,
  size: number,
  slices: number,
  product: (target: Operand) => Dispatch,
): Candidate {
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
