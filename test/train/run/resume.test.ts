import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { start } from '../../support/child.js'
import { assertSameRun, previousOf } from '../../support/same-run.js'
import { tinyData } from '../../support/tiny-run.js'

const { folder, trainArgs, trainInto, remove } = await tinyData('resume')
test.after(remove)
const long = ['--set', 'epochs=4']

/** Starts a training and sends it a signal when `when` appears in its output. */
async function interrupted(name: string, signal: NodeJS.Signals, when: RegExp) {
  const child = start('train.js', trainArgs(name, ...long))
  await child.until(when)
  child.signal(signal)
  return { code: await child.ended, output: child.output() }
}

/** The log without what depends on the clock. */
function logOf(name: string): unknown[] {
  const lines = readFileSync(join(folder, name, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
  return lines.map((line) => {
    const { seconds: _, data: __, ...rest } = JSON.parse(line) as Record<string, unknown>
    return rest
  })
}

function assertSame(name: string): void {
  assert.equal(logOf(name), logOf('whole'))
  assertSameRun(join(folder, name), join(folder, 'whole'))
}

function resume(name: string): void {
  const { code, errors } = trainInto(name, ...long, '--resume', join(folder, name, 'latest.safetensors'))
  assert.is(code, 0, errors.join('\n'))
}

test.before(() => {
  const { code, errors } = trainInto('whole', ...long)
  assert.is(code, 0, errors.join('\n'))
  assert.ok(previousOf(join(folder, 'whole')).length > 0, 'the run kept no previous model: resuming them is not tested')
})

test('a run killed in the middle of an epoch goes on with the same bits', async () => {
  await interrupted('killed', 'SIGKILL', /epoch 3\/4 2\/3/)
  assert.ok(logOf('killed').length > logOf('whole').length / 2)
  resume('killed')
  assertSame('killed')
})

test('a run killed in its validation has the epoch, and goes on with the same bits', async () => {
  // The third image of the second of four validations of three images each.
  const child = start('train.js', trainArgs('validating', ...long), ['kill-validating.js?at=6'])
  await child.ended
  const { metadata } = readSafetensors(join(folder, 'validating', 'latest.safetensors'))
  assert.equal([metadata.iteration, metadata.validationDue], ['6', 'true'])
  resume('validating')
  assertSame('validating')
  // The one before is that of an epoch before, whether the run was killed or not.
  const before = (name: string) => readSafetensors(join(folder, name, 'latest.bak.safetensors')).metadata.iteration
  assert.equal([before('validating'), before('whole')], ['9', '9'])
})

test('a validation that fails leaves the weights of its epoch', async () => {
  const child = start('train.js', trainArgs('failing', ...long), ['kill-validating.js?at=1&then=memory'])
  assert.is(await child.ended, 4, child.output())
  assert.match(child.output(), /error: out of GPU memory.*the last good checkpoint is .* of iteration 3; to resume: /)
  resume('failing')
  assertSame('failing')
})

test('an interrupted run finishes its step, says how to resume, and resumes with the same bits', async () => {
  const { code, output } = await interrupted('stopped', 'SIGINT', /epoch 2\/4 2\/3/)
  assert.is(code, 130)
  assert.match(output, /to resume: node dist\/train\.js --config .*--resume .*latest\.safetensors/)
  resume('stopped')
  assertSame('stopped')
})

test('a run resumes with its own settings only', () => {
  const { code, errors } = trainInto(
    'whole',
    '--resume',
    join(folder, 'whole', 'latest.safetensors'),
    '--set',
    'epochs=5',
  )
  assert.is(code, 1)
  assert.match(errors.join('\n'), /another epochs/)
})

test.run()
