import { createHash } from 'node:crypto'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import type { AdapterSummary } from '../../engine/adapter.js'
import { type Measurement, Tuning } from '../../engine/autotune.js'
import { reasonOf, UserError } from '../error.js'
import { writeAtomically } from '../io/files.js'
import { versions } from '../versions.js'

/** The user's folder for what can be made again, where the platform wants it. */
export function cacheFolder(
  platform: string = process.platform,
  env: Readonly<Record<string, string | undefined>> = process.env,
  home: string = homedir(),
): string {
  if (platform === 'win32') return join(env.LOCALAPPDATA ?? join(home, 'AppData', 'Local'), 'atrous')
  if (platform === 'darwin') return join(home, 'Library', 'Caches', 'atrous')
  // The XDG specification ignores relative paths.
  const { XDG_CACHE_HOME: cache } = env
  return join(cache && isAbsolute(cache) ? cache : join(home, '.cache'), 'atrous')
}

/** Everything that the speed of a kernel depends on, besides the kernel. */
export const adapterText = ({ vendor, architecture, device, driver }: AdapterSummary): string =>
  [vendor, architecture, device, driver, `webgpu ${versions().webgpu}`].join(' | ')

/** The file of an adapter's measurements. Its name only tells adapters apart; what counts is the text in the file. */
export function cachePath(adapter: string, folder: string = cacheFolder()): string {
  const name = adapter.replace(/[^\w.]+/g, '-').slice(0, 100)
  const digest = createHash('sha256').update(adapter).digest('hex').slice(0, 8)
  return join(folder, 'kernels', `${name}-${digest}.json`)
}

const maxBytes = 2 ** 25

const schema = z.strictObject({
  format: z.literal(1),
  adapter: z.string(),
  /** Texts of shaders, which the kernels name by their position. */
  sources: z.array(z.string()),
  measurements: z.array(
    z.strictObject({
      call: z.string(),
      kernels: z.array(z.strictObject({ name: z.string(), sources: z.array(z.int().min(0)) })).min(1),
      milliseconds: z.array(z.number().nullable()),
      choice: z.string(),
      wrong: z.array(z.string()).optional(),
      unfit: z.array(z.string()).optional(),
    }),
  ),
})

/** The measurements that a file holds; undefined where there is no file. Throws a UserError where it is of no use. */
export function readTuning(path: string): { adapter: string; measurements: Measurement[] } | undefined {
  let text: string
  try {
    const size = statSync(path, { throwIfNoEntry: false })?.size
    if (size === undefined) return undefined
    if (size > maxBytes) throw new Error(`it has ${size} bytes, more than the ${maxBytes} that are read`)
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new UserError(`${path} cannot be read: ${reasonOf(error)}: delete it`)
  }
  const result = schema.safeParse(parseJson(text))
  const damaged = new UserError(`${path} is damaged: delete it`)
  if (!result.success) throw damaged
  const { adapter, sources, measurements } = result.data
  const sourceAt = (i: number): string => {
    const source = sources[i]
    if (source === undefined) throw damaged
    return source
  }
  const whole = measurements.map((each): Measurement => {
    const kernels = each.kernels.map(({ name, sources: list }) => ({ name, sources: list.map(sourceAt) }))
    const { wrong, unfit, ...rest } = each
    return { ...rest, kernels, ...(wrong ? { wrong } : {}), ...(unfit ? { unfit } : {}) }
  })
  return { adapter, measurements: whole }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Throws a UserError where the file cannot be written. */
export function writeTuning(path: string, adapter: string, list: readonly Measurement[]): void {
  const numbers = new Map<string, number>()
  const numberOf = (source: string): number => {
    const number = numbers.get(source) ?? numbers.size
    numbers.set(source, number)
    return number
  }
  const measurements = list.map(({ call, kernels, milliseconds, choice, wrong, unfit }) => {
    const named = kernels.map(({ name, sources }) => ({ name, sources: sources.map(numberOf) }))
    const rounded = milliseconds.map((time) => (time === null ? null : Number(time.toPrecision(4))))
    const faults = { ...(wrong ? { wrong: [...wrong] } : {}), ...(unfit ? { unfit: [...unfit] } : {}) }
    return { call, kernels: named, milliseconds: rounded, choice, ...faults }
  })
  const file: z.infer<typeof schema> = {
    format: 1,
    adapter,
    sources: [...numbers.keys()],
    measurements,
  }
  writeAtomically(path, [new TextEncoder().encode(`${JSON.stringify(file)}\n`)])
}

/** Milliseconds for which a file is held at most: what holds it longer was killed. */
const longestHold = 10_000

/** Runs `body` while no other process does so for the same file. */
async function exclusively<T>(path: string, body: () => T): Promise<T> {
  const lock = `${path}.lock`
  for (;;) {
    try {
      closeSync(openSync(lock, 'wx'))
      break
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
      const since = statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()
      if (Date.now() - since > longestHold) rmSync(lock, { force: true })
      else await sleep(20)
    }
  }
  try {
    return body()
  } finally {
    rmSync(lock, { force: true })
  }
}

type Print = (line: string) => void

/** The measurements of one adapter in the user's cache. What is wrong with the file is printed, never thrown. */
export class TuningCache {
  readonly adapter: string
  readonly path: string
  private isWritable = true

  constructor(
    adapter: AdapterSummary,
    private readonly print: Print,
    folder?: string,
  ) {
    this.adapter = adapterText(adapter)
    this.path = cachePath(this.adapter, folder)
  }

  read(): Measurement[] {
    try {
      return this.load()
    } catch (error) {
      this.print(`kernels: earlier measurements are lost: ${reasonOf(error)}, or measure again with --tune`)
      return []
    }
  }

  /** Adds measurements; those that another process has added meanwhile prevail. Returns all that there are now. */
  async add(fresh: readonly Measurement[]): Promise<Measurement[]> {
    try {
      mkdirSync(dirname(this.path), { recursive: true })
      return await exclusively(this.path, () => {
        const { measurements } = new Tuning([...this.loadOrNothing(), ...fresh])
        writeTuning(this.path, this.adapter, measurements)
        return measurements
      })
    } catch (error) {
      if (this.isWritable) this.print(`kernels: the measurements are not kept: ${reasonOf(error)}`)
      this.isWritable = false
      return [...fresh]
    }
  }

  clear(): void {
    rmSync(this.path, { force: true })
  }

  private load(): Measurement[] {
    const file = readTuning(this.path)
    if (file && file.adapter !== this.adapter) throw new UserError(`${this.path} is of another adapter: delete it`)
    return file?.measurements ?? []
  }

  private loadOrNothing(): Measurement[] {
    try {
      return this.load()
    } catch {
      return []
    }
  }
}
