import { basename, join, resolve } from 'node:path'
import type { Config } from '../config/load.js'
import { paletteOf } from '../data/classes.js'
import { UserError, WriteError } from '../error.js'
import type { WriteFailures } from '../io/write-failures.js'
import type { MetricSpec } from '../methods/method.js'
import { RunLog } from './log.js'
import { type ReportSample, writeReport } from './report.js'
import { readLog } from './report-data.js'
import { createEventWriter, type EventWriter, scalarsOf } from './tensorboard.js'
import type { Display } from './terminal.js'

export interface RunLoggerOptions {
  /** The run's folder; it exists. */
  readonly folder: string
  readonly config: Config
  /** Of the run's method. */
  readonly metrics: readonly MetricSpec[]
  readonly display: Display
  /** Keeps what cannot be written, which does not end the run. */
  readonly failures: WriteFailures
  /** Where a run resumes: its steps done, and the bytes of its log that belong to them. */
  readonly resumed?: { readonly iteration: number; readonly logBytes: number } | undefined
}

/** What a run tells of itself. */
export type Logger = Pick<RunLogger, 'syncLog' | 'live' | 'event' | 'once' | 'status' | 'report' | 'close'>

/** Of a rank that leaves the showing to another one: it says what only it can know, in a line for people. */
export const quietLogger = (print: (line: string) => void): Logger => ({
  live: false,
  syncLog: () => 0,
  event: (name, _, line) => {
    if (line !== undefined && (name === 'unreadable' || name === 'crash')) print(line)
  },
  once: () => {},
  status: () => {},
  report: async () => {},
  close: () => {},
})

/** Everything that shows a run: lines on the terminal, log.jsonl, TensorBoard's event file, and report.html. */
export class RunLogger {
  private readonly log: RunLog
  private readonly said = new Set<string>()
  private readonly events: EventWriter

  constructor(private readonly options: RunLoggerOptions) {
    const { folder, resumed } = options
    this.log = new RunLog(join(folder, 'log.jsonl'), resumed?.logBytes)
    this.events = createEventWriter(folder, resumed ? { resumedAt: resumed.iteration } : {})
  }

  /** Flushes log.jsonl to the disk. Returns its length, for `resumed`. */
  syncLog(): number {
    this.options.failures.attempt(join(this.options.folder, 'log.jsonl'), () => this.log.sync())
    return this.log.bytes
  }

  /** Whether there is a terminal, where the live line takes the place of the lines of steps. */
  get live(): boolean {
    return this.options.display.live
  }

  /** What happened: numbers for the files, and a line for people. */
  event(name: string, fields: Record<string, unknown>, line?: string): void {
    if (line !== undefined) this.options.display.line(line)
    const { folder, config, metrics, failures } = this.options
    failures.attempt(join(folder, 'log.jsonl'), () => this.log.write(name, fields))
    for (const { tag, value, step } of scalarsOf(name, fields, metrics, config.class_names)) {
      failures.attempt(this.events.path, () => this.events.scalar(tag, value, step))
    }
    failures.report()
  }

  /** A line for people the first time that something happens. */
  once(what: string, line: string): void {
    if (this.said.has(what)) return
    this.said.add(what)
    this.options.display.line(line)
  }

  /** The live line. */
  status(text: (width: number) => string): void {
    this.options.display.status(text)
  }

  /** Writes report.html anew. */
  async report(samples: readonly ReportSample[]): Promise<void> {
    const { folder, config, metrics, failures } = this.options
    const path = join(folder, 'report.html')
    let failure: unknown
    try {
      await writeReport(path, {
        title: basename(resolve(folder)),
        config,
        events: readLog(join(folder, 'log.jsonl')),
        metrics,
        samples,
        classNames: config.class_names,
        palette: paletteOf(config),
        ignoreIndex: config.ignore_index,
      })
    } catch (error) {
      // Without its log there is no report, which is no reason to end the run.
      failure =
        error instanceof UserError && !(error instanceof WriteError) ? new WriteError(path, error.message) : error
    }
    failures.attempt(path, () => {
      if (failure !== undefined) throw failure
    })
  }

  close(): void {
    this.options.display.close()
    this.events.close()
  }
}
