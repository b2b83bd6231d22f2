import type { AdapterTraits } from '../engine/adapter.js'
import { type Candidate, ceilDiv, flatGrid, inputBuffer, outputBuffer } from '../engine/kernel.js'
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
import { cpuLanes, slicesFor } from './conv2d-tiles.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { sliceSums, type Target } from './slice-sums.js'
import { storedType } from './views.js'

/** Kernels of a convolution in groups, or of its input gradient: x or dy, and w, to y or dx. */
export async function groupedCandidates(
  kind: ConvKind,
  g: ConvGeometry,
  tensors: ConvTensors,
  adapter: AdapterTraits,
): Promise<Candidate[]> {
  const types = factorTypes(tensors)
  const { inputGrad, label, read, written, step, pixels } = passOf(kind, g)
  const pixelsPerThread = 8
  const [x, y] = flatGrid(ceilDiv(ceilDiv(pixels, pixelsPerThread) * written[2], 64))
  const source = shader(shaders.conv_grouped, {
    constants: { P: pixelsPerThread, INPUT_GRAD: inputGrad },
    aliases: { A: types[0], B: types[1], U: storedType(tensors.result) },
  })
  const uniforms = shapeUniforms(g, read, written, [g.groups])
  const operands = { reads: [inputBuffer(0), inputBuffer(1)], writes: [outputBuffer(0)] }
  const direct = {
    name: 'direct',
    dispatches: [{ label, ...operands, source, uniforms, grid: [x, y, step ** 2] as const }],
  }
  if (cpuLanes(adapter) === undefined) return [direct]
  const { convDepthwise } = await import('./conv2d-depthwise.js')
  const depthwise = convDepthwise(kind, g, tensors, adapter)
  return depthwise ? [depthwise, direct] : [direct]
}

/** Kernels of the weight gradient of a convolution in groups: x and dy to dw. */
export async function groupedWeightGrad(
  g: ConvGeometry,
  tensors: ConvTensors,
  adapter: AdapterTraits,
): Promise<Candidate[]> {
  const types = factorTypes(tensors)
  const label = 'conv2dWeightGrad'
  const rows = (g.kh * g.kw * g.xChannels) / g.groups
  const pixels = g.n * g.yHeight * g.yWidth
  const uniforms = (slices: number) => shapeUniforms(g, xExtents(g), yExtents(g), [slices, g.groups])
  const target: Target = { extents: [1, 1, rows, g.yChannels], type: storedType(tensors.result) }
  const rowsPerThread = 9
  const across = ceilDiv(ceilDiv(rows, rowsPerThread) * g.yChannels, 64)
  const slices = slicesFor(across, pixels, adapter)
  const changes = { constants: { R: rowsPerThread }, aliases: { A: types[0], B: types[1] } }
  const kernel = { name: 'direct', shader: shaders.conv_grouped_weight_grad, changes, slices } as const
  const direct = sliceSums(kernel, { label, uniforms: uniforms(slices), grid: [across, 1, slices] }, target)
  if (cpuLanes(adapter) === undefined) return [direct]
  const { depthwiseWeightGrad } = await import('./conv2d-depthwise.js')
  const depthwise = depthwiseWeightGrad(g, tensors, adapter)
  return depthwise ? [depthwise, direct] : [direct]
}
