import { basename } from 'node:path'
import { WriteError } from '../error.js'

/** What of a run could not be written to its folder: the training continues, and tries again. */
export class WriteFailures {
  private readonly reasons = new Map<string, string>()
  private reported = false

  constructor(
    private readonly folder: string,
    private readonly print: (line: string) => void,
  ) {}

  /** Files and folders that could not be written the last time. */
  get paths(): string[] {
    return [...this.reasons.keys()]
  }

  /**
   * Runs `write`, and keeps in mind whether `path` could be written.
   * @returns whether it was
   */
  attempt(path: string, write: () => void): boolean {
    try {
      write()
    } catch (error) {
      if (!(error instanceof WriteError)) throw error
      this.reasons.set(path, error.reason)
      return false
    }
    this.reasons.delete(path)
    return true
  }

  /** Says in one line what is not written, if that was not said since the last `reportAgain`. */
  report(): void {
    if (this.reasons.size > 0 && !this.reported) this.say(`${this.summary}: the training continues and tries again`)
  }

  /**
   * Says in one line what is not written, or that all is again.
   * @param good what there is to go back to
   */
  reportAgain(good: string): void {
    if (this.reasons.size > 0) {
      this.say(`${this.summary}: the training continues and tries again after the next epoch; ${good}`)
    } else if (this.reported) this.print(`everything is saved in ${this.folder} again`)
    this.reported = this.reasons.size > 0
  }

  /** `cannot write a, b in folder: reason` */
  get summary(): string {
    const names = this.paths.map((path) => (path === this.folder ? 'the folder' : basename(path)))
    const reasons = new Set([...this.reasons.values()].map((reason) => reason.replace(/, \w+( '.*)?$/, '')))
    return `cannot write ${names.join(', ')} in ${this.folder}: ${[...reasons].join('; ')}`
  }

  private say(line: string): void {
    this.reported = true
    this.print(line)
  }
}
