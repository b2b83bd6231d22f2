import { type Expr, exprSize, input, substitute } from '../expr.js'
import { type Node, results, Tensor, type Trace, valueKey } from '../ir.js'
import { byteLength, elements, isFloat, sameShape } from '../shape.js'
import { relink } from './rewrite.js'

/** Beyond this a kernel gains nothing from more arithmetic, and compilers slow down. */
const maxFormulaSize = 64

/**
 * Computes a pointwise value again within the formulas that read it (pointwise nodes and reductions), where that moves
 * fewer bytes than loading it. So a value that one formula reads is never stored, and a batch norm's output that a
 * convolution needs is not loaded by the gradient that loads the batch norm's input anyway.
 *
 * @param maxInputs buffers that a kernel may bind
 */
export function fusePointwise(trace: Trace, maxInputs: number): Trace {
  const kept = new Set(results(trace).map(valueKey))
  const list = new NodeList(trace.nodes)

  /** Merges a producer into the readers that gain by it. Returns whether there was one. */
  const spread = (producer: Node): boolean => {
    const key = `${producer.id}.0`
    const readers = list.readersOf(key)
    const merges = readers.flatMap((reader) => {
      const merged = merge(reader, producer, maxInputs)
      return merged ? [{ merged, gain: bytesLoaded(reader) - bytesLoaded(merged) }] : []
    })
    const storing = bytesLoaded(producer) + producer.outputs.reduce((sum, output) => sum + byteLength(output), 0)
    const gainOfAll = merges.reduce((sum, { gain }) => sum + gain, storing)
    if (merges.length === readers.length && !kept.has(key) && gainOfAll > 0) {
      for (const { merged } of merges) list.replace(merged)
      list.remove(producer)
      return true
    }
    const gaining = merges.filter(({ gain }) => gain > 0)
    for (const { merged } of gaining) list.replace(merged)
    return gaining.length > 0
  }

  // From the last node to the first, so that the readers of a value are settled before it; then again, since a producer
  // that took over its own producers may now fit where it did not.
  for (let changed = true; changed; ) {
    const before = list.all().reverse()
    changed = before.filter((node) => mayMerge(node) && spread(node)).length > 0
  }
  return relink({ ...trace, nodes: list.all() })
}

/** Nodes in their order, and who reads their values. */
class NodeList {
  private readonly nodes: Map<number, Node>
  private readonly readers = new Map<string, Set<number>>()

  constructor(nodes: readonly Node[]) {
    this.nodes = new Map(nodes.map((node) => [node.id, node]))
    for (const node of nodes) this.addReader(node)
  }

  all(): Node[] {
    return [...this.nodes.values()]
  }

  readersOf(key: string): Node[] {
    return [...(this.readers.get(key) ?? [])].flatMap((id) => this.nodes.get(id) ?? [])
  }

  replace(node: Node): void {
    this.removeReader(node.id)
    this.nodes.set(node.id, node)
    this.addReader(node)
  }

  remove({ id }: Node): void {
    this.removeReader(id)
    this.nodes.delete(id)
  }

  private addReader({ id, inputs }: Node): void {
    for (const key of inputs.map(valueKey)) this.readers.set(key, (this.readers.get(key) ?? new Set()).add(id))
  }

  private removeReader(id: number): void {
    for (const key of this.nodes.get(id)?.inputs.map(valueKey) ?? []) this.readers.get(key)?.delete(id)
  }
}

const mayMerge = ({ op, outputs }: Node): boolean =>
  op?.formula?.elementwise === true && outputs.length === 1 && outputs.every(isFloat)

/** Bytes of a node's inputs, each counted once. */
function bytesLoaded(node: Node): number {
  const inputs = new Map(node.inputs.map((value) => [valueKey(value), byteLength(value)]))
  return [...inputs.values()].reduce((sum, bytes) => sum + bytes, 0)
}

/** The reader with the producer's formula in place of its value; undefined where the two cannot be one kernel. */
function merge(reader: Node, producer: Node, maxInputs: number): Node | undefined {
  const outer = reader.op?.formula
  const inner = producer.op?.formula
  if (!reader.op || !outer || !inner) return undefined
  const key = `${producer.id}.0`
  const { exprs, space } = outer.get(reader.attrs as never)
  const innerFormula = inner.get(producer.attrs as never)
  const uses = reader.inputs.filter((value) => valueKey(value) === key)
  const [use] = uses
  const innerExpr = innerFormula.exprs[0]
  if (!use || !innerExpr || !uses.every(({ shape }) => sameShape(shape, use.shape))) return undefined
  if (elements(use.shape) !== elements(space)) return undefined
  const innerInputs = viewedAs(producer.inputs, innerFormula.space, use.shape)
  if (!innerInputs) return undefined
  const merged = substituted(reader.inputs, key, innerInputs, innerExpr, exprs)
  // An operand that is updated in place must stay the one it is, at its position.
  const replaced = [...(reader.op.inplace?.(reader.attrs as never).values() ?? [])]
  if (replaced.some((index) => merged.inputs[index] !== reader.inputs[index])) return undefined
  if (merged.inputs.length + reader.outputs.length > maxInputs || exprSize(merged.exprs) > maxFormulaSize)
    return undefined
  const attrs = outer.set(reader.attrs as never, merged.exprs, merged.inputs)
  return { ...reader, name: `${producer.name}+${reader.name}`, inputs: merged.inputs, attrs }
}

/** The inputs of a producer as seen by a reader that reshaped its result; undefined where broadcasting forbids it. */
function viewedAs(inputs: readonly Tensor[], from: readonly number[], to: readonly number[]): Tensor[] | undefined {
  if (sameShape(from, to)) return [...inputs]
  const result: Tensor[] = []
  for (const value of inputs) {
    const count = elements(value.shape)
    if (count !== 1 && count !== elements(from)) return undefined
    result.push(new Tensor(value.node, value.index, count === 1 ? [] : to, value.dtype, value.detached))
  }
  return result
}

/** Formulas over `outerInputs` with the one named `key` replaced by a formula over `innerInputs`. */
function substituted(
  outerInputs: readonly Tensor[],
  key: string,
  innerInputs: readonly Tensor[],
  innerExpr: Expr,
  exprs: readonly Expr[],
): { inputs: Tensor[]; exprs: Expr[] } {
  const inputs: Tensor[] = []
  const place = (tensor: Tensor): Expr => {
    const same = (other: Tensor) => valueKey(other) === valueKey(tensor) && sameShape(other.shape, tensor.shape)
    const known = inputs.findIndex(same)
    return input(known >= 0 ? known : inputs.push(tensor) - 1)
  }
  // Inputs that the outer node updates in place must keep their positions, so the outer inputs go first.
  const outer = outerInputs.map((tensor) => (valueKey(tensor) === key ? undefined : place(tensor)))
  const innerPlaced = substitute(innerExpr, innerInputs.map(place))
  const replacements = outer.map((expr) => expr ?? innerPlaced)
  return { inputs, exprs: exprs.map((e) => substitute(e, replacements)) }
}
