// Two ranks on two machines, which are network namespaces of this one: the bits are those of one machine; where a rank on the
// other machine dies, or the network between them does, both end within a minute, one line says why, and resuming gives the
// bits of a run that nothing happened to.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { twoMachines } from '../support/machines.js'
import { hasMpi, mpirun, pidOf } from '../support/mpirun.js'
import { assertSameRun } from '../support/same-run.js'
import { tinyData } from '../support/tiny-run.js'

const machines = hasMpi ? twoMachines() : undefined
if (!machines) {
  console.log(hasMpi ? 'skipped: network namespaces need root and iproute2' : 'skipped: there is no mpirun')
  process.exit()
}
const { folder, trainArgs, remove } = await tinyData('soak-machines')

const rankOf = (name: string, ...more: string[]): string[] => [
  'dist/train.js',
  ...trainArgs(name, '--set', 'batch_size=1', '--set', 'epochs=6', ...more),
]

async function train(name: string, onOutput?: (output: string) => void, ...more: string[]) {
  const rank = rankOf(name, ...more)
  return await mpirun([rank, rank], onOutput, machines)
}

const isRunning = (name: string): boolean => spawnSync('pgrep', ['-f', join(folder, name)]).status === 0

try {
  const here = await mpirun([rankOf('here'), rankOf('here')])
  assert.is(here.code, 0, here.output)
  const whole = await train('whole')
  assert.is(whole.code, 0, whole.output)
  assert.match(whole.output, /atrous-two/)
  assertSameRun(join(folder, 'whole'), join(folder, 'here'))
  console.log('two machines: the bits of one')

  // Of a rank that is killed, and of a machine, mpirun says which it was; the command that resumes stands above.
  const faults = {
    killed: {
      fault: (name: string) => process.kill(pidOf(1, join(folder, name)), 'SIGKILL'),
      reason: /rank 1 with PID \d+ on node 10\.203\.0\.2 exited on signal 9/,
    },
    disconnected: {
      fault: () => machines.disconnect(),
      reason: /lost communication with a remote daemon[\s\S]*on node 10\.203\.0\.2/,
    },
  }
  for (const [name, { fault, reason }] of Object.entries(faults)) {
    let since: number | undefined
    const { code, output } = await train(name, (text) => {
      if (since !== undefined || !/epoch 3\/6/.test(text)) return
      since = performance.now()
      fault(name)
    })
    assert.is.not(code, 0)
    assert.match(output, reason)
    assert.match(output, /to resume, should a machine fail: mpirun -n 2 node dist\/train\.js /)
    while (isRunning(name) && performance.now() - (since ?? 0) < 60_000) await sleep(100)
    assert.not.ok(isRunning(name), `${name}: a rank still runs`)
    const seconds = (performance.now() - (since ?? Number.NaN)) / 1000
    machines.connect()
    // Both ends of the cable need a moment until they are there again.
    await sleep(3000)
    const resumed = await train(name, undefined, '--resume', join(folder, name, 'latest.safetensors'))
    assert.is(resumed.code, 0, resumed.output)
    assertSameRun(join(folder, name), join(folder, 'whole'))
    console.log(`${name}: ended after ${seconds.toFixed(1)} s, and resumed with the same bits`)
  }
} finally {
  machines.remove()
  remove()
}
