/** Largest error of one case beside what is allowed. */
export interface CaseResult {
  readonly name: string
  readonly error: number
  readonly tolerance: number
  /** Why it says nothing, where the recorded values cannot be right. */
  readonly skipped?: string
}

export const passes = ({ error, tolerance }: CaseResult): boolean => error <= tolerance

/** Share of the tolerance that is used up; infinite where it is 0 and exceeded. */
export const strain = (result: CaseResult): number => {
  if (passes(result)) return result.tolerance === 0 ? 0 : result.error / result.tolerance
  return Number.isNaN(result.error) || result.tolerance === 0
    ? Number.POSITIVE_INFINITY
    : result.error / result.tolerance
}

/** The result nearest to its limit. */
export const worst = (results: readonly CaseResult[]): CaseResult | undefined =>
  [...results].sort((a, b) => strain(b) - strain(a))[0]

/** Largest difference of two arrays; infinite where their lengths differ, and NaN equals NaN alone. */
export function largestDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
  let largest = 0
  for (let i = 0; i < expected.length; i++) {
    const difference = differenceOf(actual[i] ?? Number.NaN, expected[i] ?? Number.NaN)
    if (difference > largest) largest = difference
  }
  return largest
}

/** Absolute difference; infinite where only one is NaN. */
export function differenceOf(actual: number, expected: number): number {
  if (Object.is(actual, expected)) return 0
  const difference = Math.abs(actual - expected)
  return Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference
}

const scientific = (value: number): string => (value === 0 ? '0' : value.toExponential(2))

/** Prints one line for a case. */
export function printCase(result: CaseResult): void {
  if (result.skipped !== undefined) {
    console.log(`SKIP  ${result.name}: ${result.skipped}`)
    return
  }
  const verdict = passes(result) ? 'PASS' : 'FAIL'
  const numbers = `error ${scientific(result.error).padStart(8)}  tolerance ${scientific(result.tolerance).padStart(8)}`
  console.log(`${verdict}  ${numbers}  ${result.name}`)
}
