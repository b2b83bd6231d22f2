import { duration } from '../logging/log.js'

/** Milliseconds. */
const firstReport = 60_000

/**
 * Says what is being waited for when that takes long: after a minute, and again each time the wait has doubled. It only
 * reports: a slow disk or driver may still answer.
 */
export class Watchdog {
  constructor(private readonly print: (line: string) => void) {}

  /** Awaits a promise. `what` is asked when a report is due. */
  async during<T>(what: () => string, promise: Promise<T>): Promise<T> {
    const stop = this.start(what)
    try {
      return await promise
    } finally {
      stop()
    }
  }

  /**
   * The items of an iterable; both their coming and what is done with each are watched.
   *
   * @param coming gets the number of items so far
   */
  async *each<T>(
    coming: (count: number) => string,
    used: (item: T) => string,
    items: AsyncIterable<T>,
  ): AsyncGenerator<T> {
    let count = 0
    let stop = this.start(() => coming(count))
    try {
      for await (const item of items) {
        stop()
        stop = this.start(() => used(item))
        yield item
        count++
        stop()
        stop = this.start(() => coming(count))
      }
    } finally {
      stop()
    }
  }

  /** Returns what ends the watch. */
  private start(what: () => string): () => void {
    let waited = 0
    let timer: NodeJS.Timeout
    const wait = (milliseconds: number) => {
      timer = setTimeout(() => {
        waited += milliseconds
        this.print(`waiting since ${duration(waited / 1000)} min for ${what()}`)
        wait(waited)
      }, milliseconds)
    }
    wait(firstReport)
    return () => clearTimeout(timer)
  }
}
