import type { Graph } from './graph.js'
import { type Node, Tensor, valueKey } from './ir.js'
import { sameShape } from './shape.js'

/**
 * Gradients of a scalar with respect to `targets`, as tensors of the same trace.
 *
 * @param graph the trace in progress
 * @param seed gradient of the result with respect to `loss`: a scalar tensor, usually 1 or a loss scale
 * @param sum adds two gradients that reach the same value
 * @param zero the gradient of a target that the loss does not depend on
 */
export function gradients(
  graph: Graph,
  loss: Tensor,
  targets: readonly Tensor[],
  { seed, sum, zero }: { seed: Tensor; sum: (a: Tensor, b: Tensor) => Tensor; zero: (like: Tensor) => Tensor },
): Tensor[] {
  const relevant = dependents(graph.nodes, targets)
  const grads = new Map<string, Tensor>([[valueKey(loss), seed]])
  for (const node of graph.nodes.slice(0, loss.node.id + 1).reverse()) {
    const outputs = node.outputs.map(({ shape, dtype }, index) => new Tensor(node, index, shape, dtype))
    const received = outputs.map((value) => grads.get(valueKey(value)))
    if (!node.op?.vjp || !relevant.has(node.id) || received.every((g) => g === undefined)) continue
    const wanted = node.inputs.map((value) => !value.detached && relevant.has(value.node.id))
    const context = { inputs: node.inputs, outputs, attrs: node.attrs as never, grads: received, wanted }
    const results = graph.differentiating(node, () => node.op?.vjp?.(context) ?? [])
    for (const [i, value] of node.inputs.entries()) {
      const gradient = results[i]
      if (!gradient || !wanted[i]) continue
      const key = valueKey(value)
      const declared = value.node.outputs[value.index]?.shape ?? value.shape
      if (!sameShape(gradient.shape, value.shape)) {
        throw new Error(`${node.name}: the gradient of input ${i} is [${gradient.shape}], the input [${value.shape}]`)
      }
      const reshaped = gradient.reshape(...declared)
      const known = grads.get(key)
      grads.set(key, known ? graph.differentiating(value.node, () => sum(known, reshaped)) : reshaped)
    }
  }
  return targets.map((target) => (grads.get(valueKey(target)) ?? zero(target)).reshape(...target.shape))
}

/** Ids of the nodes whose value depends on one of the targets. */
function dependents(nodes: readonly Node[], targets: readonly Tensor[]): Set<number> {
  const ids = new Set(targets.map((target) => target.node.id))
  for (const node of nodes) {
    if (node.inputs.some((value) => !value.detached && ids.has(value.node.id))) ids.add(node.id)
  }
  return ids
}
