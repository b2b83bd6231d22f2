import { type Node, type Trace, valueKey } from '../ir.js'
import { readersOf } from './rewrite.js'

/**
 * Moves nodes that update a value in place, such as an optimizer's, to where their inputs are complete and everything
 * else that reads the old value has run: each gradient then lives until its own update, not until the last one. Host calls
 * move likewise, so that they are under way while the rest is computed; what updates by their results stays behind that. A
 * product that also updates something stays where it is: its result would wait.
 */
export function updateEarly(trace: Trace): Trace {
  const positionOf = new Map(trace.nodes.map((node, position) => [node.id, position]))
  const readers = readersOf(trace)
  const earliest = (node: Node): number => {
    const replaced = [...(node.op?.inplace?.(node.attrs as never).values() ?? [])]
    // Inputs and variables are there from the start, wherever they were first named.
    const made = node.inputs.map((value) => (value.node.leaf ? -1 : (positionOf.get(value.node.id) ?? 0)))
    const read = replaced.flatMap((index) => {
      const value = node.inputs[index]
      const others = value ? (readers.get(valueKey(value)) ?? []) : []
      return others.filter((reader) => reader !== node).map(({ id }) => positionOf.get(id) ?? 0)
    })
    return Math.max(-1, ...made, ...read)
  }
  const placed = trace.nodes.map((node, position) => {
    const waitsForHost = node.inputs.some((value) => value.node.op?.callsHost)
    const updates = (node.op?.inplace?.(node.attrs as never).size ?? 0) > 0 && !waitsForHost && !node.op?.multiplyAdds
    // Half a position: right behind the node that it waits for.
    return { node, position, at: updates || node.op?.callsHost ? Math.min(position, earliest(node) + 0.5) : position }
  })
  placed.sort((a, b) => a.at - b.at || a.position - b.position)
  return { ...trace, nodes: placed.map(({ node }) => node) }
}
