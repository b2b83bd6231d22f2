import { duration } from './log.js'
import { createDisplay, type Display, type DisplayStream } from './terminal.js'

/** Seconds between two lines where there is no terminal. */
const lineInterval = 10

/** Progress over a known number of images: a live line on a terminal, elsewhere a line now and then. */
export class Progress {
  private done = 0
  private shownAt = 0
  private readonly begin: number
  private readonly display: Display

  /** @param now milliseconds of a clock that never goes back */
  constructor(
    private readonly what: string,
    private readonly total: number,
    stream: DisplayStream,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.begin = now()
    this.display = createDisplay(stream, now)
  }

  /** One more image is done. */
  tick(): void {
    this.done++
    if (this.display.live) this.display.status(() => this.text())
    else if (this.seconds >= this.shownAt + lineInterval && this.done < this.total) {
      this.shownAt = this.seconds
      this.display.line(this.text())
    }
  }

  /** A line that stays, above the live one. */
  line(text: string): void {
    this.display.line(text)
  }

  /** Leaves a line with the time taken and the speed. */
  finish(): void {
    this.display.close()
    this.display.line(`${this.what}: ${this.done} images in ${duration(this.seconds)}, ${this.speed} images/s`)
  }

  /** Ends the live line, so that an error starts on a line of its own. */
  close(): void {
    this.display.close()
  }

  private get seconds(): number {
    return (this.now() - this.begin) / 1000
  }

  private get speed(): string {
    const speed = this.done / Math.max(1e-3, this.seconds)
    return speed.toFixed(speed < 10 ? 2 : 1)
  }

  private text(): string {
    const left = (this.seconds / this.done) * (this.total - this.done)
    return `${this.what}: ${this.done}/${this.total}  ${this.speed} images/s  ETA ${duration(left)}`
  }
}
