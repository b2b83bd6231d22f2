/**
 * Protocol buffers, as far as writing ONNX and TensorBoard's events needs them: a message is a list of byte pieces, so that
 * weights are not copied. Field numbers of `GraphBuilder` are those of onnx.proto.
 */
export type Message = readonly Uint8Array[]

const lengthOf = (message: Message): number => message.reduce((sum, { length }) => sum + length, 0)

/** Seven bits per byte, the lowest first; negative numbers as 64 bits in two's complement. */
function varint(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, BigInt(value))
  do {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0))
    rest >>= 7n
  } while (rest > 0n)
  return Uint8Array.from(bytes)
}

export const integer = (field: number, value: number): Message => [varint(field << 3), varint(value)]

export const float = (field: number, value: number): Message => {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setFloat32(0, value, true)
  return [varint((field << 3) | 5), bytes]
}

export const double = (field: number, value: number): Message => {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setFloat64(0, value, true)
  return [varint((field << 3) | 1), bytes]
}

/** A message, text or bytes within a message. */
export const nested = (field: number, message: Message): Message => [
  varint((field << 3) | 2),
  varint(lengthOf(message)),
  ...message,
]

export const text = (field: number, value: string): Message => nested(field, [new TextEncoder().encode(value)])

/** Tensor element types of ONNX. */
const FLOAT = 1
const INT64 = 7

/** An attribute of a node: an integer, a text, integers, or a float. */
export type Attribute = number | string | readonly number[] | { readonly float: number }

function attribute(name: string, value: Attribute): Message {
  const type = 20
  if (typeof value === 'number') return [...text(1, name), ...integer(3, value), ...integer(type, 2)]
  if (typeof value === 'string') return [...text(1, name), ...text(4, value), ...integer(type, 3)]
  if ('float' in value) return [...text(1, name), ...float(2, value.float), ...integer(type, 1)]
  return [...text(1, name), ...value.flatMap((item) => integer(8, item)), ...integer(type, 7)]
}

/** Size of an axis: a number, or the name of one that is known when the model runs. */
export type Extent = number | string

function valueInfo(name: string, shape: readonly Extent[]): Message {
  const dims = shape.flatMap((extent) => nested(1, typeof extent === 'number' ? integer(1, extent) : text(2, extent)))
  return [...text(1, name), ...nested(2, nested(1, [...integer(1, FLOAT), ...nested(2, dims)]))]
}

/** Inputs and outputs are float32. */
interface Port {
  readonly name: string
  readonly shape: readonly Extent[]
}

interface GraphNode {
  readonly name: string
  readonly op: string
  readonly inputs: readonly string[]
  readonly attributes: Readonly<Record<string, Attribute>>
}

const nodeMessage = ({ name, op, inputs, attributes }: GraphNode): Message => [
  ...inputs.flatMap((input) => text(1, input)),
  ...text(2, name),
  ...text(3, name),
  ...text(4, op),
  ...Object.entries(attributes).flatMap(([key, value]) => nested(5, attribute(key, value))),
]

/** A graph in the making: nodes in the order of execution, and constant tensors. */
export class GraphBuilder {
  private readonly nodes: GraphNode[] = []
  private readonly constants: Message[] = []

  /** Adds a node with one output. Returns the output's name, which is the node's too. */
  node(
    name: string,
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
  ): string {
    this.nodes.push({ name, op, inputs, attributes })
    return name
  }

  /** Gives a node, and so its output, another name. */
  rename(from: string, to: string): void {
    const renamed = (name: string) => (name === from ? to : name)
    for (const [i, node] of this.nodes.entries()) {
      this.nodes[i] = { ...node, name: renamed(node.name), inputs: node.inputs.map(renamed) }
    }
  }

  /** Adds a constant tensor. Returns its name. */
  constant(name: string, shape: readonly number[], data: Float32Array | BigInt64Array): string {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    this.constants.push([
      ...shape.flatMap((extent) => integer(1, extent)),
      ...integer(2, data instanceof Float32Array ? FLOAT : INT64),
      ...text(8, name),
      ...nested(9, [bytes]),
    ])
    return name
  }

  /** The model file. */
  model(
    input: Port,
    output: Port,
    options: { name: string; opset: number; doc: string; metadata: Readonly<Record<string, string>> },
  ) {
    const graph = [
      ...this.nodes.flatMap((node) => nested(1, nodeMessage(node))),
      ...text(2, options.name),
      ...this.constants.flatMap((constant) => nested(5, constant)),
      ...nested(11, valueInfo(input.name, input.shape)),
      ...nested(12, valueInfo(output.name, output.shape)),
    ]
    const message: Message = [
      // The version of the file format that came with opset 17.
      ...integer(1, 8),
      ...text(2, 'atrous'),
      ...text(6, options.doc),
      ...nested(7, graph),
      ...nested(8, [...text(1, ''), ...integer(2, options.opset)]),
      ...Object.entries(options.metadata).flatMap(([key, value]) => nested(14, [...text(1, key), ...text(2, value)])),
    ]
    return message
  }
}
