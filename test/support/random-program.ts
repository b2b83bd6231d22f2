import { assign, read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import type { Variable } from '#dist/engine/store.js'
import { concat, joinPadded, pad, slice } from '#dist/kernels/movement.js'
import { add, fill, mul, relu, scale, sub, sum, sumTo } from '#dist/kernels/pointwise.js'
import { softmax } from '#dist/kernels/softmax.js'
import { sgd } from '#dist/kernels/update.js'
import type { Random } from '../../cases/case.js'

/** `count` numbers that follow one another. */
export const ramp = (count: number, start = 1): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => start + i)

/**
 * A random program over vectors of one extent, and over halves of them: several readers per value, values that die at
 * once, updates in place, state, ranges of values and values that are joined.
 */
export function randomProgram(
  random: Random,
  variables: readonly Variable[],
  inputs: readonly Tensor[],
): Record<string, Tensor> {
  const pool: Tensor[] = [...inputs]
  const [extent = 0] = inputs[0]?.shape ?? []
  const half = extent / 2
  const among = (tensors: readonly Tensor[]): Tensor => {
    const found = tensors[random.integer(tensors.length)]
    if (!found) throw new Error('the pool is empty')
    return found
  }
  const any = (): Tensor => among(pool)
  const halves: Tensor[] = [slice(any(), 0, 0, half)]
  const anyHalf = (): Tensor => among(halves)
  const pairs: Tensor[] = []
  /** Values of half the extent. */
  const partSteps: (() => Tensor)[] = [
    () => slice(any(), 0, random.integer(2) * half, half),
    () => relu(anyHalf()),
    () => add(anyHalf(), anyHalf()),
    () => softmax(anyHalf()),
    () => {
      const [whole, first] = [anyHalf(), 1 + random.integer(half - 1)]
      return concat([slice(whole, 0, first, half - first), slice(whole, 0, 0, first)], 0)
    },
    () => concat([slice(anyHalf(), 0, 0, half / 2), scale(slice(anyHalf(), 0, half / 2, half / 2), 2)], 0),
  ]
  // What updates in place keeps its operands, so that the planner has to copy some of them.
  const steps: (() => Tensor[])[] = [
    () => [add(any(), any())],
    () => [relu(sub(any(), any()))],
    () => [scale(any(), 0.5)],
    () => [mul(any(), scale(sumTo(any(), [1]), 1 / extent))],
    () =>
      [concat([any(), any()], 0)]
        .map((pair) => sub(pair, pair))
        .map((pair) => sum(pair))
        .map((s) => add(any(), s)),
    () => [softmax(any())],
    ...[0, 1, 2].map(() => () => {
      halves.push(partSteps[random.integer(partSteps.length)]?.() ?? anyHalf())
      return []
    }),
    () => [concat([anyHalf(), anyHalf()], 0)],
    () => {
      pairs.push(concat([any(), any()], 0))
      return []
    },
    // Updates of what was joined, and of joined values, whose parts are read later.
    () => {
      const [parameter, momentumBuffer] = [relu(any()), relu(any())]
      pairs.push(concat([parameter, momentumBuffer], 0))
      const updated = sgd({ parameter, momentumBuffer, gradient: any(), learningRate: fill([], 0.1) })
      return [updated.parameter, updated.momentumBuffer]
    },
    () => {
      const part = relu(anyHalf())
      halves.push(part)
      const [parameter, momentumBuffer] = [0, 1].map(() => concat([concat([part, relu(anyHalf())], 0), any()], 0))
      if (!parameter || !momentumBuffer) return []
      const variable = variables[random.integer(variables.length)]
      if (variable) assign(variable, slice(momentumBuffer, 0, extent, extent))
      const gradient = concat([any(), any()], 0)
      const updated = sgd({ parameter, momentumBuffer, gradient, learningRate: fill([], 0.1) })
      pairs.push(updated.parameter, updated.momentumBuffer)
      return []
    },
    () => pairs.slice(0, 1).map(() => slice(among(pairs), 0, random.integer(2) * extent, extent)),
    () => [concat([slice(any(), 0, half, half), anyHalf()], 0)],
    () => [pad(anyHalf(), 0, random.integer(half), extent)],
    () => [joinPadded(pad(anyHalf(), 0, 0, extent), pad(slice(any(), 0, 0, half / 2), 0, half, extent)) ?? any()],
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
  for (let k = 0; k < 32; k++) pool.push(...(steps[random.integer(steps.length)]?.() ?? []))
  return { a: any(), b: any(), c: pool.at(-1) ?? any(), part: anyHalf() }
}
