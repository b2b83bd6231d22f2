// Trainings with Dual Teacher and AdamW: resumed, with any number of threads, with threads that end, refused.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { start } from '../../support/child.js'
import { assertSameRun } from '../../support/same-run.js'
import { tinyData } from '../../support/tiny-run.js'

const { folder, data, trainArgs, trainInto, remove } = await tinyData('dual-teacher')
test.after(remove)

// Two iterations in an epoch: it is one pass over the labeled images.
const lists = ['labeled.txt', 'val.txt'].map((name) => readFileSync(join(data, name), 'utf8').trim())
writeFileSync(join(data, 'more-labeled.txt'), `${lists.join('\n')}\n`)
const settings = [
  ...['--method', 'dual-teacher', '--set', 'epochs=3', '--set', 'optimizer=adamw', '--set', 'lr=0.001'],
  ...['--set', 'lr_schedule.warmup_iterations=2', '--set', 'model.drop_path_rate=0.3'],
  ...['--set', 'dual_teacher.resize.short_side=40', '--set', 'dual_teacher.max_class_share=0.75'],
  ...['--set', 'dual_teacher.photometric_distortion=true'],
  ...['--labeled-id-path', join(data, 'more-labeled.txt')],
]
const args = (name: string, ...more: string[]) => trainArgs(name, ...settings, ...more)
const trained = (name: string, ...more: string[]) => trainInto(name, ...settings, ...more)
const at = (name: string) => join(folder, name)

test.before(() => {
  const { code, errors } = trained('whole')
  assert.is(code, 0, errors.join('\n'))
})

test('a checkpoint holds both teachers and both averages of gradients', () => {
  const { tensors, metadata } = readSafetensors(join(at('whole'), 'latest.safetensors'))
  assert.is(metadata.iteration, '6')
  for (const name of ['exp_avg', 'exp_avg_sq', 'stores/teacher1', 'stores/teacher2']) {
    assert.ok(tensors.has(`${name}/classifier.weight`), name)
  }
  assert.not.ok(tensors.has('momentum/classifier.weight'))
  const log = readFileSync(join(at('whole'), 'log.jsonl'), 'utf8')
  for (const name of ['loss_mix', 'loss_ic', 'ic_ratio', 'mix_weight']) assert.match(log, `"${name}":`)
})

test('a run interrupted in the middle of an epoch goes on with the same bits', async () => {
  const child = start('train.js', args('interrupted'))
  await child.until(/epoch 2\/3 1\/2/)
  child.signal('SIGINT')
  assert.is(await child.ended, 130, child.output())
  const { code, errors } = trained('interrupted', '--resume', join(at('interrupted'), 'latest.safetensors'))
  assert.is(code, 0, errors.join('\n'))
  assertSameRun(at('interrupted'), at('whole'))
})

test('the same bits with more threads, and where one ends while it mixes images', async () => {
  const { code, errors } = trained('threads', '--set', 'workers=4')
  assert.is(code, 0, errors.join('\n'))
  assertSameRun(at('threads'), at('whole'))
  const child = start('train.js', args('ended-once', '--set', 'workers=1'), ['mixing.js?how=end-once'])
  assert.is(await child.ended, 0, child.output())
  assert.match(child.output(), /a loader thread ended \(exit code 7\) while it read .*the mixed view of .*: read again/)
  assertSameRun(at('ended-once'), at('whole'))
})

test('images that cannot be mixed end the run with a line', async () => {
  const child = start('train.js', args('ended', '--set', 'workers=2'), ['mixing.js?how=end'])
  assert.is(await child.ended, 1, child.output())
  assert.match(
    child.output(),
    /error: cannot make the mixed view of .*: it ends the thread that makes it \(exit code 7\)/,
  )
})

test('what the method or its optimizer cannot do is refused', () => {
  const parts = trained('parts', '--set', 'micro_batch=1')
  assert.is(parts.code, 1)
  assert.match(
    parts.errors.join('\n'),
    /micro_batch 1: images of a whole batch are mixed with one another: leave it out/,
  )
  const single = trained('single', '--set', 'batch_size=1')
  assert.is(single.code, 1)
  assert.match(single.errors.join('\n'), /batch_size 1: .*use at least 2/)
  const sgd = trained('whole', '--set', 'optimizer=sgd', '--resume', join(at('whole'), 'latest.safetensors'))
  assert.is(sgd.code, 1)
  assert.match(sgd.errors.join('\n'), /was trained with another optimizer, without which its weights mean nothing/)
  const rate = trained('rate', '--set', 'optimizer.betas=[0.9, 1]')
  assert.is(rate.code, 1)
  assert.match(rate.errors.join('\n'), /'optimizer\.betas\.1' is 1, /)
})

test.run()
