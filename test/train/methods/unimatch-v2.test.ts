import { appendFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { loadConfig } from '#dist/train/config/load.js'
import type { Config } from '#dist/train/config/schema.js'
import { type Batch, bytesOf } from '#dist/train/data/batch.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { complementaryMultipliers } from '#dist/train/methods/complementary-dropout.js'
import { firstModelOf } from '#dist/train/methods/index.js'
import { meanTeacherDecay } from '#dist/train/methods/mean-teacher.js'
import { mixReversed } from '#dist/train/methods/unimatch-v2.js'
import { Random } from '#dist/train/random.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import type { Trainer } from '#dist/train/trainer/trainer.js'
import { passes } from '../../golden/report.js'
import { type RunOptions, runsOf, runTrajectory } from '../../golden/trajectory.js'
import { assertSameRun } from '../../support/same-run.js'
import { skipUnless } from '../../support/skip.js'
import { smallDinoV2 } from '../../support/small-dinov2.js'
import { tinyData } from '../../support/tiny-run.js'

const test = suite('UniMatch V2')
const device = await open()
const { folder, config: file, trainInto, remove } = await tinyData('unimatch-v2')
const halfTest = skipUnless(device.traits.half, 'the adapter has no shader-f16')
const { nclass: _, ...widths } = smallDinoV2
// The sections of a residual network have no place beside it.
const plain = readFileSync(file, 'utf8')
  .split('\n')
  .filter((line) => !/^(model|dilations|prev|crop_size|lr|conf_thresh):/.test(line))
const settings = [
  ...plain,
  'method: unimatch-v2',
  'crop_size: 42',
  'lr: 0.003',
  'lr_multi: 40',
  'weight_decay: 0.01',
  'optimizer: adamw',
  'conf_thresh: 0.3',
  'unimatch_v2: { ema_decay: 0.7 }',
  'backbone: dinov2-small',
  `model: ${JSON.stringify(widths)}`,
]
const ownFile = join(folder, 'unimatch-v2.yaml')
appendFileSync(ownFile, settings.join('\n'))
test.after(() => {
  remove()
  device.destroy()
})

const fixture = 'test/fixtures/unimatch-v2'
const runs = runsOf(fixture)

async function failuresOf(options: RunOptions): Promise<{ results: number; failures: unknown[] }> {
  const run = await runTrajectory(device, fixture, options)
  const results = run.checks.flatMap(({ iteration, results }) =>
    results.map((result) => ({ ...result, name: `iteration ${iteration}: ${result.name}` })),
  )
  assert.is(run.rows.length, 4)
  run.trainer.destroy()
  run.model.store.destroy()
  return { results: results.length, failures: results.filter((result) => !passes(result)) }
}

for (const run of runs) {
  test(`four recorded steps agree with PyTorch${run.label ? `, ${run.label}` : ''}`, async () => {
    assert.equal(await failuresOf({ run }), { results: 4 * 9, failures: [] })
  })
}

halfTest('in half precision the losses differ by 1 % at most', async () => {
  const { results, failures } = await failuresOf({ amp: true })
  assert.ok(results >= 4 * 5)
  assert.equal(failures, [])
})

test('each channel lives in one of two views, and the first half of the images in both', () => {
  const bits = [1, 0, 0, 1, 1, 1]
  // Of three images one is spared, the first of the permutation.
  const expected = [
    [2, 0, 1, 1, 2, 2],
    [0, 2, 1, 1, 0, 0],
  ]
  assert.equal(Array.from(complementaryMultipliers(bits, [1, 2, 0])), expected.flat())
  assert.equal(Array.from(complementaryMultipliers([1, 0], [0])), [2, 0, 0, 2])
})

test('images are mixed with the batch in reverse order, and the one in the middle with itself', async () => {
  const program = await compile(device, { x: spec([3, 1, 2]), box: spec([3, 1, 2], 'u8') }, ({ x, box }) => ({
    y: mixReversed(x, box),
  }))
  program.run({ x: Float32Array.of(0, 1, 2, 3, 4, 5), box: Uint8Array.of(1, 0, 1, 1, 0, 1) })
  assert.equal(Array.from(await program.read('y')), [4, 1, 2, 3, 4, 1])
  program.destroy()
})

test('the teacher begins as a copy, and keeps more and more of itself', () => {
  assert.equal(
    [0, 1, 3, 249, 5000].map((iteration) => meanTeacherDecay(iteration, 0.996)),
    [0, 0.5, 0.75, 0.996, 0.996],
  )
})

const trained = (name: string, ...args: string[]) => {
  const { code, errors } = trainInto(name, '--config', ownFile, ...args)
  assert.is(code, 0, errors.join('\n'))
}
const latest = (run: string): string => join(folder, run, 'latest.safetensors')

test('a run resumes with the same bits on other numbers of threads, and scores student and teacher', () => {
  // So that the best weights are those behind the last epoch, and not of where it was cut.
  const into = (name: string, ...args: string[]) => trained(name, '--set', 'epochs=3', ...args)
  into('whole', '--set', 'workers=1')
  into('cut', '--set', 'workers=3', '--max-iters', '4')
  into('cut', '--set', 'workers=2', '--resume', latest('cut'))
  assertSameRun(join(folder, 'cut'), join(folder, 'whole'))

  const lines = readFileSync(join(folder, 'whole', 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
  const events = lines.map((line) => JSON.parse(line) as Record<string, number & Record<string, unknown>>)
  const steps = events.filter(({ event }) => String(event) === 'train')
  assert.is(steps.length, 9)
  for (const { total_loss = 0, loss_x = 0, loss_s = 0, loss_s1 = 0, loss_s2 = 0 } of steps) {
    assert.ok(Math.abs((loss_x + loss_s) / 2 - total_loss) < 1e-5)
    assert.ok(Math.abs((loss_s1 + loss_s2) / 2 - loss_s) < 1e-5)
  }
  assert.ok(steps.some(({ mask_ratio = 0 }) => mask_ratio > 0))
  const scores = ['student', 'teacher'].map((name) => {
    const { metadata } = readSafetensors(join(folder, 'whole', `best-${name}.safetensors`))
    return Number(metadata.miou)
  })
  // The better one is what is exported.
  const best = readSafetensors(join(folder, 'whole', 'best.safetensors')).metadata
  assert.is(Number(best.miou), Math.max(...scores))
})

const read = (...overrides: string[]) => loadConfig(ownFile, overrides) as Config & Record<string, never>

const crops = { labeled: 2, unlabeled: 2, height: 42, width: 42 }

/** A trainer by the settings, of random weights. */
async function trainerOf(amp: boolean, ...overrides: string[]): Promise<Trainer> {
  const config = read(...overrides)
  const model = createModel(new Store(device, 'model'), firstModelOf(config), new Random(3, 0, 6))
  return createTrainer(device, model, config, { iterationsPerEpoch: 3, amp, ...crops })
}

const random = new Random(5)

/** A batch of random bytes. */
function batchFor({ layout }: Trainer): Batch {
  const mostOf = { label: smallDinoV2.nclass, padding: 1, cutmixBox: 2 } as Readonly<Record<string, number>>
  return Object.fromEntries(
    layout
      .flatMap(({ fields }) => Object.entries(fields))
      .map(([name, field]) => {
        const bytes = new Uint8Array(2 * bytesOf(field, crops.height))
        return [name, bytes.map(() => random.integer(0, mostOf[field.view] ?? 256))]
      }),
  )
}

function destroy(trainer: Trainer): void {
  trainer.destroy()
  trainer.model.store.destroy()
}

test('a locked backbone stays as it is, and nothing is kept for it', async () => {
  const [free, locked] = [await trainerOf(false), await trainerOf(false, 'lock_backbone=true')]
  const inBackward = ({ nodes }: Trainer) =>
    nodes.filter(({ backward, scope }) => backward && scope.includes('backbone.')).length
  assert.ok(inBackward(free) > 0)
  assert.is(inBackward(locked), 0)
  assert.ok(locked.memory.planned < free.memory.planned)
  destroy(free)
  for (const store of locked.optimizerState) {
    assert.ok(store.all().every(({ name }) => name.startsWith('head.')) && store.all().length > 0)
  }
  const before = await locked.model.store.readAll()
  for (let step = 0; step < 3; step++) await locked.step(batchFor(locked))
  for (const { store } of locked.models) {
    const after = await store.readAll()
    for (const [name, values] of before) {
      // What nothing reads is averaged, too.
      if (name.startsWith('head.scratch.refinenet4.resConfUnit1.')) continue
      if (name.startsWith('backbone.')) assert.equal(after.get(name), values, name)
      else assert.not.equal(after.get(name), values, name)
    }
  }
  destroy(locked)
})

halfTest('a step that half precision skips leaves the teacher as it is', async () => {
  const trainer = await trainerOf(true)
  const teacher = trainer.run.stores?.teacher
  const before = await teacher?.readAll()
  trainer.lossScale?.restore({ scale: 2 ** 100, goodSteps: 0, skippedSteps: 0 })
  assert.is((await trainer.step(batchFor(trainer))).skipped_steps, 1)
  assert.equal(await teacher?.readAll(), before)
  trainer.lossScale?.restore({ scale: 2 ** 8, goodSteps: 0, skippedSteps: 1 })
  assert.is((await trainer.step(batchFor(trainer))).skipped_steps, 1)
  assert.not.equal(await teacher?.readAll(), before)
  destroy(trainer)
})

test('another method trains the model, too', async () => {
  const trainer = await trainerOf(false, 'method=prevmatch')
  const { metrics, nonFinite } = await trainer.step(batchFor(trainer))
  assert.equal(nonFinite, [])
  assert.ok((metrics.total_loss ?? 0) > 0)
  destroy(trainer)
})

test('another method trains another model with a locked backbone, whose batch norms stay as they are', async () => {
  const config = { ...loadConfig(file, ['crop_size=42', 'lock_backbone=true']), method: 'unimatch' }
  const model = createModel(new Store(device, 'model'), firstModelOf(config), new Random(3, 0, 6))
  const trainer = await createTrainer(device, model, config, { iterationsPerEpoch: 3, ...crops })
  const before = await model.store.readAll()
  await trainer.step(batchFor(trainer))
  const after = await model.store.readAll()
  const changed = [...before].flatMap(([name, values]) => (String(after.get(name)) === String(values) ? [] : [name]))
  assert.ok(changed.length > 0 && changed.every((name) => !name.startsWith('backbone.')), changed[0])
  const counted = [...model.batchesTracked].filter(([, count]) => count > 0).map(([name]) => name)
  assert.ok(counted.length > 0 && counted.every((name) => !name.startsWith('backbone.')), counted[0])
  destroy(trainer)
})

test.run()
