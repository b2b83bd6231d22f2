import { type Node, type Part, results, Tensor, type Trace, valueKey } from '../ir.js'
import { joinedInputs } from '../ranges.js'
import { elements, sameShape } from '../shape.js'
import { moveHandles } from './rewrite.js'

/**
 * Lets the producers of a concatenation's inputs write into its result, each its part, one after the other in place.
 * Inputs that something else reads too, or whose operator cannot, are copied there. Where the inputs lie one after the
 * other, the planner does more: it lets any of them live in the result.
 *
 * @param alignment offsets of bindings are multiples of so many bytes
 */
export function concatInPlace(trace: Trace, alignment: number): Trace {
  const kept = new Set(results(trace).map(valueKey))
  const position = new Map(trace.nodes.map(({ id }, at) => [id, at]))
  const readers = new Map<string, number>()
  for (const key of trace.nodes.flatMap(({ inputs }) => inputs.map(valueKey)))
    readers.set(key, (readers.get(key) ?? 0) + 1)
  const isReadOnce = (value: Tensor) => readers.get(valueKey(value)) === 1 && !kept.has(valueKey(value))

  let id = Math.max(-1, ...trace.nodes.map((node) => node.id))
  const moved = new Map<string, Tensor>()
  /** What comes in the place of a node: writers in place of producers, copies in place of concatenations. */
  const replacements = new Map<number, Node[]>()
  for (const node of trace.nodes) {
    const { op, inputs, outputs } = node
    const [result] = outputs
    if (!op?.concat || !result || joinedInputs(node, alignment)) continue
    const parts = op.concat.parts({ inputs, outputs, attrs: node.attrs as never })
    const copiers = parts.map((part, i) => inputs[i] && op.concat?.copy(inputs[i], part))
    const isCovered = inputs.reduce((sum, { shape }) => sum + elements(shape), 0) === elements(result.shape)
    if (!isCovered || copiers.includes(undefined)) continue
    const writers = parts.flatMap((part, i) => {
      const value = inputs[i]
      const written = value && isReadOnce(value) ? writerOf(value, part) : undefined
      return value && written && !replacements.has(value.node.id)
        ? [{ i, at: position.get(value.node.id) ?? 0, written }]
        : []
    })
    if (writers.length === 0) continue
    let target: Tensor | undefined
    const chained = (writer: Node): Node => {
      const made = {
        ...writer,
        id: ++id,
        inputs: target ? [...writer.inputs, target] : writer.inputs,
        outputs: [result],
      }
      target = new Tensor(made, 0, result.shape, result.dtype)
      return made
    }
    for (const { i, written } of writers.sort((a, b) => a.at - b.at))
      replacements.set(inputs[i]?.node.id ?? -1, [chained(written)])
    const copies = copiers.flatMap((copier, i) => {
      const value = inputs[i]
      const isWritten = writers.some((writer) => writer.i === i)
      return value && !isWritten ? [chained({ ...node, ...copier, inputs: [value] })] : []
    })
    replacements.set(node.id, copies)
    if (target) moved.set(`${node.id}.0`, target)
  }
  if (moved.size === 0) return trace
  return moveHandles({ ...trace, nodes: trace.nodes.flatMap((node) => replacements.get(node.id) ?? [node]) }, moved)
}

/** The producer of `value`, writing it as a part; undefined where it cannot. */
function writerOf({ node, shape, dtype }: Tensor, part: Part): Node | undefined {
  const [output] = node.outputs
  if (!node.op?.part || node.outputs.length !== 1 || !output || output.dtype !== dtype) return undefined
  if (!sameShape(output.shape, shape)) return undefined
  const attrs = node.op.part.set(node.attrs as never, part, node.inputs.length)
  return attrs === undefined ? undefined : { ...node, name: `${node.name}+concat`, attrs }
}
