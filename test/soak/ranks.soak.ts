// Two ranks train over MPI and one of them dies, hangs, loses its device or computes a NaN; their user stops them; the disk of
// rank 0 is full. Each time the run ends within a minute, one line says which rank it was and why, and resuming gives the bits
// of a run that nothing happened to.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { hasMpi, type MpiRun, mpirun, pidOf } from '../support/mpirun.js'
import { assertSameRun } from '../support/same-run.js'
import { tinyData } from '../support/tiny-run.js'

if (!hasMpi) {
  console.log('skipped: there is no mpirun')
  process.exit()
}

const { folder, trainArgs, remove } = await tinyData('soak-ranks')
const latestOf = (name: string) => join(folder, name, 'latest.safetensors')

/** A process of a training of six epochs. */
const rankOf = (name: string, faults: readonly string[] = [], ...more: string[]): string[] => [
  ...faults.flatMap((fault) => ['--import', `./build/test/support/faults/${fault}`]),
  'dist/train.js',
  ...trainArgs(name, '--set', 'batch_size=1', '--set', 'epochs=6', ...more),
]

async function resume(name: string): Promise<void> {
  const rank = rankOf(name, [], '--resume', latestOf(name))
  const { code, output } = await mpirun([rank, rank])
  assert.is(code, 0, output)
  assertSameRun(join(folder, name), join(folder, 'whole'))
}

/** Runs two ranks and, in the third epoch, does something to them. */
async function disturbed(name: string, disturb: (mpirunPid: number) => void): Promise<MpiRun & { seconds: number }> {
  let since: number | undefined
  const rank = rankOf(name)
  const result = await mpirun([rank, rank], (output, pid) => {
    if (since !== undefined || !/epoch 3\/6/.test(output)) return
    since = performance.now()
    disturb(pid)
  })
  return { ...result, seconds: (performance.now() - (since ?? Number.NaN)) / 1000 }
}

/** The one line that says why a run ended. */
function reasonOf(output: string): string {
  const lines = output.split('\n').flatMap((line) => /error: .*/.exec(line)?.[0] ?? [])
  assert.is(lines.length, 1, output)
  return lines[0] ?? ''
}

const whole = await mpirun([rankOf('whole'), rankOf('whole')])
assert.is(whole.code, 0, whole.output)

for (const [signal, rank, what] of [
  ['SIGKILL', 0, /rank 0 of 2 \(.+\), process \d+, has died; to resume: mpirun -n 2 /],
  ['SIGKILL', 1, /rank 1 of 2 \(.+\), process \d+, has died; to resume: mpirun -n 2 /],
  ['SIGSTOP', 0, /rank 0 of 2 \(.+\) has not answered for 40 s; to resume: mpirun -n 2 /],
  ['SIGSTOP', 1, /rank 1 of 2 \(.+\) has not answered for 40 s; to resume: mpirun -n 2 /],
] as const) {
  const name = `${signal}-${rank}`
  const { code, output, seconds } = await disturbed(name, () => process.kill(pidOf(rank, join(folder, name)), signal))
  assert.is.not(code, 0)
  assert.match(reasonOf(output), what)
  assert.ok(seconds < 60, `${seconds} s`)
  await resume(name)
  console.log(`${signal} to rank ${rank}: ended after ${seconds.toFixed(1)} s, and resumed with the same bits`)
}

for (const signal of ['SIGINT', 'SIGUSR2'] as const) {
  const { output } = await disturbed(signal, (pid) => process.kill(pid, signal))
  assert.match(output, /stopped after iteration \d+; to resume: mpirun -n 2 /)
  await resume(signal)
  console.log(`${signal} to mpirun: stopped with a checkpoint, and resumed with the same bits`)
}

const lost = await mpirun([rankOf('lost'), rankOf('lost', ['lose-device.js'])])
assert.is(lost.code, 3, lost.output)
assert.match(reasonOf(lost.output), /rank 1 of 2 \(.+\): the GPU device was lost .*; to resume: mpirun -n 2 /)
await resume('lost')
console.log('a lost device on rank 1: ended, and resumed with the same bits')

const broken = await mpirun([rankOf('broken'), rankOf('broken', ['poison-weight.js'])])
assert.is(broken.code, 5, broken.output)
assert.match(
  reasonOf(broken.output),
  /rank \d of 2 \(.+\): iteration [45]: .*; a lower lr may stay finite: mpirun -n 2 /,
)
await resume('broken')
console.log('a NaN on rank 1: ended, and resumed with the same bits')

const full = await mpirun([rankOf('full', ['disk-full.js?from=2&to=2']), rankOf('full')])
assert.is(full.code, 0, full.output)
assert.match(full.output, /cannot write .*: the training continues/)
assertSameRun(join(folder, 'full'), join(folder, 'whole'))
assert.match(readFileSync(join(folder, 'full', 'log.jsonl'), 'utf8'), /"evaluation"/)
console.log("a full disk on rank 0's machine: the training continued, and all is saved in the end")
remove()
