import { assign, read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import type { Variable } from '#dist/engine/store.js'
import { concat } from '#dist/kernels/movement.js'
import { add, fill, mul, relu, scale, sub, sum, sumTo } from '#dist/kernels/pointwise.js'
import { sgd } from '#dist/kernels/update.js'
import type { Random } from '../../cases/case.js'

/** `count` numbers that follow one another. */
export const ramp = (count: number, start = 1): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => start + i)

/** A random program over vectors: several readers per value, values that die at once, updates in place, state. */
export function randomProgram(
  random: Random,
  variables: readonly Variable[],
  inputs: readonly Tensor[],
): Record<string, Tensor> {
  const pool: Tensor[] = [...inputs]
  const any = (): Tensor => {
    const found = pool[random.integer(pool.length)]
    if (!found) throw new Error('the pool is empty')
    return found
  }
  // What updates in place keeps its operands, so that the planner has to copy some of them.
  const steps: (() => Tensor[])[] = [
    () => [add(any(), any())],
    () => [relu(sub(any(), any()))],
    () => [scale(any(), 0.5)],
    () => [mul(any(), sumTo(any(), [1]))],
    () =>
      [concat([any(), any()], 0)]
        .map((pair) => sub(pair, pair))
        .map((pair) => sum(pair))
        .map((s) => add(any(), s)),
    () => {
      const parameter = any()
      const momentumBuffer = any()
      if (parameter.node === momentumBuffer.node) return []
      const updated = sgd({ parameter, momentumBuffer, gradient: any(), learningRate: fill([], 0.1) })
      return [updated.parameter, updated.momentumBuffer]
    },
    () =>
      variables.slice(0, 1).flatMap(() => {
        const variable = variables[random.integer(variables.length)]
        return variable ? [read(variable)] : []
      }),
    () => {
      const variable = variables[random.integer(variables.length)]
      if (variable) assign(variable, add(any(), fill([], random.integer(3))))
      return []
    },
  ]
  for (let k = 0; k < 24; k++) pool.push(...(steps[random.integer(steps.length)]?.() ?? []))
  return { a: any(), b: any(), c: pool.at(-1) ?? any() }
}
