import { cpSync, readFileSync } from 'node:fs'
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

for (const [signal, expected] of [
  ['SIGINT', 130],
  ['SIGHUP', 129],
] as const) {
  test(`${signal}: an interrupted run finishes its step, says how to resume, and resumes with the same bits`, async () => {
    const { code, output } = await interrupted(signal, signal, /epoch 2\/4 2\/3/)
    assert.is(code, expected)
    assert.match(output, /to resume: node dist\/train\.js --config .*--resume .*latest\.safetensors/)
    resume(signal)
    assertSame(signal)
  })
}

test('a finished run has nothing to do, and trains longer with more epochs', () => {
  cpSync(join(folder, 'whole'), join(folder, 'longer'), { recursive: true })
  const latest = join(folder, 'longer', 'latest.safetensors')
  const done = trainInto('longer', ...long, '--resume', latest)
  assert.is(done.code, 0, done.errors.join('\n'))
  assert.match(
    done.stdout,
    /all 12 iterations are done, best mIoU [\d.]+; to train longer: .* --resume .* --set epochs=8\n/,
  )
  const more = trainInto('longer', '--set', 'epochs=5', '--set', 'lr=0.001', '--resume', latest)
  assert.is(more.code, 0, more.errors.join('\n'))
  assert.match(more.stdout, /from here on epochs 5 instead of 4; lr 0\.001 instead of 0\.01\n/)
  const [changed, ...steps] = logOf('longer').slice(logOf('whole').length) as Record<string, unknown>[]
  assert.equal(changed, {
    ...{ event: 'settings', iteration: 12 },
    changes: ['epochs 5 instead of 4', 'lr 0.001 instead of 0.01'],
  })
  const rate = steps.find(({ event }) => event === 'train')?.lr
  assert.ok(Math.abs(Number(rate) - 0.001 * (1 - 11 / 15) ** 0.9) < 1e-12, `${rate}`)
  assert.match(readFileSync(join(folder, 'longer', 'config.yaml'), 'utf8'), /^epochs: 5$/m)
})

test('settings without which the weights mean nothing must stay', () => {
  const latest = join(folder, 'whole', 'latest.safetensors')
  const { code, errors } = trainInto('whole', ...long, '--method', 'unimatch', '--resume', latest)
  assert.is(code, 1)
  assert.match(errors.join('\n'), /was trained with another method, without which its weights mean nothing/)
})

test('a batch can be skipped', () => {
  cpSync(join(folder, 'whole'), join(folder, 'skipping'), { recursive: true })
  const resumed = ['--set', 'epochs=5', '--resume', join(folder, 'skipping', 'latest.safetensors')]
  const many = trainInto('skipping', ...resumed, '--skip-iterations', '4')
  assert.is(many.code, 1)
  assert.match(many.errors.join('\n'), /^error: --skip-iterations 4: the epoch has 3 more, so that at most 3 can be/m)
  const { code, stdout, errors } = trainInto('skipping', ...resumed, '--skip-iterations', '2')
  assert.is(code, 0, errors.join('\n'))
  assert.match(stdout, /skipping the iterations 13 to 14\n.*epoch 5\/5 3\/3 .*\nepoch 5\/5: mIoU/s)
  assert.not.match(stdout, /epoch 5\/5 1\/3/)
})

test.run()
