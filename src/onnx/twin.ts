import { Graph, traceOf, tracing } from '../engine/graph.js'
import type { Node, Tensor } from '../engine/ir.js'
import { dropDead } from '../engine/passes/drop-dead.js'
import { spec } from '../engine/shape.js'
import { logits, type SegmentationModel } from '../models/segmentation.js'

/** Something of a model's trace at two sizes of its input. */
export interface Twin<T> {
  readonly a: T
  readonly b: T
}

/**
 * A number of the trace at both sizes. Where the two are equal it is a constant of the model; else it follows from the
 * size of the input.
 */
export type Extent = readonly [a: number, b: number]

export const isFixed = ([a, b]: Extent): boolean => a === b

export const sameExtent = (x: Extent | undefined, y: Extent | undefined): boolean =>
  x !== undefined && y !== undefined && x[0] === y[0] && x[1] === y[1]

export const extentsOf = ({ a, b }: Twin<Tensor>): Extent[] =>
  a.shape.map((extent, axis): Extent => [extent, b.shape[axis] ?? 0])

/** Extents of a call's first output, in the order of the trace. */
export const resultOf = ({ a, b }: Twin<Node>): Extent[] =>
  (a.outputs[0]?.shape ?? []).map((extent, axis): Extent => [extent, b.outputs[0]?.shape[axis] ?? 0])

export const inputsOf = ({ a, b }: Twin<Node>): Twin<Tensor>[] =>
  a.inputs.map((input, i) => ({ a: input, b: b.inputs[i] ?? input }))

/** A model's evaluation, traced twice. */
export interface TwinTrace {
  readonly image: Twin<Tensor>
  readonly logits: Twin<Tensor>
  /** The node at the second size that a node at the first one corresponds to. */
  readonly twinOf: (node: Node) => Twin<Node>
  /** How often the nodes of the first size, by their ids, are read. */
  readonly uses: ReadonlyMap<number, number>
}

type ImageSize = readonly [n: number, height: number, width: number]

/**
 * Two sizes of the input at which extents that follow from different things also differ: odd ones, so that those that are
 * rounded up differ from those that are rounded down, and large ones, so that they differ at every stride.
 */
const sizes: readonly [ImageSize, ImageSize] = [
  [2, 1121, 1217],
  [3, 1409, 1601],
]

/**
 * Traces the logits of a model in evaluation mode. Nothing is computed.
 * @param fixed height and width of the one image, in place of any number of images of any size
 * @throws Error where the model does different things at different sizes
 */
export function traceTwice(model: SegmentationModel, fixed?: readonly [number, number]): TwinTrace {
  const [a, b] = fixed ? [[1, ...fixed] as const] : sizes
  const first = traceAt(model, a)
  const twin = { a: first, b: b ? traceAt(model, b) : first }
  const nodes = new Map(twin.b.nodes.map((node) => [node.id, node]))
  const twinOf = (node: Node): Twin<Node> => {
    const other = nodes.get(node.id)
    if (other && other.op === node.op && other.name === node.name && other.scope === node.scope)
      return { a: node, b: other }
    throw new Error(`${node.scope}: the model does different things at different sizes: export it for one size`)
  }
  const uses = new Map<number, number>()
  for (const value of [...twin.a.nodes.flatMap(({ inputs }) => inputs), twin.a.logits]) {
    uses.set(value.node.id, (uses.get(value.node.id) ?? 0) + 1)
  }
  return {
    image: { a: twin.a.image, b: twin.b.image },
    logits: { a: twin.a.logits, b: twin.b.logits },
    twinOf,
    uses,
  }
}

function traceAt(model: SegmentationModel, [n, height, width]: ImageSize) {
  const graph = new Graph()
  const image = graph.input('image', spec([n, height, width, model.inputChannels]))
  const result = tracing(graph, () => logits(model, image, { training: false }))
  const { nodes } = dropDead(traceOf(graph, new Map([['logits', result]])))
  return { image, logits: result, nodes }
}
