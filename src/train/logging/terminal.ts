import { stripVTControlCharacters } from 'node:util'

/** What `createDisplay` needs of `process.stdout`. */
export interface DisplayStream {
  readonly isTTY?: boolean
  /** Width of the terminal; changes with it. */
  readonly columns?: number
  write(text: string): unknown
}

/** Shows a run: lines that stay, and on a terminal one live line below them. */
export interface Display {
  /** Whether `status` shows anything: the stream is a terminal. */
  readonly live: boolean
  /** Replaces the live line. `width` is what fits in one line. Not called where there is no live line. */
  status(text: (width: number) => string): void
  /** Writes a line that stays. */
  line(text: string): void
  /** Ends the live line, leaving what it showed last. May be called twice. */
  close(): void
}

/** The live line is drawn at most this often, in milliseconds. */
const interval = 80
/** Return to the first column; erase to the end of the line. */
const toStart = '\r'
const erase = '\x1b[K'

/**
 * @param stream such as `process.stdout`
 * @param now milliseconds of a clock that never goes back
 */
export function createDisplay(stream: DisplayStream, now: () => number = () => performance.now()): Display {
  const live = stream.isTTY === true
  let status: ((width: number) => string) | undefined
  let drawn = Number.NEGATIVE_INFINITY

  const show = () => {
    if (!status) return ''
    // A terminal wraps a line that fills its last column.
    const width = Math.max(1, (stream.columns || 80) - 1)
    return toStart + cut(status(width), width) + erase
  }
  return {
    live,
    status(text) {
      if (!live) return
      status = text
      if (now() - drawn < interval) return
      drawn = now()
      stream.write(show())
    },
    line(text) {
      stream.write(live ? `${toStart}${erase}${text}\n${show()}` : `${text}\n`)
    },
    close() {
      if (status) stream.write(`${show()}\n`)
      status = undefined
    },
  }
}

/** One line of printable characters, no longer than `width`. */
function cut(text: string, width: number): string {
  const characters = [...stripVTControlCharacters(text).replace(/\p{Cc}+/gu, ' ')]
  return characters.length <= width ? characters.join('') : `${characters.slice(0, width - 1).join('')}…`
}

/** A part of a status; the highest ranks are left out first where the line is too narrow. */
export interface StatusPart {
  readonly text: string
  readonly rank: number
}

/** Joins the parts that fit in `width` characters, in their order. */
export function fitParts(parts: readonly StatusPart[], width: number): string {
  const kept = parts.filter(({ text }) => text !== '')
  const joined = () => kept.map(({ text }) => text).join('  ')
  while (kept.length > 1 && joined().length > width) {
    const last = Math.max(...kept.map(({ rank }) => rank))
    kept.splice(
      kept.findLastIndex(({ rank }) => rank === last),
      1,
    )
  }
  return joined()
}

/** Where a training stands. */
export interface TrainingStatus {
  /** Epoch from 1, and how many there are. */
  readonly epoch: number
  readonly epochs: number
  /** Iterations done in this epoch, and how many it has. */
  readonly iteration: number
  readonly iterationsPerEpoch: number
  readonly totalLoss: number
  /** Other losses by their short names. */
  readonly losses?: Readonly<Record<string, number>>
  /** Share of the pixels that are confident enough to be learned from, 0..1. */
  readonly maskRatio?: number | undefined
  /** Of the last evaluation and the best one, in percent; undefined before the first. */
  readonly miou?: number | undefined
  readonly bestMiou?: number | undefined
  /** In half precision. */
  readonly skippedSteps?: number | undefined
  readonly imagesPerSecond: number
  /** Share of the time spent waiting for data, 0..1. */
  readonly dataShare: number
  /** As shown, such as `1:02:03`. */
  readonly eta: string
}

/** A training's live line in at most `width` characters: what matters least goes first. */
export function trainingLine(status: TrainingStatus, width: number): string {
  const { epoch, epochs, iteration, iterationsPerEpoch, totalLoss, losses = {}, maskRatio, miou, bestMiou } = status
  const done = iterationsPerEpoch > 0 ? iteration / iterationsPerEpoch : 0
  const details = Object.entries(losses).map(([name, value]) => `${name} ${value.toFixed(2)}`)
  const best = bestMiou !== undefined && bestMiou !== miou ? ` (best ${bestMiou.toFixed(1)})` : ''
  const speed = status.imagesPerSecond
  return fitParts(
    [
      { text: `epoch ${epoch}/${epochs}`, rank: 0 },
      { text: bar(done, 12), rank: 7 },
      { text: `${iteration}/${iterationsPerEpoch}`, rank: 1 },
      { text: `loss ${totalLoss.toFixed(3)}`, rank: 2 },
      { text: details.length > 1 ? `(${details.join(', ')})` : '', rank: 9 },
      { text: maskRatio === undefined ? '' : `mask ${percent(maskRatio)}`, rank: 8 },
      { text: miou === undefined ? '' : `mIoU ${miou.toFixed(1)}${best}`, rank: 4 },
      { text: status.skippedSteps ? `${status.skippedSteps} skipped` : '', rank: 4 },
      { text: `${speed.toFixed(speed < 10 ? 2 : speed < 100 ? 1 : 0)} images/s`, rank: 5 },
      { text: `data ${percent(status.dataShare)}`, rank: 6 },
      { text: `ETA ${status.eta}`, rank: 3 },
    ],
    width,
  )
}

const percent = (share: number) => `${Math.round(100 * share)}%`

function bar(share: number, length: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * length)
  return '━'.repeat(full) + '─'.repeat(length - full)
}
