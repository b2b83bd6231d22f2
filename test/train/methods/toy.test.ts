// A method that is not in the table trains, resumes, logs and is evaluated, with nothing of it known elsewhere.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { openModel, readModel } from '#dist/train/checkpoint/load-model.js'
import { loadConfig } from '#dist/train/config/load.js'
import { evaluationSamples, readList } from '#dist/train/data/dataset.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { createDisplay } from '#dist/train/logging/terminal.js'
import { registerMethod } from '#dist/train/methods/index.js'
import { train } from '#dist/train/run/training.js'
import { assertSameRun } from '../../support/same-run.js'
import { tinyData } from '../../support/tiny-run.js'
import { toy } from '../../support/toy-method.js'

const { folder, config: file, remove } = await tinyData('toy')
const device = await open()
test.after(() => {
  remove()
  device.destroy()
})
registerMethod(toy)
const config = loadConfig(file, ['method=toy'])
const printed: string[] = []
const display = createDisplay({ write: (text) => printed.push(text) })

const into = (name: string, more: { resume?: string; maxIterations?: number; overrides?: string[] } = {}) => {
  const { overrides = [], ...options } = more
  const settings = overrides.length > 0 ? loadConfig(file, ['method=toy', ...overrides]) : config
  return train(device, { config: settings, savePath: join(folder, name), tune: false, display, ...options })
}

test('it trains, and its metric is on the terminal, in the log, in the report and in TensorBoard', async () => {
  await into('whole')
  const lines = readFileSync(join(folder, 'whole', 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
  const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  const steps = events.filter(({ event }) => event === 'train')
  assert.is(steps.length, 6)
  for (const { total_loss: total, loss_x: labeled, loss_toy: toy } of steps) {
    assert.ok(Number(toy) > 0)
    assert.ok(Math.abs(Number(labeled) + Number(toy) - Number(total)) < 1e-5)
  }
  assert.match(printed.join(''), /\(x \d\.\d+, toy \d\.\d+\)/)
  assert.match(printed.join(''), /mIoU \d+\.\d+.*; student \d+\.\d+/)
  const evaluation = events.find(({ event }) => event === 'evaluation')
  assert.type((evaluation?.others as Record<string, unknown> | undefined)?.student, 'number')
  assert.match(readFileSync(join(folder, 'whole', 'report.html'), 'utf8'), /"label":"toy"/)
  const file = readdirSync(join(folder, 'whole')).find((name) => name.includes('tfevents')) ?? ''
  assert.ok(readFileSync(join(folder, 'whole', file)).includes('train/Toy'))
})

test('the teacher is in the checkpoint, is what is validated, and is what best.safetensors holds', async () => {
  const latest = readSafetensors(join(folder, 'whole', 'latest.safetensors')).tensors
  const best = readSafetensors(join(folder, 'whole', 'best.safetensors'))
  const name = 'classifier.weight'
  assert.ok(latest.has(`stores/teacher/${name}`))
  assert.not.equal(latest.get(`stores/teacher/${name}`)?.data, latest.get(name)?.data)
  assert.not.ok([...best.tensors.keys()].some((key) => /^(stores|momentum)/.test(key)))
  const model = openModel(device, readModel(join(folder, 'whole', 'best.safetensors'), config))
  const evaluator = new Evaluator(device, model, { mode: config.eval_mode })
  const list = readList(config.val_id_path ?? '', config.data_root, 'required')
  const { miou } = await evaluator.evaluate(evaluationSamples(list, config))
  assert.is(miou, JSON.parse(best.metadata.miou ?? ''))
  evaluator.destroy()
  model.store.destroy()
})

test('it resumes with the same bits, in half precision too', async () => {
  for (const overrides of device.traits.half ? [[], ['amp=true']] : [[]]) {
    const name = ['cut', ...overrides].join(' ')
    const whole = overrides.length > 0 ? `whole ${name}` : 'whole'
    if (!existsSync(join(folder, whole))) await into(whole, { overrides })
    await into(name, { maxIterations: 3, overrides })
    const { interrupted } = await into(name, { resume: join(folder, name, 'latest.safetensors'), overrides })
    assert.not.ok(interrupted)
    assertSameRun(join(folder, name), join(folder, whole))
  }
})

test('a name is taken once', () => {
  assert.throws(() => registerMethod(toy), /there is a method 'toy' already/)
  assert.throws(() => loadConfig(file, ['method=other']), /'method' is "other", expected one of .*"toy"/)
})

test.run()
