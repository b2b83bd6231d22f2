import { gradients } from '../engine/grad.js'
import { tracedGraph } from '../engine/graph.js'
import type { Tensor } from '../engine/ir.js'
import { joinPadded } from './movement.js'
import { add, fill } from './pointwise.js'

/**
 * Gradients of a scalar `loss` with respect to `targets`, within a traced function.
 *
 * @param seed the gradient with respect to the loss, a scalar; 1 by default
 * @returns tensors with the shapes of the targets; zeros where the loss does not depend on one
 */
export function grad(loss: Tensor, targets: readonly Tensor[], seed: Tensor = fill([], 1)): Tensor[] {
  if (loss.shape.some((extent) => extent !== 1))
    throw new Error(`grad: the loss has shape [${loss.shape}], not a scalar`)
  return gradients(tracedGraph('grad'), loss, targets, {
    seed: seed.reshape(...loss.shape),
    // Gradients of different parts of a tensor, such as those of slices, are put side by side.
    sum: (a, b) => joinPadded(a, b) ?? add(a, b),
    zero: (like) => fill(like.shape, 0),
  })
}
