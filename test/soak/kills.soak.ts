// Kills trainings, resumes them, and compares all bits with those of a training that nothing happened to: before every
// single change of the checkpoints' files, in the midst of it where it is a write, and at random moments.
//
// Options: --from CHANGE, --to CHANGE (by default all), --runs COUNT (trainings that are killed at random moments, again
// and again until they end; 10), --seed SEED
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as assert from 'uvu/assert'
import { Random } from '#dist/train/random.js'
import { start } from '../support/child.js'
import { assertSameRun } from '../support/same-run.js'
import { tinyData } from '../support/tiny-run.js'

const { values } = parseArgs({
  options: {
    from: { type: 'string', default: '1' },
    to: { type: 'string', default: 'Infinity' },
    runs: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
  },
})
const { folder, trainArgs, remove } = await tinyData('kills')
const long = ['--set', 'epochs=3']
const at = (name: string) => join(folder, name)

/** Starts a training in a folder, or goes on with the one that is there. */
function begin(name: string, ...faults: string[]) {
  const latest = join(at(name), 'latest.safetensors')
  const hasCheckpoint = existsSync(latest) || existsSync(join(at(name), 'latest.bak.safetensors'))
  const more = hasCheckpoint ? ['--resume', latest] : ['--overwrite']
  return start('train.js', trainArgs(name, ...long, ...more), faults)
}

async function finish(name: string): Promise<void> {
  const child = begin(name)
  assert.is(await child.ended, 0, child.output())
  assertSameRun(at(name), at('whole'))
  rmSync(at(name), { recursive: true })
}

const whole = begin('whole')
assert.is(await whole.ended, 0, whole.output())

const first = Number(values.from)
let change = first
for (; change <= Number(values.to); change++) {
  const child = begin('change', `kill.js?at=${change}`)
  if ((await child.ended) === 0) break
  assert.match(child.output(), /saving to/)
  await finish('change')
}
rmSync(at('change'), { recursive: true, force: true })
if (values.to === 'Infinity') assert.ok(change > 40, `only ${change - 1} changes`)
if (change > first)
  console.log(`killed before each of the changes ${first} to ${change - 1} of the files: the same bits each time`)

const random = new Random(Number(values.seed))
let kills = 0
for (let i = 0; i < Number(values.runs); i++) {
  for (let over = false; !over; ) {
    const child = begin('random')
    await child.until(/compiling kernels/)
    // A training takes about a second from here; all but the first epoch may take several attempts.
    const timer = setTimeout(() => child.signal('SIGKILL'), random.integer(0, 1500))
    const code = await child.ended
    clearTimeout(timer)
    over = code !== null
    if (!over) kills++
    else assert.is(code, 0, child.output())
  }
  assertSameRun(at('random'), at('whole'))
  rmSync(at('random'), { recursive: true })
}
console.log(`${kills} kills at random moments of ${values.runs} trainings: the same bits each time`)
remove()
