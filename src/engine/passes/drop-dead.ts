import { results, type Trace } from '../ir.js'

/** Drops nodes that no result depends on. Inputs of the program stay, so that its interface does. */
export function dropDead(trace: Trace): Trace {
  const live = new Set(results(trace).map((value) => value.node.id))
  for (const value of trace.inputs.values()) live.add(value.node.id)
  for (const node of [...trace.nodes].reverse()) {
    if (live.has(node.id)) for (const value of node.inputs) live.add(value.node.id)
  }
  return { ...trace, nodes: trace.nodes.filter((node) => live.has(node.id)) }
}
