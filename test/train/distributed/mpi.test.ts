// Several processes over MPI, where there is mpirun.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { launchOf } from '#dist/train/distributed/launcher.js'
import { Mpi } from '#dist/train/distributed/mpi.js'
import { messageOf } from '../../support/messages.js'
import { hasMpi, mpirun, pidOf } from '../../support/mpirun.js'
import { skipUnless } from '../../support/skip.js'
import { tinyData } from '../../support/tiny-run.js'

const { folder, trainArgs, remove } = await tinyData('mpi')
test.after(remove)
const mpiTest = skipUnless(hasMpi, 'there is no mpirun')

mpiTest('three ranks pass each other values, and sums have the same bits on all of them', async () => {
  const rank = ['build/test/support/mpi-rank.js']
  const { code, output } = await mpirun([rank, rank, rank])
  assert.is(code, 0, output)
  assert.match(output, /3 ranks agree; true/)
})

const training = (name: string, ...more: string[]) => {
  const settings = ['--method', 'supervised', '--set', 'batch_size=1', '--set', 'epochs=400', ...more]
  return ['dist/train.js', ...trainArgs(name, ...settings)]
}

mpiTest('two ranks train, and one that is killed ends both with its name and the command that resumes', async () => {
  let killed = false
  const { code, output } = await mpirun([training('killed'), training('killed')], (text) => {
    if (killed || !/epoch 3\/400/.test(text)) return
    killed = true
    process.kill(pidOf(1, join(folder, 'killed')), 'SIGKILL')
  })
  assert.is.not(code, 0, output)
  const checkpoint = join(folder, 'killed', 'latest.safetensors')
  assert.match(output, /error: rank 1 of 2 \(.+\), process \d+, has died; to resume: mpirun -n 2 node dist\/train\.js /)
  assert.ok(output.includes(`--resume ${checkpoint}`), output)
  assert.ok(existsSync(checkpoint))
})

mpiTest('ranks that differ in their settings are refused in one line', async () => {
  const { code, output } = await mpirun([training('differing'), training('differing', '--set', 'lr=0.5')])
  assert.is(code, 1, output)
  const lines = output.split('\n').filter((line) => line.includes('error: '))
  assert.is(lines.length, 1, output)
  assert.match(lines[0] ?? '', /rank 1 of 2 \(.+\) has lr 0\.5 instead of 0\.01, unlike rank 0/)
})

test('a process knows by its environment who started it, and which package it lacks', async () => {
  assert.is(launchOf({}), undefined)
  assert.equal(launchOf({ OMPI_COMM_WORLD_SIZE: '3' }), { kind: 'open-mpi', size: 3 })
  assert.equal(launchOf({ PMI_SIZE: '2' }), { kind: 'mpich', size: 2 })
  assert.match(await messageOf(() => launchOf({ PMIX_RANK: '0' })), /start it with mpirun/)
  const hasMpich = existsSync('/usr/lib/x86_64-linux-gnu/libmpich.so.12')
  if (hasMpich) return
  assert.match(await messageOf(() => Mpi.open({ kind: 'mpich', size: 2 })), /apt-get install mpich$/)
})

test.run()
