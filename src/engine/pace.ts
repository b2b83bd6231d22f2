import type { KernelInfo } from './profile.js'
import { productsPerByte } from './work.js'

/** Multiply-adds of a submission before anything was timed: 0.2 TFLOP. */
const firstBudget = 1e11
/** However long they take: 10 GFLOP. */
const leastBudget = 5e9
/** Milliseconds that a submission should take. Drivers reset a GPU that answers nobody for about two seconds. */
const wanted = 100
/** By so much the budget changes at a time, at most. */
const mostChange = 4
/** Milliseconds that a dispatch may be predicted to take. */
const longestDispatch = 500
/** Vendors of which all adapters do several times the work of integrated ones. */
const discrete: readonly string[] = ['nvidia']
/** By so much more. */
const discreteFactor = 5

/** What a step of a run costs, in multiply-adds. */
export const costOf = ({ multiplyAdds, bytes }: Pick<KernelInfo, 'multiplyAdds' | 'bytes'>): number =>
  Math.max(multiplyAdds, productsPerByte * bytes)

/**
 * How much of a run is submitted at once, so that a GPU which also draws a desktop is free again in time: by the work at
 * first, then by the time that the last runs took.
 */
export class Pace {
  /** Multiply-adds per millisecond, once something was timed. */
  private rate: number | undefined
  /** The most of them that were reached. */
  private best = 0
  /** Multiply-adds that were submitted, and those of them that are done. */
  private given = 0
  private finished = 0
  /** Since when the device works on what is not done. */
  private since = 0

  /**
   * @param now milliseconds of a clock that never goes back
   * @param budget multiply-adds of a submission, before anything was timed
   * @param least multiply-adds of a submission, however long they take
   */
  constructor(
    private readonly now: () => number = () => performance.now(),
    private budget: number = firstBudget,
    private readonly least: number = leastBudget,
  ) {}

  /** That of an adapter of this vendor, of which nothing was timed. */
  static of({ vendor }: { readonly vendor: string }): Pace {
    return new Pace(undefined, discrete.includes(vendor) ? discreteFactor * firstBudget : firstBudget)
  }

  /** Multiply-adds of the longest dispatch: until something was timed, as many as of a submission. */
  longest(): number {
    return this.best > 0 ? Math.max(this.least, longestDispatch * this.best) : this.budget
  }

  /**
   * Where a run is cut: for each submission the index behind its last step. A step is never cut.
   * @param costs of the steps
   */
  ends(costs: readonly number[]): number[] {
    const ends: number[] = []
    let sum = 0
    for (const [i, cost] of costs.entries()) {
      if (sum > 0 && sum + cost > this.budget) {
        ends.push(i)
        sum = 0
      }
      sum += cost
    }
    return [...ends, costs.length]
  }

  /** So much work was submitted. */
  submitted(work: number): void {
    if (this.given === this.finished) this.since = this.now()
    this.given += work
  }

  /** All that was submitted so far, for `done` and `rest`. */
  mark(): number {
    return this.given
  }

  /** What was submitted up to a mark is done. */
  done(mark: number): void {
    const work = mark - this.finished
    if (work <= 0) return
    const now = this.now()
    this.rate = work / Math.max(0.01, now - this.since)
    this.best = Math.max(this.best, this.rate)
    this.finished = mark
    this.since = now
    const target = Math.min(mostChange * this.budget, Math.max(this.budget / mostChange, this.rate * wanted))
    this.budget = Math.max(this.least, target)
  }

  /** Milliseconds until what was submitted up to a mark is done, by the last rate; 0 where it is not known. */
  rest(mark: number): number {
    const work = mark - this.finished
    return work > 0 && this.rate !== undefined ? work / this.rate - (this.now() - this.since) : 0
  }
}
