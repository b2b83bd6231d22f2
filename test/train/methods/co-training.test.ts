// Co-training: its losses are PyTorch's, it resumes with the same bits, and keeps the best weights of each member.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { openModel, readModel } from '#dist/train/checkpoint/load-model.js'
import { type Config, loadConfig, withAbsolutePaths } from '#dist/train/config/load.js'
import { evaluationSamples, readList } from '#dist/train/data/dataset.js'
import { UserError } from '#dist/train/error.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { createDisplay } from '#dist/train/logging/terminal.js'
import { changedSettings, fingerprintOf } from '#dist/train/run/fingerprint.js'
import { MemoryPlanner } from '#dist/train/run/memory-choice.js'
import { train } from '#dist/train/run/training.js'
import { passes } from '../../golden/report.js'
import { runTrajectory } from '../../golden/trajectory.js'
import { messageOf } from '../../support/messages.js'
import { nullDevice } from '../../support/null-device.js'
import { assertSameRun } from '../../support/same-run.js'
import { tinyData } from '../../support/tiny-run.js'

const { folder, config: file, remove } = await tinyData('co-training')
const device = await open()
test.after(() => {
  remove()
  device.destroy()
})

const residual =
  'planes: [4, 4, 8, 8], blocks: [1, 1, 1, 1], expansion: 2, reduce_channels: 4, aspp_channels: 8, fuse_channels: 8'
const members = {
  cnn: `{kind: cnn, dilations: [1, 2, 3], model: {stem: [4, 4, 8], ${residual}}}`,
  dct: `{kind: dct, dilations: [1, 2, 3], model: {${residual}}}`,
  segformer:
    '{kind: segformer, backbone: mit_b0, model: {embed_dims: [4, 8, 12, 16], depths: [1, 1, 1, 1], ' +
    'num_heads: [1, 2, 3, 4], mlp_ratio: 2, head_channels: 8}}',
}

const configOf = (list: string, ...overrides: string[]): Config =>
  loadConfig(file, ['method=co-training', 'model={}', `members=[${list}]`, ...overrides])

const three = [members.cnn, members.dct, members.segformer].join(', ')
const printed: string[] = []
const display = createDisplay({ write: (text) => printed.push(text) })

const into = (name: string, config: Config, more: { resume?: string; maxIterations?: number } = {}) =>
  train(device, { config, savePath: join(folder, name), tune: false, display, ...more })

interface Evaluation {
  readonly miou: number
  readonly model: string
  readonly others: Readonly<Record<string, number>>
}

/** Results of each member by validation. */
function resultsOf(name: string): Readonly<Record<string, number>>[] {
  const lines = readFileSync(join(folder, name, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
  const events = lines.map((line) => JSON.parse(line) as { event: string })
  const evaluations = events.filter(({ event }) => event === 'evaluation') as unknown as Evaluation[]
  return evaluations.map(({ miou, model, others }) => ({ [model]: miou, ...others }))
}

for (const amp of device.traits.half ? [false, true] : [false]) {
  const precision = amp ? ', in half precision' : ''
  test(`three steps of three members, labels gated as published, agree with PyTorch${precision}`, async () => {
    const run = await runTrajectory(device, 'test/fixtures/co-training', { amp })
    const results = run.checks.flatMap(({ iteration, results }) =>
      results.map((result) => ({ ...result, name: `iteration ${iteration}: ${result.name}` })),
    )
    // In half precision losses and learning rates.
    assert.is(results.length, 3 * (amp ? 14 : 23))
    assert.equal(
      results.filter((result) => !passes(result)),
      [],
    )
    run.trainer.destroy()
    run.model.store.destroy()
  })
}

test('each member is validated, its best weights are kept, and the best of all', async () => {
  const config = configOf(three)
  await into('whole', config)
  const results = resultsOf('whole')
  assert.is(results.length, 2)
  const best = readSafetensors(join(folder, 'whole', 'best.safetensors'))
  const all = results.flatMap((each) => Object.values(each))
  assert.is(JSON.parse(best.metadata.miou ?? ''), Math.max(...all))
  for (const name of ['cnn', 'dct', 'segformer']) {
    const path = join(folder, 'whole', `best-${name}.safetensors`)
    const own = Math.max(...results.map((each) => each[name] ?? Number.NaN))
    assert.is(JSON.parse(readSafetensors(path).metadata.miou ?? ''), own, name)
    // The configuration of the training is that of each of its members.
    const model = openModel(device, readModel(path, config))
    const evaluator = new Evaluator(device, model, { mode: config.eval_mode })
    const list = readList(config.val_id_path ?? '', config.data_root, 'required')
    const { miou } = await evaluator.evaluate(evaluationSamples(list, config))
    assert.is(miou, own, name)
    evaluator.destroy()
    model.store.destroy()
  }
  assert.match(printed.join(''), /mIoU \d+\.\d+ of (cnn|dct|segformer)/)
  assert.match(printed.join(''), /\(x cnn \d\.\d+, u cnn \d\.\d+, x dct/)
})

test('it resumes with the same bits, and with the best results so far', async () => {
  const config = configOf(three)
  await into('cut', config, { maxIterations: 3 })
  const files = readdirSync(join(folder, 'cut')).filter((name) => /^best-/.test(name))
  assert.is(files.length, 3)
  await into('cut', config, { resume: join(folder, 'cut', 'latest.safetensors') })
  assertSameRun(join(folder, 'cut'), join(folder, 'whole'))
  assert.equal(resultsOf('cut'), resultsOf('whole'))
  for (const name of files) {
    const [a, b] = ['cut', 'whole'].map((run) => readSafetensors(join(folder, run, name)))
    assert.equal(a?.metadata.miou, b?.metadata.miou)
    for (const [key, { data }] of b?.tensors ?? []) assert.equal(a?.tensors.get(key)?.data, data, `${name}: ${key}`)
  }
})

test('a new run in the same folder leaves nothing of the one before', async () => {
  const config = configOf([members.cnn, members.segformer].join(', '), 'epochs=1')
  await train(device, { config, savePath: join(folder, 'cut'), overwrite: true, tune: false, display })
  assert.ok(existsSync(join(folder, 'cut', 'best-segformer.safetensors')))
  assert.not.ok(existsSync(join(folder, 'cut', 'best-dct.safetensors')))
})

test('two of a kind have names of their own, and members may read coefficients alone', async () => {
  await into('twins', configOf(`${members.dct}, ${members.dct}`, 'epochs=1'))
  assert.equal(Object.keys(resultsOf('twins')[0] ?? {}).sort(), ['dct', 'dct2'])
})

test('members that make no training are refused in one line', async () => {
  const refusal = (list: string, ...overrides: string[]) => messageOf(() => configOf(list, ...overrides), UserError)
  assert.match(
    await refusal(members.cnn),
    /'members' is .*, expected two members or more, such as \[cnn, dct, segformer\]$/,
  )
  assert.match(await refusal('cnn, vit'), /'members\.1\.kind' is "vit", .*"cnn"\|"dct"\|"segformer"/)
  assert.match(
    await refusal('cnn, {kind: segformer, backbone: resnet50}'),
    /the member segformer of 'members' has the backbone resnet50, which is one of the kind cnn: choose another/,
  )
  assert.match(
    await refusal('cnn, {kind: dct, backbone: resnet50}'),
    /the member dct of 'members' has the backbone resnet50, which is one of the kind cnn/,
  )
  assert.match(
    await refusal('cnn, {kind: segformer, model: {num_heads: [3, 1, 1, 1]}}'),
    /does not fit segformer with mit_b2: num_heads/,
  )
  assert.match(await refusal('cnn, segformer', 'crop_size=17'), /'crop_size' is 17, but the model needs 29 at least/)
  assert.match(
    await refusal('cnn, segformer', 'activation_checkpointing=[entry]'),
    /has entry, but the stages of the models are stem, layer1, .*, stage1, /,
  )
  const one = await messageOf(() => into('one', configOf(three, 'batch_size=1')), UserError)
  assert.match(one, /batch_size 1: the strong view of one image .*: use at least 2$/)
})

test('a resumed run has the same members, wherever their pretrained weights lie', () => {
  const lists = { labeled: [], unlabeled: [], validation: [] }
  const withWeights = (path: string) => configOf(`${members.cnn.replace('}}', `}, pretrained: ${path}}`)}, segformer`)
  const [a, b] = [withWeights('a.pth'), withAbsolutePaths(withWeights('b.pth'))]
  assert.match(JSON.stringify(b), /"pretrained":"\/.*b\.pth"/)
  const changes = (now: Config) => changedSettings(fingerprintOf(a, lists), fingerprintOf(now, lists))
  assert.equal(changes({ ...b, data_root: a.data_root }).forbidden, [])
  assert.equal(changes(configOf('cnn, segformer')).forbidden, ['members'])
})

test('its memory is planned, with stages of all members', async () => {
  const image = { width: 60, height: 40, data: new Uint8Array(60 * 40 * 3) }
  const planner = new MemoryPlanner(nullDevice({}), { config: configOf(three), image, keepBefore: false })
  assert.equal(planner.stages.slice(0, 5), ['stem', 'layer1', 'layer2', 'layer3', 'layer4'])
  const whole = await planner.alternative(planner.first)
  const again = await planner.alternative({ ...planner.first, stages: ['stage1', 'layer1'] })
  assert.ok(again.bytes < whole.bytes && again.time > 1, `${again.bytes} of ${whole.bytes} bytes, ${again.time}`)
})

test.run()
