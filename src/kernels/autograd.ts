import { gradients } from '../engine/grad.js'
import { type Tensor, tracedGraph } from '../engine/graph.js'
import { add, fill } from './pointwise.js'

/**
 * Gradients of a scalar `loss` with respect to `targets`, within a traced function.
 *
 * @returns tensors with the shapes of the targets; zeros where the loss does not depend on one
 */
export function grad(loss: Tensor, targets: readonly Tensor[]): Tensor[] {
  if (loss.shape.some((extent) => extent !== 1))
    throw new Error(`grad: the loss has shape [${loss.shape}], not a scalar`)
  return gradients(tracedGraph('grad'), loss, targets, {
    seed: fill(loss.shape, 1),
    sum: add,
    zero: (like) => fill(like.shape, 0),
  })
}
