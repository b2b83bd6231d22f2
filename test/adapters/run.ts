// node build/test/adapters/run.js [PATTERN] [--quick] [--jobs N]
//
// Tests under adapters that this machine does not have, imitated by what lies below the engine: a driver's own settings, or
// modules that are loaded before a test (test/support/variant.ts). Variants whose names contain PATTERN; with --quick, one row
// of each operator under those that differ most. Prints the time of each and ends with `N passed, N failed`.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

interface Variant {
  readonly name: string
  /** Parameters of test/support/variant.ts. */
  readonly imitation?: string
  /** The driver's own settings. */
  readonly driver?: Readonly<Record<string, string>>
  /** What it needs, where that can be absent. */
  readonly needs?: string
  /** Element types that operators are tested with; both when absent. */
  readonly precision?: 'single' | 'half'
  /** Further test files for it. */
  readonly files?: readonly string[]
  /** Part of --quick, with these precisions. */
  readonly quick?: 'single' | 'half'
}

const allOptional = 'subgroups,subgroup-size-control,chromium-experimental-subgroup-matrix'
const swiftShader = '/usr/lib/chromium/vk_swiftshader_icd.json'

const variants: readonly Variant[] = [
  // No panels and no mirrors but the kernels of GPUs, and submissions of limited work.
  { name: 'kernels of GPUs', imitation: 'gpu' },
  {
    name: 'kernels of GPUs, nothing optional, default limits',
    imitation: `gpu&defaultLimits&without=${allOptional},shader-f16,timestamp-query`,
    precision: 'single',
    quick: 'single',
  },
  { name: 'default limits', imitation: 'defaultLimits' },
  { name: 'no subgroups', imitation: `without=${allOptional}` },
  { name: 'no f16', imitation: 'without=shader-f16', precision: 'single' },
  { name: 'no time stamps', imitation: 'without=timestamp-query', precision: 'single' },
  {
    name: 'subgroups of 4',
    driver: { LP_NATIVE_VECTOR_WIDTH: '128' },
    files: ['kernels/conv-tiles', 'kernels/depthwise', 'kernels/narrow', 'kernels/panels', 'kernels/winograd'],
    quick: 'single',
  },
  // There reads of textures give wrong values, so that kernels of GPUs are tested: they bind none.
  { name: 'subgroups of 16, kernels of GPUs', driver: { LP_NATIVE_VECTOR_WIDTH: '512' }, imitation: 'gpu' },
  {
    name: 'SwiftShader',
    driver: { VK_DRIVER_FILES: swiftShader },
    needs: swiftShader,
    precision: 'single',
    quick: 'single',
  },
  { name: 'stores of f16 that truncate', imitation: 'stores=truncating', precision: 'half', quick: 'half' },
  { name: 'workgroups in the opposite order', imitation: 'groups=backwards', quick: 'single' },
]

/** Test files that meet what an adapter can differ in; the last two train beside recorded values. */
const files = [
  'engine/mirror',
  'engine/pace',
  'engine/passes/batch-small',
  'engine/passes/concat-in-place',
  'engine/passes/fuse-epilogues',
  'engine/passes/fuse-pointwise',
  'engine/passes/rewrite',
  'engine/passes/update-early',
  'engine/placement',
  'engine/plan',
  'engine/program',
  'engine/store',
  'train/trainer/trainer',
  'train/trainer/amp',
]

const root = fileURLToPath(new URL('../../../', import.meta.url))

interface Options {
  readonly pattern: string
  readonly quick: boolean
  readonly jobs: number
}

function readOptions(): Options {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { quick: { type: 'boolean', default: false }, jobs: { type: 'string' } },
  })
  const jobs = Number(values.jobs ?? Math.min(4, availableParallelism()))
  if (!(Number.isInteger(jobs) && jobs > 0)) throw new Error(`--jobs ${values.jobs}: give a whole number from 1 on`)
  return { pattern: positionals[0] ?? '', quick: values.quick, jobs }
}

interface Job {
  readonly variant: Variant
  readonly script: string
  readonly args: readonly string[]
}

function jobsOf(variant: Variant, quick: boolean): Job[] {
  const operators = (precision: string | undefined, ...args: string[]): Job => ({
    variant,
    script: 'adapters/operators.js',
    args: [...args, ...(precision ? ['--precision', precision] : [])],
  })
  if (quick) return variant.quick ? [operators(variant.quick, '--first')] : []
  const test = (name: string): Job => ({ variant, script: `${name}.test.js`, args: [] })
  return [operators(variant.precision), ...[...files, ...(variant.files ?? [])].map(test)]
}

interface Counts {
  passed: number
  failed: number
  seconds: number
}

/** One script to its end. What it prints is shown where it fails. */
async function run({ variant: { name, imitation, driver }, script, args }: Job): Promise<Counts> {
  const preload = new URL(`../support/variant.js?${imitation ?? ''}`, import.meta.url).href
  const env = { ...process.env, NO_COLOR: '1', ...driver }
  const command = [...(imitation ? ['--import', preload] : []), join(root, 'build/test', script), ...args]
  const begin = performance.now()
  const child = spawn(process.execPath, command, {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 900_000,
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (data) => (text += data))
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  const seconds = (performance.now() - begin) / 1000
  const [total = 0, passed = 0] = (/^ {2}Total: +(\d+)\n {2}Passed: +(\d+)$/m.exec(text) ?? []).slice(1).map(Number)
  const failed = Math.max(total - passed, code === 0 && total + skippedIn(text) > 0 ? 0 : 1)
  if (failed > 0)
    console.log(`FAIL  ${name}: ${script}, exit code ${code}\n${text.trimEnd().replaceAll(/^/gm, '    | ')}`)
  return { passed, failed, seconds }
}

const skippedIn = (text: string): number => Number(/^ {2}Skipped: +(\d+)$/m.exec(text)?.[1] ?? 0)

const { pattern, quick, jobs } = readOptions()
const chosen = variants.filter(({ name }) => name.includes(pattern))
if (chosen.length === 0) throw new Error(`no variant has '${pattern}' in its name`)
const queue: Job[] = []
for (const variant of chosen) {
  if (variant.needs && !existsSync(variant.needs)) console.log(`skipped: ${variant.name}: ${variant.needs} is absent`)
  else queue.push(...jobsOf(variant, quick))
}
const left = new Map<Variant, number>()
for (const { variant } of queue) left.set(variant, (left.get(variant) ?? 0) + 1)
const counts = new Map<Variant, Counts>()
const worker = async () => {
  for (let job = queue.shift(); job; job = queue.shift()) {
    const { variant } = job
    const result = await run(job)
    const own = counts.get(variant) ?? { passed: 0, failed: 0, seconds: 0 }
    for (const key of ['passed', 'failed', 'seconds'] as const) own[key] += result[key]
    counts.set(variant, own)
    left.set(variant, (left.get(variant) ?? 0) - 1)
    if (left.get(variant) !== 0) continue
    const state = own.failed > 0 ? 'FAIL' : 'ok  '
    const time = `${own.seconds.toFixed(1).padStart(6)} s`
    console.log(`${state}  ${variant.name.padEnd(52)} ${time}  ${own.passed} passed, ${own.failed} failed`)
  }
}
await Promise.all(Array.from({ length: jobs }, worker))
const sum = (key: keyof Counts) => [...counts.values()].reduce((total, each) => total + each[key], 0)
console.log(`${sum('passed')} passed, ${sum('failed')} failed`)
if (sum('failed') > 0 || sum('passed') === 0) process.exitCode = 1
