import { type Node, type Tensor, valueKey } from '../engine/ir.js'
import { sameShape } from '../engine/shape.js'
import type { Variable } from '../engine/store.js'
import type { StateTensor } from '../models/weights.js'
import type { GraphBuilder } from '../train/io/protobuf.js'
import { type Extent, extentsOf, inputsOf, isFixed, sameExtent, type Twin, type TwinTrace } from './twin.js'

/**
 * A value of the graph. Maps [N, H, W, C] of the trace that convolutions and the like make or read are [N, C, H, W] in
 * ONNX; everything else is as it is in the trace.
 */
export interface Value {
  readonly name: string
  /** Extents of the axes as they are in the graph. */
  readonly extents: readonly Extent[]
  readonly channelsFirst: boolean
}

/** Emits the nodes of an operator's call. */
export type Emit = (emitter: Emitter, node: Twin<Node>, name: string) => Value

/** Finds what emits a node; undefined where ONNX has no counterpart. */
export type FindEmit = (node: Node) => Emit | undefined

/** Axes of a map [N, H, W, C] in the order [N, C, H, W]. */
const channelsFirstAxes = [0, 3, 1, 2]

/** Extents of a map [N, H, W, C] as they are in the graph. */
export const asMap = (extents: readonly Extent[]): Omit<Value, 'name'> => ({
  extents: channelsFirstAxes.map((axis): Extent => extents[axis] ?? [1, 1]),
  channelsFirst: true,
})

/** The place of a trace's axis in the graph. */
export const axisIn = ({ channelsFirst }: Value, axis: number): number =>
  channelsFirst ? channelsFirstAxes.indexOf(axis) : axis

/** The variable that a tensor is read from, if it is. */
export const variableOf = ({ node: { leaf } }: Tensor): Variable | undefined =>
  leaf && 'variable' in leaf ? leaf.variable : undefined

/** Writes a trace as a graph: each value when it is first needed, so that what is absorbed into others never is. */
export class Emitter {
  private readonly values = new Map<string, Value>()
  private readonly constants = new Set<string>()
  private readonly names = new Set<string>()

  constructor(
    readonly graph: GraphBuilder,
    readonly trace: TwinTrace,
    private readonly state: ReadonlyMap<string, StateTensor>,
    private readonly find: FindEmit,
  ) {
    this.values.set(valueKey(trace.image.a), { name: 'image', ...asMap(extentsOf(trace.image)) })
  }

  /** The value of a tensor, whose nodes are written where they are not yet. */
  value(tensor: Twin<Tensor>): Value {
    const key = valueKey(tensor.a)
    const known = this.values.get(key) ?? this.emit(tensor.a)
    this.values.set(key, known)
    const declared = tensor.a.node.outputs[tensor.a.index]?.shape ?? []
    return sameShape(declared, tensor.a.shape) ? known : this.reshaped(known, tensor)
  }

  private emit(tensor: Tensor): Value {
    const { node, index } = tensor
    const { op, scope } = node
    const variable = variableOf(tensor)
    if (variable) return this.variable(variable)
    const emit = op && this.find(node)
    if (!emit || index > 0 || node.outputs[0]?.dtype !== 'f32') {
      throw new Error(`${scope}: ${node.name} has no counterpart in ONNX yet`)
    }
    return emit(this, this.trace.twinOf(node), this.unique(`${scope}/${node.name}`))
  }

  /** A name that no other node has. */
  unique(wanted: string): string {
    let name = wanted
    for (let count = 2; this.names.has(name); count++) name = `${wanted}_${count}`
    this.names.add(name)
    return name
  }

  /** Inputs of a call. */
  inputs(node: Twin<Node>): Value[] {
    return inputsOf(node).map((input) => this.value(input))
  }

  /** Adds a node whose result has these extents. */
  node(name: string, op: string, inputs: readonly string[], result: Omit<Value, 'name'>, attributes = {}): Value {
    return { ...result, name: this.graph.node(name, op, inputs, attributes) }
  }

  /** The elements of a variable. Those of four axes are laid out for convolutions, and would be wrong elsewhere. */
  private variable(variable: Variable): Value {
    const { name, spec } = variable
    if (spec.shape.length === 4) {
      throw new Error(`${name}: weights of four axes outside of a convolution have no counterpart in ONNX yet`)
    }
    const extents = spec.shape.map((extent): Extent => [extent, extent])
    return { name: this.parameter(variable), extents, channelsFirst: false }
  }

  /** The weights of a convolution as Conv reads them, which is as PyTorch lays them out: their name. */
  convolutionWeights(variable: Variable): string {
    return this.parameter(variable)
  }

  /** The constant of a variable, in the shape and under the name that it has in the state_dict. */
  private parameter({ name }: Variable): string {
    const tensor = this.state.get(name)
    if (!tensor) throw new Error(`missing: ${name}`)
    return this.constant(name, tensor.shape, tensor.data)
  }

  /** A float32 scalar. */
  scalar(value: number): string {
    return this.constant(`constant/${value}`, [], Float32Array.of(value))
  }

  /** Float32 numbers as a vector. */
  floats(values: readonly number[]): string {
    return this.constant(`constants/${values.join(',')}`, [values.length], Float32Array.from(values))
  }

  /** Whole numbers as a vector. */
  integers(values: readonly number[]): string {
    return this.constant(`integers/${values.join(',')}`, [values.length], BigInt64Array.from(values.map(BigInt)))
  }

  private constant(name: string, shape: readonly number[], data: Float32Array | BigInt64Array): string {
    if (!this.constants.has(name)) this.graph.constant(name, shape, data)
    this.constants.add(name)
    return name
  }

  /** A map as [N, C, H, W]. */
  channelsFirst(value: Value): Value {
    if (value.channelsFirst) return value
    if (value.extents.length !== 4) throw new Error(`${value.name}: a map has four axes, not ${value.extents.length}`)
    return { ...this.transposed(value, channelsFirstAxes, 'channels_first'), channelsFirst: true }
  }

  /** A value with its axes in the order of the trace. */
  plain(value: Value): Value {
    return value.channelsFirst
      ? { ...this.transposed(value, [0, 2, 3, 1], 'channels_last'), channelsFirst: false }
      : value
  }

  private transposed(value: Value, perm: readonly number[], suffix: string): Value {
    const extents = perm.map((axis): Extent => value.extents[axis] ?? [1, 1])
    const name = this.unique(`${value.name}/${suffix}`)
    return this.node(name, 'Transpose', [value.name], { ...value, extents }, { perm })
  }

  private reshaped(value: Value, tensor: Twin<Tensor>): Value {
    const source = this.plain(value)
    const extents = extentsOf(tensor)
    const name = this.unique(`${source.name}/reshape`)
    const shape = this.shape(name, extents, [source], true)
    return this.node(name, 'Reshape', [source.name, shape], { extents, channelsFirst: false })
  }

  /**
   * A vector of extents: constants, and extents of values that there are, those of `near` before all others.
   *
   * @param infer whether one extent may be left to the node that takes the vector
   * @throws Error where an extent follows from the size of the image in another way
   */
  shape(name: string, extents: readonly Extent[], near: readonly Value[], infer = false): string {
    if (extents.every(isFixed)) return this.integers(extents.map(([extent]) => extent))
    const isNear = (wanted: Extent) => near.some(({ extents }) => extents.some((extent) => sameExtent(extent, wanted)))
    const elsewhere = extents.filter((extent) => !isFixed(extent) && !isNear(extent))
    // What is left over is sure; extents of other values may be equal by chance.
    const sources = infer && elsewhere.length <= 1 ? near : [...near, ...[...this.values.values()].reverse()]
    const parts: string[] = []
    let open = infer
    for (let at = 0; at < extents.length; ) {
      const found = longestRun(extents.slice(at), sources)
      const fixed = extents.slice(at).findIndex((extent) => !isFixed(extent))
      if (found) {
        const { value, start, length } = found
        parts.push(
          this.graph.node(this.unique(`${name}/extent`), 'Shape', [value.name], { start, end: start + length }),
        )
        at += length
      } else if (fixed !== 0) {
        const end = fixed < 0 ? extents.length : at + fixed
        parts.push(this.integers(extents.slice(at, end).map(([extent]) => extent)))
        at = end
      } else {
        const multiple = this.multiple(name, extents[at] ?? [0, 0], near)
        if (multiple === undefined && !open) {
          throw new Error(
            `${name}: its size follows from that of the image in a way without counterpart yet: export it for one size`,
          )
        }
        if (multiple === undefined) open = false
        parts.push(multiple ?? this.integers([-1]))
        at++
      }
    }
    const [only = ''] = parts
    return parts.length === 1 ? only : this.graph.node(this.unique(`${name}/shape`), 'Concat', parts, { axis: 0 })
  }

  /** An extent that is a multiple of one of a near value's. */
  private multiple(name: string, [a, b]: Extent, near: readonly Value[]): string | undefined {
    for (const { name: source, extents } of near) {
      const axis = extents.findIndex(
        (extent) => !isFixed(extent) && a % extent[0] === 0 && a / extent[0] === b / extent[1],
      )
      if (axis < 0) continue
      const base = this.graph.node(this.unique(`${name}/extent`), 'Shape', [source], { start: axis, end: axis + 1 })
      return this.graph.node(this.unique(`${name}/multiple`), 'Mul', [
        base,
        this.integers([a / (extents[axis]?.[0] ?? 1)]),
      ])
    }
    return undefined
  }
}

/** The longest run of extents from the first one on that a value has too, not all of them fixed. */
function longestRun(wanted: readonly Extent[], sources: readonly Value[]) {
  let best: { value: Value; start: number; length: number } | undefined
  for (const value of sources) {
    for (let start = 0; start < value.extents.length; start++) {
      let length = 0
      while (length < wanted.length && sameExtent(value.extents[start + length], wanted[length])) length++
      const dynamic = wanted.slice(0, length).some((extent) => !isFixed(extent))
      if (dynamic && length > (best?.length ?? 0)) best = { value, start, length }
    }
  }
  return best
}
