/**
 * Every operator in double precision, as plain loops over NHWC tensors: what the kernels are tested against. Nothing
 * here is fast, and nothing is shared with the kernels.
 *
 * Operators that choose (the larger of two, the pixels to keep) choose by a second set of values, `at`. Where that is
 * the unperturbed input, a finite difference is the derivative of the branch that was taken, even at a tie.
 */
export * from './classification.js'
export * from './color.js'
export * from './maps.js'
export * from './movement.js'
export * from './pointwise.js'
export * from './products.js'
export * from './training.js'
export { type Values, values } from './values.js'
