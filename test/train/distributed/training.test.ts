// Trainings by several ranks, all of them in this process.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { findAdapters, open } from '#dist/engine/node.js'
import { batchOfRank, gpuOf } from '#dist/ranks.js'
import { openModel, readModel } from '#dist/train/checkpoint/load-model.js'
import { loadConfig } from '#dist/train/config/load.js'
import { evaluationSamples, readList } from '#dist/train/data/dataset.js'
import { singleProcess } from '#dist/train/distributed/group.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { Agreement, checkSameCalls, seedOfRank } from '#dist/train/run/agreement.js'
import type { TrainingOptions } from '#dist/train/run/run.js'
import { train } from '#dist/train/run/training.js'
import { localRanks } from '../../support/local-ranks.js'
import { messageOf } from '../../support/messages.js'
import { assertSameRun } from '../../support/same-run.js'
import { tinyData } from '../../support/tiny-run.js'

const { folder, data, config: file, remove } = await tinyData('ranks')
const device = await open()
test.after(() => {
  remove()
  device.destroy()
})

const display = { live: false, status: () => {}, line: () => {}, close: () => {} }

/** Trains with two ranks, whose settings may differ. */
function onRanks(
  name: string,
  options: Partial<TrainingOptions>,
  settings: readonly string[],
  ofSecond: readonly string[] = settings,
) {
  const groups = localRanks(2)
  return Promise.all(
    groups.map((group, rank) => {
      const config = loadConfig(file, ['batch_size=1', ...(rank === 0 ? settings : ofSecond)])
      return train(device, { config, savePath: join(folder, name), tune: false, display, group, ...options })
    }),
  )
}

const eventsOf = (name: string): Record<string, unknown>[] =>
  readFileSync(join(folder, name, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

/** The log without what depends on the clock. */
const logOf = (name: string) => eventsOf(name).map(({ seconds: _, data: __, ...rest }) => rest)
const evaluationOf = (name: string) => eventsOf(name).findLast(({ event }) => event === 'evaluation')

const latestOf = (name: string) => join(folder, name, 'latest.safetensors')

test('two ranks train, and a run that was stopped goes on with the same bits', async () => {
  const images = readFileSync(join(data, 'unlabeled.txt'), 'utf8').trim().split('\n')
  const list = join(folder, 'eight.txt')
  writeFileSync(list, [...images, ...images.slice(0, 2)].join('\n'))
  const settings = [`unlabeled_id_path=${list}`]
  await onRanks('whole', {}, settings)
  const steps = eventsOf('whole').filter(({ event }) => event === 'train')
  // Eight unlabeled images are four for each rank, and a batch is one.
  assert.is(steps.length, 8)
  const controller = new AbortController()
  const stopping = { ...display, line: (line: string) => (/^epoch 2\/2 1\/4/.test(line) ? controller.abort() : {}) }
  const stopped = await onRanks('parts', { signal: controller.signal, display: stopping }, settings)
  // The line is that of the fifth step; the ranks agree on the sixth, when the seventh is submitted.
  assert.equal(
    stopped.map(({ iterations, interrupted }) => ({ iterations, interrupted })),
    [7, 7].map((iterations) => ({ iterations, interrupted: true })),
  )
  await onRanks('parts', { resume: latestOf('parts') }, settings)
  assert.equal(logOf('parts'), logOf('whole'))
  assertSameRun(join(folder, 'parts'), join(folder, 'whole'))
})

test('the validation that the ranks share counts each image once, or fills the last round up', async () => {
  const config = loadConfig(file)
  const model = openModel(device, readModel(latestOf('whole'), config))
  const evaluator = new Evaluator(device, model, { mode: config.eval_mode })
  const list = readList(config.val_id_path ?? '', config.data_root, 'required')
  const { miou } = await evaluator.evaluate(evaluationSamples(list, config))
  assert.is(evaluationOf('whole')?.miou, miou)
  evaluator.destroy()
  model.store.destroy()
  await onRanks('padded', { maxIterations: 1 }, ['pad_validation=true'])
  assert.not.equal(evaluationOf('padded')?.share, evaluationOf('whole')?.share)
})

test('a run goes on with another number of ranks, and says what differs', async () => {
  await onRanks('fewer', { maxIterations: 3 }, [])
  const lines: string[] = []
  await train(device, {
    config: loadConfig(file, ['batch_size=1']),
    savePath: join(folder, 'fewer'),
    tune: false,
    display: { ...display, line: (line) => lines.push(line) },
    resume: latestOf('fewer'),
    maxIterations: 7,
  })
  assert.match(lines.join('\n'), /from here on 1 rank instead of 2 ranks: a step takes other images/)
  // The first epoch is done, which has twice as many steps now.
  assert.match(lines.join('\n'), /resuming .* after iteration 6/)
})

const residual =
  'planes: [4, 4, 8, 8], blocks: [1, 1, 1, 1], expansion: 2, reduce_channels: 4, aspp_channels: 8, fuse_channels: 8'
const member = `{kind: cnn, dilations: [1, 2, 3], model: {stem: [4, 4, 8], ${residual}}}`

for (const [method, settings] of [
  ['augseg', ['sync_batchnorm=false']],
  ['co-training', ['batch_size=2', 'model={}', `members=[${member}, ${member}]`]],
] as const) {
  test(`two ranks train by ${method}, with what it keeps beside the first model`, async () => {
    await onRanks(method, { maxIterations: 2 }, [`method=${method}`, 'epochs=2', ...settings])
    const losses = eventsOf(method).filter(({ event }) => event === 'train')
    assert.is(losses.length, 2)
    for (const { total_loss: loss } of losses) assert.ok(Number(loss) > 0)
  })
}

test('ranks that would train differently are refused', async () => {
  const differing = onRanks('differing', {}, ['lr=0.1', 'seed=3'], ['lr=0.2', 'seed=3'])
  assert.match(
    await messageOf(() => differing),
    /^rank 1 of 2 \(here\) has lr 0\.2 instead of 0\.1, unlike rank 0: start all ranks with the same options/,
  )
  const [a, b] = localRanks(2)
  if (!a || !b) throw new Error('unreachable: there are two ranks')
  const calls = Promise.all([checkSameCalls(a, ['moments f32[3, 8]']), checkSameCalls(b, ['sum f32[8]'])])
  assert.match(
    await messageOf(() => calls),
    /^rank 1 of 2 \(here\) would exchange 'sum f32\[8\]' where rank 0 exchanges 'moments f32\[3, 8\]'/,
  )
})

test('one rank says what is not finite, and all stop at the same step', async () => {
  const controller = new AbortController()
  const groups = localRanks(3)
  const agreements = groups.map((group, rank) => new Agreement(group, rank === 2 ? controller.signal : undefined))
  const after = (broken: readonly Parameters<Agreement['after']>[0][]) =>
    Promise.all(agreements.map((agreement, rank) => agreement.after(broken[rank])))
  assert.equal(await after([]), [undefined, undefined, undefined])
  const [update, loss] = [
    { what: 'the update gave NaN', loss: false },
    { what: 'loss_x is NaN', loss: true },
  ]
  assert.equal(
    await after([update, loss, update]),
    [false, true, false].map((isOwn) => ({ what: 'loss_x is NaN', isOwn })),
  )
  controller.abort()
  assert.equal(
    agreements.map(({ stopped }) => stopped),
    [false, false, false],
  )
  await after([])
  assert.equal(
    agreements.map(({ stopped }) => stopped),
    [true, true, true],
  )
  // A process by itself stops at once.
  assert.ok(new Agreement(singleProcess(), controller.signal).stopped)
})

test('the ranks of a machine take the adapters of a list in turn, and parts of a batch', async () => {
  const [a, b, c] = localRanks(3)
  if (!a || !b || !c) throw new Error('unreachable: there are three ranks')
  const names = await Promise.all([a, b, c].map((group) => gpuOf('nvidia, intel', group)))
  assert.equal(names, ['nvidia', 'intel', 'nvidia'])
  assert.is(await gpuOf(undefined, b), undefined)
  const [first] = await findAdapters()
  assert.is(await gpuOf('0', b), first?.summary.device)
  assert.match(await messageOf(() => gpuOf('0,97', b)), /^--gpu 97: there .* numbered from 0; see doctor$/)
  assert.is(batchOfRank(12, b), 4)
  assert.is(await messageOf(() => batchOfRank(8, b)), '--global-batch 8 is no multiple of the 3 ranks')
})

test('each rank draws by a seed of its own, the first one by that of the run', () => {
  const seeds = [0, 1, 2, 3].map((rank) => seedOfRank(5, rank))
  assert.is(seeds[0], 5)
  assert.is(new Set([...seeds, seedOfRank(6, 1)]).size, 5)
  for (const seed of seeds) assert.ok(Number.isSafeInteger(seed))
})

test.run()
