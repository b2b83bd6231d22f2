import { type Node, results, Tensor, type Trace, valueKey } from '../ir.js'
import { dropDead } from './drop-dead.js'
import { relink } from './rewrite.js'

/**
 * Activation checkpointing (Chen et al., 2016, arXiv 1604.06174): what the backward pass needs from within a stage is
 * computed again right before its first use there, instead of being kept since the forward pass. Kept are what leaves
 * a stage, and what nodes deliver that update in place or call the host, since those must not run twice. The results are
 * the same bits, for the same kernels run on the same values.
 *
 * @param stageOf the stage that a scope belongs to; undefined outside of them
 */
export function recompute(trace: Trace, stageOf: (scope: string) => string | undefined): Trace {
  const kept = new Set(results(trace).map(valueKey))
  for (const node of trace.nodes) {
    const stage = stageOf(node.scope)
    for (const value of node.inputs) if (stageOf(value.node.scope) !== stage) kept.add(valueKey(value))
  }
  const mayRepeat = (value: Tensor): boolean => {
    const { node } = value
    const once = node.op === undefined || node.op.callsHost || node.op.inplace?.(node.attrs as never).size
    return !(once || node.backward) && stageOf(node.scope) !== undefined && !kept.has(valueKey(value))
  }

  const nodes: Node[] = []
  const repeated = new Map<number, Node>()
  let id = Math.max(-1, ...trace.nodes.map((node) => node.id))
  /** The value computed again, in front of the node at hand. */
  const again = (value: Tensor): Tensor => {
    if (!mayRepeat(value)) return value
    let copy = repeated.get(value.node.id)
    if (!copy) {
      copy = { ...value.node, id: ++id, inputs: value.node.inputs.map(again), backward: true }
      repeated.set(value.node.id, copy)
      nodes.push(copy)
    }
    return new Tensor(copy, value.index, value.shape, value.dtype, value.detached)
  }
  for (const node of trace.nodes) nodes.push(node.backward ? { ...node, inputs: node.inputs.map(again) } : node)
  return dropDead(relink({ ...trace, nodes }))
}
