// memory: what is chosen fits, no more than it must, and stays when a run is resumed.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Config } from '#dist/train/config/load.js'
import { withOverrides } from '#dist/train/config/load.js'
import { UserError } from '#dist/train/error.js'
import {
  type Alternative,
  alternativesTable,
  type MemoryChoice,
  MemoryPlanner,
  withChoice,
} from '#dist/train/run/memory-choice.js'
import { planRun } from '#dist/train/run/plan-run.js'
import { settleMemory, tooLittle } from '#dist/train/run/settle-memory.js'
import { stepModels } from '../../../cases/steps.js'
import { start } from '../../support/child.js'
import { messageOf } from '../../support/messages.js'
import { type NullAdapter, nullDevice } from '../../support/null-device.js'
import { assertSameRun } from '../../support/same-run.js'
import { tinyData } from '../../support/tiny-run.js'

const image = { width: 60, height: 40, data: new Uint8Array(60 * 40 * 3) }
const stages = ['stem', 'layer1', 'layer2', 'layer3', 'layer4', 'head', 'decoder']

const configOf = (...overrides: string[]): Config => {
  const { nclass, model } = stepModels.small
  const given = { nclass, model, crop_size: 65, batch_size: 4, epochs: 1, lr: 0.01, prev: { list_max_len: 2 } }
  return withOverrides(given, overrides, 'the test')
}

const plannerOf = (config: Config, adapter: NullAdapter = {}): MemoryPlanner =>
  new MemoryPlanner(nullDevice(adapter), { config, image, keepBefore: false })

const show = ({ choice }: Alternative): string => JSON.stringify(choice)

/** Kinds of trainings; what is planned once is known to all tests. */
const kinds = [
  ['float32', configOf('method=supervised'), {}],
  [
    'half precision left open on a CPU driver',
    configOf('method=supervised', 'batch_size=2', 'amp=auto'),
    { half: true },
  ],
] as const
const planners = kinds.map(([, config, adapter]) => plannerOf(config, adapter))

for (const [i, [name, config, adapter]] of kinds.entries()) {
  test(`${name}: the more memory, the earlier the alternative, and what is chosen is what takes so much`, async () => {
    const planner = planners[i] ?? plannerOf(config, adapter)
    const all = await planner.all()
    const sizes = all.map(({ bytes }) => bytes)
    const limits = [...new Set(sizes.flatMap((bytes) => [bytes - 1, bytes]))].sort((a, b) => b - a)
    const order = all.map(show)
    let before = -1
    for (const limit of limits) {
      const chosen = await planner.choose(limit)
      const place = chosen ? order.indexOf(show(chosen)) : order.length
      assert.ok(place >= before && (chosen === undefined || place >= 0), `${limit} bytes`)
      // The first of all that fit.
      assert.is(
        place < order.length ? place : -1,
        sizes.findIndex((bytes) => bytes <= limit),
      )
      before = place
      if (!chosen) continue
      assert.ok(chosen.bytes <= limit)
      if (place % 7 !== 0) continue
      const settled = { ...withChoice(config, chosen.choice), amp: chosen.choice.half }
      const { use } = await planRun(nullDevice(adapter), { config: settled, image, keepBefore: false })
      assert.is(use.peak, chosen.bytes)
    }
    assert.is(before, order.length, 'less than the least was not asked for')
    assert.is((await planner.least()).bytes, Math.min(...sizes))
  })
}

test('what computes the same bits comes first, half precision next, parts of the batch last', async () => {
  const [plain = [], half = []] = await Promise.all(planners.map((planner) => planner.all()))
  const levels = (all: Alternative[]) => all.map(({ choice: { half, micro } }) => `${micro}${half ? ' half' : ''}`)
  assert.equal([...new Set(levels(plain))], ['4', '2'])
  assert.equal([...new Set(levels(half))], ['2', '2 half'])
  const open = configOf('method=supervised', 'activation_checkpointing=[]', 'amp=auto')
  assert.equal(levels(await plannerOf(open, { half: true }).all()), ['4', '4 half', '2', '2 half'])
  const first = plain.filter(({ choice }) => choice.micro === 4)
  assert.equal(
    first.map(({ choice }) => choice.stages.length),
    [0, 1, 2, 3, 4, 5, 6, 7],
  )
  for (const [i, { choice, time }] of first.entries()) {
    const before = first[i - 1]
    if (!before) continue
    assert.ok(before.choice.stages.every((stage) => choice.stages.includes(stage)))
    assert.ok(time > before.time)
  }
  assert.is(first[0]?.time, 1)
  assert.equal(first.at(-1)?.choice.stages, stages)
  assert.equal(planners[0]?.stages, stages)
  // A forward pass more is about a third of a step more.
  assert.ok((first.at(-1)?.time ?? 0) < 1.4)
})

test('half precision is taken where amp asks for it, and chosen where amp leaves it open', async () => {
  const halves = async (amp: string, adapter: NullAdapter) => {
    const all = await plannerOf(
      configOf('method=supervised', `amp=${amp}`, 'micro_batch=4', 'activation_checkpointing=[]'),
      adapter,
    ).all()
    return all.map(({ choice }) => choice.half)
  }
  const gpu = { half: true, software: false }
  assert.equal(await halves('false', gpu), [false])
  assert.equal(await halves('true', gpu), [true])
  assert.equal(await halves('auto', gpu), [true])
  assert.equal(await halves('auto', { half: true }), [false, true])
  assert.equal(await halves('auto', {}), [false])
  assert.equal(await halves('true', {}), [false])
})

test('what is set stays', async () => {
  const fixed = await plannerOf(configOf('method=supervised', 'activation_checkpointing=[layer2]')).all()
  assert.equal(
    fixed.map(({ choice }) => [choice.stages, choice.micro]),
    [4, 2].map((micro) => [['layer2'], micro]),
  )
  const config = configOf('micro_batch=2', 'activation_checkpointing=[layer2]', 'amp=true')
  const all = await plannerOf(config).all()
  assert.is(all.length, 1)
  assert.equal(withChoice(config, all[0]?.choice ?? (fixed[0]?.choice as MemoryChoice)), config)
})

test('the alternatives are a table with a mark at the choice', async () => {
  const planner = plannerOf(configOf('activation_checkpointing=[]'))
  const all = await planner.all()
  const table = alternativesTable(planner, all, all[1])
  assert.match(table[0] ?? '', /^ +planned +time {2}settings$/)
  assert.match(table[1] ?? '', /^ {2} +[\d.]+ MiB +1\.00 {2}nothing computed again, the batch taken whole$/)
  assert.match(table[2] ?? '', /^\* +[\d.]+ MiB +1\.\d\d {2}micro_batch: 2$/)
  assert.match(table[3] ?? '', /^ {2} +[\d.]+ MiB +1\.\d\d {2}micro_batch: 1$/)
})

test('what the adapter cannot bind is refused, however much memory there may be', async () => {
  const options = { config: configOf('memory=1GiB'), image, keepBefore: false }
  const settled = settleMemory(nullDevice({ bindingLimit: 1000 }), options, false, () => {})
  assert.match(
    await messageOf(() => settled, UserError),
    /is too large: this adapter binds at most 0\.0 MiB at once: use /,
  )
})

test('too little memory is told with the least that would do, and what takes it', async () => {
  const [planner] = planners
  if (!planner) throw new Error('there is a planner')
  const { message } = await tooLittle(nullDevice(), planner, { config: kinds[0][1], image, keepBefore: false }, '1MiB')
  const head =
    /^memory 1MiB is too little: the least is ([\d.]+) MiB, with activation_checkpointing: \[.*\], micro_batch: 2, /
  assert.match(message, head)
  assert.match(message, /where ([\d.]+ MiB are [^;]+; ){3}[^;]+: reduce crop_size or what else takes most$/)
  assert.is(head.exec(message)?.[1], ((await planner.least()).bytes / 2 ** 20).toFixed(1))
  const config = configOf('method=supervised', 'memory=1MiB', 'micro_batch=4', 'activation_checkpointing=[]')
  const options = { config, image, keepBefore: false }
  const fixed = await messageOf(() => settleMemory(nullDevice({ half: true }), options, false, () => {}), UserError)
  assert.match(
    fixed,
    /with nothing computed again, the batch taken whole, where .*: leave activation_checkpointing and /,
  )
  assert.match(fixed, /and micro_batch open, or allow half precision \(amp: auto\), or reduce crop_size/)
})

const { folder, config: file, trainArgs, trainInto, remove } = await tinyData('memory')
test.after(remove)

const settings = (name: string) => readFileSync(join(folder, name, 'config.yaml'), 'utf8')
const latest = (name: string) => join(folder, name, 'latest.safetensors')

test('a run takes no more than it may, and resumes with what it chose and the same bits', async () => {
  const limit = 2 ** 20
  const whole = ['--set', 'activation_checkpointing=[]']
  const child = start('train.js', trainArgs('whole', ...whole, '--memory', '1MiB'), ['count-memory.js'])
  assert.is(await child.ended, 0, child.output())
  const line =
    /^memory 1MiB: .*micro_batch: 1; ([\d.]+) MiB planned instead of 1\.\d MiB, 1\.\d\d times the time of a step /m
  assert.match(child.output(), line)
  const peak = Number(/peak of memory: (\d+)/.exec(child.output())?.[1])
  assert.ok(peak > 0.9 * limit && peak <= limit, `${peak} bytes taken`)
  assert.match(settings('whole'), /^micro_batch: 1$/m)
  assert.match(settings('whole'), /^memory: 1MiB$/m)

  const cut = trainInto('cut', ...whole, '--memory', '1MiB', '--max-iters', '3')
  assert.is(cut.code, 0, cut.errors.join('\n'))
  const written = settings('cut')
  const resumed = trainInto('cut', ...whole, '--memory', '1MiB', '--resume', latest('cut'))
  assert.is(resumed.code, 0, resumed.errors.join('\n'))
  assert.not.match(resumed.stdout, /planning what fits|from here on/)
  assertSameRun(join(folder, 'cut'), join(folder, 'whole'))
  assert.is(settings('cut'), written)

  const more = trainInto('cut', ...whole, '--memory', '4MiB', '--set', 'epochs=3', '--resume', latest('cut'))
  assert.is(more.code, 0, more.errors.join('\n'))
  assert.match(more.stdout, /^memory 4MiB: nothing computed again, the batch taken whole; 1\.\d MiB planned$/m)
  assert.match(more.stdout, /from here on epochs 3 instead of 2; micro_batch none instead of 1\n/)
  assert.match(settings('cut'), /^memory: 4MiB$/m)
  assert.not.match(settings('cut'), /^micro_batch/m)
})

test('stages that were chosen are kept, though another adapter would choose others', () => {
  const args = ['--memory', '1MiB', '--method', 'supervised', '--set', 'crop_size=65']
  const begun = trainInto('stages', ...args, '--max-iters', '1')
  assert.is(begun.code, 0, begun.errors.join('\n'))
  assert.match(begun.stdout, /^memory 1MiB: activation_checkpointing: \[.+\]; /m)
  const chosen = settings('stages')
  assert.match(chosen, /^activation_checkpointing:\n {2}- /m)
  const resumed = trainInto('stages', ...args, '--set', 'epochs=3', '--resume', latest('stages'))
  assert.is(resumed.code, 0, resumed.errors.join('\n'))
  assert.not.match(resumed.stdout, /planning what fits/)
  const list = (text: string) => /^activation_checkpointing:\n(?: {2}- .*\n)+/m.exec(text)?.[0]
  assert.is(list(settings('stages')), list(chosen))
})

test('--dry-run shows the alternatives and marks the choice', () => {
  const fits = trainInto('dry', '--dry-run', '--memory', '1MiB', '--set', 'activation_checkpointing=[]')
  assert.is(fits.code, 0, fits.errors.join('\n'))
  const rows = fits.stdout.match(/^[ *] +[\d.]+ MiB +\d\.\d\d {2}.*$/gm) ?? []
  assert.is(rows.length, 2)
  assert.match(rows[0] ?? '', /^ +1\.\d MiB +1\.00 {2}nothing computed again, the batch taken whole$/)
  assert.match(rows[1] ?? '', /^\* +[01]\.\d MiB +1\.\d\d {2}micro_batch: 1$/)
  assert.match(
    fits.stdout,
    /^memory 1MiB: micro_batch: 1; [01]\.\d MiB planned instead of 1\.\d MiB, 1\.\d\d times the time of /m,
  )
  assert.match(fits.stdout, /MiB {2}sums of gradients over the parts of a batch\n.*step in 2 parts\n/)
  const fixed = ['--set', 'micro_batch=2', '--set', 'activation_checkpointing=[]']
  const little = trainInto('dry', '--dry-run', '--memory', '100MB', '--set', 'crop_size=801', ...fixed)
  assert.is(little.code, 1)
  assert.match(little.errors.join('\n'), /^error: memory 100MB is too little: the least is [\d.]+ MiB, with .*$/)
  const wrong = trainInto('dry', '--memory', '8')
  assert.is(wrong.code, 1)
  assert.match(
    wrong.errors.join('\n'),
    /--memory <size>.* '8' is invalid.*expects a size such as 8GiB, 800MiB, 8GB or /,
  )
  assert.not(existsSync(join(folder, 'dry')))
  assert.ok(existsSync(file))
})

test.run()
