import fc from 'fast-check'
import type { Device } from '#dist/engine/device.js'
import type { Case } from '../../../cases/case.js'
import { compareGradients, compareOutputs, compareRuns, type Precision, prepare, runCase } from '../check.js'

/** What must hold of an operator, or of a whole graph, on any shapes. */
export interface Property {
  readonly name: string
  /** Cases of random shapes, the smallest of which is looked for where one fails. */
  readonly cases: fc.Arbitrary<Case>
}

/** A case with its name made of its parameters, which also seed its values. */
export const named = <P>(row: (name: string, parameters: P) => Case, parameters: P): Case =>
  row(fc.stringify(parameters), parameters)

/**
 * Runs a case with one choice of its kernels, fused and unfused: values against the reference, gradients against its
 * finite differences, and the two programs against each other.
 */
async function holds(device: Device, row: Case, choice: number, precision: Precision): Promise<void> {
  const { expected } = prepare(row, precision)
  // In half precision what a gradient sums up, at most over all of an output, is rounded before.
  const rounded = precision === 'single' ? [] : Object.values(expected).map(({ data }) => data.length)
  // A sum of so many random values is of this size, unless they happen to cancel; what they round to is not smaller then.
  const size = Math.sqrt(Math.max(row.terms ?? 1, ...rounded))
  const scales = { gradientScale: size, outputScale: Math.sqrt(row.terms ?? 1) }
  // Without fusion a gradient passes several values that are stored as f16.
  const prepared = prepare({ halfRoundings: 8, ...scales, ...row }, precision)
  const fused = await runCase(device, prepared, { selectKernel: (_, kernels) => kernels[choice % kernels.length] })
  compareOutputs(prepared, fused, `kernel ${choice}`)
  compareGradients(prepared, fused)
  compareRuns(prepared, fused, await runCase(device, prepared, { optimize: false }), 'without optimisation')
}

/**
 * Tries a property on `count` random cases.
 * @param seed the same seed gives the same cases
 * @throws Error with the smallest failing case that was found, and what is wrong with it
 */
export async function tryOut(device: Device, { cases, name }: Property, count: number, seed: number): Promise<void> {
  const precisions: readonly Precision[] = device.traits.half ? ['single', 'half', 'mixed'] : ['single']
  const property = fc.asyncProperty(cases, fc.nat(5), fc.constantFrom(...precisions), (row, choice, precision) =>
    holds(device, row, choice, precision),
  )
  const result = await fc.check(property, { numRuns: count, seed })
  if (!result.failed) return
  const [row, choice, precision] = result.counterexample ?? []
  const reason = result.errorInstance instanceof Error ? result.errorInstance.message : String(result.errorInstance)
  throw new Error(
    `${name}: case ${result.numRuns} of seed ${seed} fails, smaller after ${result.numShrinks} steps: ` +
      `${row?.op} ${row?.name}, kernel ${choice}, ${precision} precision: ${reason}`,
  )
}
