// node build/test/run.js [PATTERN] [--jobs N] [--limit SECONDS]
//
// Runs the files *.test.ts in test/ (those whose path contains PATTERN) from their compiled form, each in a process of
// its own, so that a crash or a lost device stays with the file that caused it. N of them run side by side (default: as
// many as there are cores, 4 at most): commands that start and pipelines that compile leave cores idle. Prints a line
// per file and ends with `N passed, N failed[, N skipped]`; exits with 1 if anything failed.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

interface Output {
  text: string
  code: number | null
  signal: string | null
  timedOut: boolean
  seconds: number
}

interface Result {
  passed: number
  failed: number
  /** Reasons of the skipped tests, one entry per test. */
  skipped: string[]
  /** What went wrong beyond failed assertions, or undefined. */
  problem: string | undefined
}

const root = fileURLToPath(new URL('../../', import.meta.url))

function readArguments(): { pattern: string; jobs: number; limitSeconds: number } {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      jobs: { type: 'string', default: String(Math.min(4, availableParallelism())) },
      limit: { type: 'string', default: '480' },
    },
  })
  const jobs = Number(values.jobs)
  if (!(Number.isInteger(jobs) && jobs > 0)) throw new Error(`--jobs ${values.jobs}: give a whole number from 1 on`)
  const limitSeconds = Number(values.limit)
  if (!(limitSeconds > 0)) throw new Error(`--limit ${values.limit}: give a number of seconds above 0`)
  if (positionals.length > 1) throw new Error(`${positionals.join(' ')}: give one pattern at most`)
  return { pattern: positionals[0] ?? '', jobs, limitSeconds }
}

/** Process groups of the files that are running: a group of its own, so that what a test has started ends with it. */
const running = new Set<number>()

function killGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL')
  } catch {
    // The group has ended by itself.
  }
}

/** Runs one compiled test file to its end, or to the limit, and collects everything it prints. */
function runFile(path: string, limitSeconds: number): Promise<Output> {
  const env: NodeJS.ProcessEnv = { ...process.env, NO_COLOR: '1' }
  delete env.FORCE_COLOR
  const started = performance.now()
  const child = spawn(process.execPath, [path], { cwd: root, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  const group = child.pid
  if (group !== undefined) running.add(group)
  let text = ''
  let timedOut = false
  const collect = (chunk: string) => {
    text += chunk
  }
  child.stdout.setEncoding('utf8').on('data', collect)
  child.stderr.setEncoding('utf8').on('data', collect)
  const kill = () => {
    if (group !== undefined) killGroup(group)
  }
  const timer = setTimeout(() => {
    timedOut = true
    kill()
  }, limitSeconds * 1000)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    // Children that a test leaves behind hold the pipes open: they end with the test.
    child.once('exit', kill)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      if (group !== undefined) running.delete(group)
      resolve({ text, code, signal, timedOut, seconds: (performance.now() - started) / 1000 })
    })
  })
}

/** Reads uvu's totals. Whatever they say, a file that did not end well has failed. */
function judge(output: Output, limitSeconds: number): Result {
  const totals = [...output.text.matchAll(/^ {2}Total: +(\d+)\n {2}Passed: +(\d+)\n {2}Skipped: +(\d+)$/gm)].at(-1)
  const skipped = [...output.text.matchAll(/^skipped ".*": (.*)$/gm)].map((match) => match[1] ?? '')
  const [total = 0, passed = 0, skips = 0] = totals?.slice(1).map(Number) ?? []
  const failed = total - passed
  let problem: string | undefined
  if (output.timedOut) {
    problem = `${totals ? 'did not exit after its tests' : 'was not done'} within ${limitSeconds} s`
  } else if (output.signal !== null) {
    problem = `crashed with ${output.signal}`
  } else if (!totals) {
    problem = `ended with exit code ${output.code} before its tests were through (is test.run() missing?)`
  } else if (total + skips === 0) {
    problem = 'ran no tests'
  } else if (skips !== skipped.length) {
    problem = `skips ${skips} tests, ${skipped.length} of them with a reason (use skipUnless of test/support/skip.ts)`
  } else if (failed > 0 && !output.text.includes(' FAIL ')) {
    // uvu swallows what a hook throws, and leaves out the tests after it.
    problem = `has ${failed} tests that did not run: a before or after hook throws`
  } else if (output.code !== 0 && failed === 0) {
    problem = `ended with exit code ${output.code}`
  }
  return { passed, failed: failed + (problem ? 1 : 0), skipped, problem }
}

function counts(passed: number, failed: number, skipped: number): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}

function report(name: string, output: Output, result: Result): void {
  const summary = counts(result.passed, result.failed, result.skipped.length)
  console.log(
    `${result.failed ? 'FAIL' : 'ok  '}  ${name.padEnd(36)} ${output.seconds.toFixed(1).padStart(6)} s  ${summary}`,
  )
  for (const reason of new Set(result.skipped)) {
    console.log(`      ${result.skipped.filter((other) => other === reason).length} skipped: ${reason}`)
  }
  if (result.failed === 0) return
  console.log(output.text.trimEnd().replaceAll(/^/gm, '    | '))
  if (result.problem) console.log(`      test/${name}.test.ts ${result.problem}`)
}

const compiled = (name: string) => join(root, 'build/test', `${name}.test.js`)

async function main(): Promise<void> {
  const { pattern, jobs, limitSeconds } = readArguments()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      for (const group of running) killGroup(group)
      process.exit(130)
    })
  }
  // The sources are listed: build/ may still hold the compiled form of tests that are gone.
  const names = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts'))
    .map((file) => file.slice(0, -'.test.ts'.length).split(sep).join('/'))
    .filter((name) => name.includes(pattern))
    .sort()
  if (names.length === 0) throw new Error(`no file *.test.ts in test/ has '${pattern}' in its path`)
  let passed = 0
  let failed = 0
  let skipped = 0
  const missing = names.map(compiled).find((path) => !existsSync(path))
  if (missing) throw new Error(`${missing} is missing: run npm run build first`)
  const waiting = names[Symbol.iterator]()
  const runWaiting = async () => {
    for (const name of waiting) {
      const output = await runFile(compiled(name), limitSeconds)
      const result = judge(output, limitSeconds)
      report(name, output, result)
      passed += result.passed
      failed += result.failed
      skipped += result.skipped.length
    }
  }
  await Promise.all(Array.from({ length: jobs }, runWaiting))
  console.log(counts(passed, failed, skipped))
  if (failed > 0 || passed + skipped === 0) process.exitCode = 1
}

main().catch((error: unknown) => {
  console.error(`test/run: ${error instanceof Error ? error.message : error}`)
  process.exitCode = 1
})
