import type { Node } from '../engine/ir.js'
import { sameShape } from '../engine/shape.js'
import type { ConvAttrs } from '../kernels/conv2d.js'
import type { MatmulAttrs } from '../kernels/matmul-kernels.js'
import type { RangeAttrs } from '../kernels/movement.js'
import type { PoolAttrs } from '../kernels/pool.js'
import type { SumAttrs } from '../kernels/reduce-kernels.js'
import type { ResizeAttrs } from '../kernels/resize.js'
import type { ResizeCubicAttrs } from '../kernels/resize-cubic.js'
import type { AxisAttrs } from '../kernels/row-copies.js'
import { asMap, axisIn, type Emit, type Emitter, type FindEmit, type Value, variableOf } from './emitter.js'
import { emitFormula, formulaOf } from './formulas.js'
import { emitAttention, emitBatchedMatmul, emitLayerNorm, emitPermute } from './transformer-operators.js'
import { inputsOf, resultOf, type Twin } from './twin.js'

/** What emits an operator's call, by the operator's name; pointwise operators are emitted by their formulas. */
const emits: Readonly<Record<string, Emit>> = {
  conv2d: (emitter, node, name) => emitConvolution(emitter, node, name),
  conv2dInputGrad: emitTransposedConvolution,
  maxPool2d: emitMaxPool,
  resizeBilinear: emitResize,
  resizeCubic: emitResizeCubic,
  concat: emitConcat,
  slice: emitSlice,
  sum: emitSum,
  softmax: emitSoftmax,
  matmul: emitMatmul,
  batchedMatmul: emitBatchedMatmul,
  permute: emitPermute,
  attention: emitAttention,
}

export const findEmit: FindEmit = (node) => {
  if (node.op && Object.hasOwn(emits, node.op.name)) return emits[node.op.name]
  return formulaOf(node) ? emitPointwise : undefined
}

const first = (emitter: Emitter, node: Twin<Node>): Value => {
  const [value] = emitter.inputs(node)
  if (!value) throw new Error(`${node.a.name} has no input`)
  return value
}

const emitPointwise: Emit = (emitter, node, name) =>
  emitWithBias(emitter, node, name) ?? emitLayerNorm(emitter, node, name) ?? emitFormula(emitter, node, name)

function emitConvolution(emitter: Emitter, node: Twin<Node>, name: string, bias: readonly string[] = []): Value {
  const { stride, padding, dilation, groups } = node.a.attrs as ConvAttrs
  const [x, weight] = inputsOf(node)
  const variable = weight && variableOf(weight.a)
  if (!x || !weight || !variable || !sameShape(weight.a.shape, variable.spec.shape)) {
    throw new Error(`${name}: its weights are no parameter`)
  }
  const [rows = 1, columns = 1] = weight.a.shape
  const map = emitter.channelsFirst(emitter.value(x))
  return emitter.node(name, 'Conv', [map.name, emitter.convolutionWeights(variable), ...bias], asMap(resultOf(node)), {
    dilations: [dilation, dilation],
    kernel_shape: [rows, columns],
    pads: [padding, padding, padding, padding],
    strides: [stride, stride],
    ...(groups > 1 ? { group: groups } : {}),
  })
}

/**
 * A vector with an entry for each channel that is added to the result of a convolution, which nothing else reads, is its
 * bias. Under another shape the result's last axis need not be its channels.
 */
function emitWithBias(emitter: Emitter, node: Twin<Node>, name: string): Value | undefined {
  const expr = formulaOf(node.a)?.expr
  const isSum = expr?.kind === 'call' && expr.fn === 'add' && expr.args.every(({ kind }) => kind === 'input')
  const [x, bias] = inputsOf(node)
  if (!isSum || !x || !bias) return undefined
  const isBias = variableOf(bias.a) && bias.a.shape.length === 1
  const source = x.a.node
  if (!isBias || source.op?.name !== 'conv2d' || emitter.trace.uses.get(source.id) !== 1) return undefined
  const isPerChannel = bias.a.shape[0] === x.a.shape.at(-1)
  if (!isPerChannel || !sameShape(x.a.shape, source.outputs[0]?.shape ?? [])) return undefined
  return emitConvolution(emitter, emitter.trace.twinOf(source), name, [emitter.value(bias).name])
}

/** The input gradient of a convolution is the transposed convolution with its weights. */
function emitTransposedConvolution(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const { stride, padding, dilation, groups } = node.a.attrs as ConvAttrs
  const [x, weight] = inputsOf(node)
  const variable = weight && variableOf(weight.a)
  const [rows = 1, columns = 1] = weight?.a.shape ?? []
  const left = (size = 0, from = 0, taps = 1) => size - (stride * (from - 1) + taps - 2 * padding)
  const [, height, width] = resultOf(node)
  const isWhole = [left(height?.[0], x?.a.shape[1], rows), left(width?.[0], x?.a.shape[2], columns)].every(
    (n) => n === 0,
  )
  if (
    !x ||
    !variable ||
    !sameShape(weight.a.shape, variable.spec.shape) ||
    dilation !== 1 ||
    groups !== 1 ||
    !isWhole
  ) {
    throw new Error(`${name}: a gradient of a convolution that is no transposed convolution has no counterpart in ONNX`)
  }
  const map = emitter.channelsFirst(emitter.value(x))
  return emitter.node(name, 'ConvTranspose', [map.name, emitter.convolutionWeights(variable)], asMap(resultOf(node)), {
    kernel_shape: [rows, columns],
    pads: [padding, padding, padding, padding],
    strides: [stride, stride],
  })
}

function emitMaxPool(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const { kernel, stride, padding } = node.a.attrs as PoolAttrs
  const map = emitter.channelsFirst(first(emitter, node))
  return emitter.node(name, 'MaxPool', [map.name], asMap(resultOf(node)), {
    kernel_shape: [kernel, kernel],
    pads: [padding, padding, padding, padding],
    strides: [stride, stride],
  })
}

function emitResize(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const map = emitter.channelsFirst(first(emitter, node))
  const result = asMap(resultOf(node))
  const sizes = emitter.shape(name, result.extents, [map])
  return emitter.node(name, 'Resize', [map.name, '', '', sizes], result, {
    coordinate_transformation_mode: (node.a.attrs as ResizeAttrs).halfPixel ? 'half_pixel' : 'align_corners',
    mode: 'linear',
  })
}

/** Bicubic resizing by constant scales, which are not the ratios of the sizes where they are given. */
function emitResizeCubic(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const { ratio } = node.a.attrs as ResizeCubicAttrs
  if (node.b.attrs && String((node.b.attrs as ResizeCubicAttrs).ratio) !== String(ratio)) {
    throw new Error(`${name}: its scale follows from the size of the image: export it for one size`)
  }
  const map = emitter.channelsFirst(first(emitter, node))
  const result = asMap(resultOf(node))
  const isExact = [2, 3].every((axis, i) => {
    const [from = 0, to = 0] = [map.extents[axis]?.[0], result.extents[axis]?.[0]]
    return Math.floor(Math.fround(1 / (ratio[i] ?? 1)) * from) === to
  })
  if (!isExact) throw new Error(`${name}: its scale is none that its size follows from`)
  const scales = emitter.floats([1, 1, 1 / ratio[0], 1 / ratio[1]])
  return emitter.node(name, 'Resize', [map.name, '', scales], result, {
    coordinate_transformation_mode: 'half_pixel',
    mode: 'cubic',
    cubic_coeff_a: { float: -0.75 },
  })
}

function emitConcat(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const { axis } = node.a.attrs as AxisAttrs
  const inputs = emitter.inputs(node)
  const channelsFirst = inputs.some((input) => input.channelsFirst)
  const aligned = inputs.map((input) => (channelsFirst ? emitter.channelsFirst(input) : input))
  const result = channelsFirst ? asMap(resultOf(node)) : { extents: resultOf(node), channelsFirst }
  const [one] = aligned
  return emitter.node(
    name,
    'Concat',
    aligned.map((input) => input.name),
    result,
    { axis: one ? axisIn(one, axis) : axis },
  )
}

function emitSlice(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const [a, b] = [node.a.attrs as RangeAttrs, node.b.attrs as RangeAttrs]
  if (a.start !== b.start || a.size !== b.size) {
    throw new Error(
      `${name}: what is cut out follows from the size of the image, without counterpart yet: export it for one size`,
    )
  }
  const x = first(emitter, node)
  const result = x.channelsFirst ? asMap(resultOf(node)) : { extents: resultOf(node), channelsFirst: false }
  const range = [[a.start], [a.start + a.size], [axisIn(x, a.axis)]].map((value) => emitter.integers(value))
  return emitter.node(name, 'Slice', [x.name, ...range], result)
}

/** A sum over axes, which is a mean where each element was divided by their number first. */
function emitSum(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const { exprs, finish, space, shape } = node.a.attrs as SumAttrs
  const [expr] = exprs
  const [operand] = inputsOf(node)
  if (exprs.length !== 1 || finish || expr?.kind !== 'input' || !operand) {
    throw new Error(`${name}: several sums at once have no counterpart in ONNX yet`)
  }
  const mean = meanOf(emitter, node)
  const x = emitter.value(mean ?? operand)
  const missing = space.length - shape.length
  const all = space.flatMap((_, axis) => (axis < missing ? [axis] : []))
  const axes = [
    ...all,
    ...shape.flatMap((extent, i) => (extent === 1 && space[missing + i] !== 1 ? [missing + i] : [])),
  ]
  const keepsAxes = missing === 0
  const result =
    x.channelsFirst && keepsAxes ? asMap(resultOf(node)) : { extents: resultOf(node), channelsFirst: false }
  const placed = axes.map((axis) => axisIn(x, axis)).sort((p, q) => p - q)
  if (mean && x.channelsFirst && placed.join() === '2,3') {
    return emitter.node(name, 'GlobalAveragePool', [x.name], result)
  }
  const attributes = { keepdims: keepsAxes ? 1 : 0 }
  if (mean) return emitter.node(name, 'ReduceMean', [x.name], result, { ...attributes, axes: placed })
  return emitter.node(name, 'ReduceSum', [x.name, emitter.integers(placed)], result, attributes)
}

/**
 * What a sum is the mean of: its operand before the division by the number of elements that are added up. The axes of
 * the sum are those of the operand only where the quotient is read under its own shape.
 */
function meanOf(emitter: Emitter, { a, b }: Twin<Node>) {
  const sides = [a, b].map((node) => {
    const { space, shape } = node.attrs as SumAttrs
    const [operand] = node.inputs
    const source = operand?.node
    if (!source || !sameShape(operand.shape, source.outputs[0]?.shape ?? [])) return undefined
    const expr = formulaOf(source)?.expr
    if (expr?.kind !== 'call' || expr.fn !== 'mul') return undefined
    const [value, factor] = expr.args
    const count = space.reduce((x, y) => x * y, 1) / shape.reduce((x, y) => x * y, 1)
    return value?.kind === 'input' && factor?.kind === 'constant' && factor.value === 1 / count ? source : undefined
  })
  const [source] = sides
  if (!source || !sides[1]) return undefined
  return inputsOf(emitter.trace.twinOf(source))[0]
}

function emitSoftmax(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const x = first(emitter, node)
  return emitter.node(name, 'Softmax', [x.name], x, { axis: axisIn(x, x.extents.length - 1) })
}

function emitMatmul(emitter: Emitter, node: Twin<Node>, name: string): Value {
  const { transposeA, transposeB } = node.a.attrs as MatmulAttrs
  const result = { extents: resultOf(node), channelsFirst: false }
  // Gemm has matrices alone.
  if (result.extents.length > 2) return emitBatchedMatmul(emitter, node, name)
  const factors = emitter.inputs(node).map((factor) => factor.name)
  const attributes = { transA: transposeA ? 1 : 0, transB: transposeB ? 1 : 0 }
  return emitter.node(name, 'Gemm', factors, result, attributes)
}
