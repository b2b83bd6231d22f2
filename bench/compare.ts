import { readFileSync } from 'node:fs'
import { z } from 'zod'
import type { AdapterSummary } from '#dist/engine/adapter.js'
import { UserError } from '#dist/train/error.js'
import type { Timing } from './timing.js'

const timing = { milliseconds: z.number().positive(), spread: z.number().nonnegative() }

/** What a comparison needs of the JSON that the bench writes. */
const schema = z.object({
  adapter: z.object({ vendor: z.string(), architecture: z.string(), device: z.string(), driver: z.string() }),
  crop: z.number(),
  batch: z.number(),
  model: z.string(),
  /** Training steps in half precision. */
  amp: z.boolean().default(false),
  operators: z.array(z.object({ op: z.string(), pass: z.string(), shape: z.string(), ...timing })),
  steps: z.array(z.object({ method: z.string(), ...timing })),
  residuals: z.array(z.object({ shape: z.string(), ...timing })),
  overheads: z.array(z.object({ method: z.string(), ...timing })),
})

export type Report = z.infer<typeof schema>

export interface OldReport {
  readonly path: string
  readonly report: Report
}

/** A row of two reports. */
export interface Comparison {
  readonly name: string
  readonly before: number
  readonly now: number
  /** Of the times, new to old: above 1 is slower. */
  readonly ratio: number
  /** Slower by more than the noise. */
  readonly regressed: boolean
}

/** Reads a report that `--json` wrote. Throws a UserError where the file is none. */
export function readReport(path: string): OldReport {
  let content: unknown
  try {
    content = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new UserError(`--compare ${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
  const parsed = schema.safeParse(content)
  if (parsed.success) return { path, report: parsed.data }
  const [issue] = parsed.error.issues
  const place = issue?.path.join('.') || 'the whole of it'
  throw new UserError(
    `--compare ${path}: not a report of this bench (${place}: ${issue?.message}); write one with --json`,
  )
}

export interface Circumstances {
  readonly adapter: AdapterSummary
  readonly crop: number
  readonly batch: number
  readonly model: string
  readonly amp: boolean
}

/** Throws a UserError where times of the report and of a run under these circumstances have nothing to do with each other. */
export function checkComparable({ path, report: old }: OldReport, now: Circumstances): void {
  const nameOf = ({ vendor, architecture, device }: Report['adapter']) =>
    [vendor, architecture, device].filter(Boolean).join(' ')
  if (nameOf(old.adapter) !== nameOf(now.adapter)) {
    throw new UserError(
      `--compare ${path}: measured on another adapter: ${nameOf(old.adapter)}, this is ${nameOf(now.adapter)}`,
    )
  }
  if (old.crop !== now.crop || old.batch !== now.batch || old.model !== now.model) {
    const options = `--crop ${old.crop} --batch ${old.batch} --model ${old.model}`
    throw new UserError(`--compare ${path}: measured at other sizes; repeat with ${options}`)
  }
  if (old.amp !== now.amp) {
    throw new UserError(
      `--compare ${path}: measured ${old.amp ? 'with' : 'without'} --amp; repeat ${old.amp ? 'with' : 'without'} it`,
    )
  }
}

type Timed = Pick<Report, 'operators' | 'steps' | 'residuals' | 'overheads'>

function timingsOf({ operators, steps, residuals, overheads }: Timed): Map<string, Timing> {
  return new Map<string, Timing>([
    ...operators.map((row) => [operatorName(row), row] as const),
    ...steps.map((row) => [`training step, ${row.method}`, row] as const),
    ...residuals.map((row) => [`residual step, ${row.shape}`, row] as const),
    ...overheads.map((row) => [`overhead, ${row.method}`, row] as const),
  ])
}

/** Slower by more than a tenth and by more than three times the spread of either. */
const slower = (before: Timing, now: Timing): boolean =>
  now.milliseconds - before.milliseconds > Math.max(0.1 * before.milliseconds, 3 * Math.max(before.spread, now.spread))

const operatorName = ({ op, pass, shape }: Pick<Report['operators'][number], 'op' | 'pass' | 'shape'>): string =>
  `${op}, ${pass}, ${shape}`

/** Whether an operator is slower than in the report, so that it is worth a second look. */
export function seemsSlower(old: Timed, row: Report['operators'][number]): boolean {
  const before = old.operators.find((other) => operatorName(other) === operatorName(row))
  return before !== undefined && slower(before, row)
}

/** The rows that both reports have, in the order of the new one. Throws a UserError where there is none. */
export function compare(old: Timed, now: Timed): Comparison[] {
  const known = timingsOf(old)
  const rows = [...timingsOf(now)].flatMap(([name, timing]): Comparison[] => {
    const old = known.get(name)
    if (!old) return []
    const [before, now] = [old.milliseconds, timing.milliseconds]
    return [{ name, before, now, ratio: now / before, regressed: slower(old, timing) }]
  })
  if (rows.length === 0) throw new UserError('--compare: the report has none of what was measured now')
  return rows
}
