import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { toU32 } from '#dist/kernels/pointwise.js'
import { createModel } from '#dist/models/index.js'
import { mitPresets } from '#dist/models/mit.js'
import { parametersOf } from '#dist/models/segmentation.js'
import { type Config, loadConfig, parseConfig } from '#dist/train/config/load.js'
import type { dualTeacher } from '#dist/train/methods/dual-teacher.js'
import { classMask, confidentBytes } from '#dist/train/methods/dual-teacher-losses.js'
import { epochImages, firstModelOf, modelsOf } from '#dist/train/methods/index.js'
import type { Settings } from '#dist/train/methods/method.js'
import { Random } from '#dist/train/random.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import { learningRateAt } from '#dist/train/trainer/lr-schedule.js'
import { randomBatch } from '../../../bench/random-field.js'
import { Random as Draws } from '../../../cases/case.js'
import { passes } from '../../golden/report.js'
import { checkFinal, finalTensors, runsOf, runTrajectory } from '../../golden/trajectory.js'
import { skipUnless } from '../../support/skip.js'

const device = await open()
test.after(() => device.destroy())

const folder = 'test/fixtures/dual-teacher'

test('an epoch is a pass over the labeled images, unless the configuration says otherwise', () => {
  const method = 'dual-teacher'
  assert.is(epochImages({ method, epoch_of: undefined }), 'labeled')
  assert.is(epochImages({ method, epoch_of: 'unlabeled' }), 'unlabeled')
  assert.is(epochImages({ method: 'prevmatch', epoch_of: undefined }), 'unlabeled')
})

for (const recorded of runsOf(folder)) {
  test(`${recorded.label}: two steps with each teacher agree with PyTorch`, async () => {
    const run = await runTrajectory(device, folder, { run: recorded })
    const results = run.checks.flatMap(({ iteration, results }) =>
      results.map((result) => ({ ...result, name: `iteration ${iteration}: ${result.name}` })),
    )
    const final = checkFinal(folder, run, await finalTensors(run))
    // Twelve quantities and the learning rates.
    assert.is(results.length, 4 * 13)
    assert.is(
      final.some(({ name }) => name === 'exp_avg_sq/classifier.bias'),
      recorded.label === 'adamw',
    )
    assert.equal(
      [...results, ...final].filter((result) => !passes(result)),
      [],
    )
    // Teachers are without stochastic depth.
    const rates = run.trainer.models.map(({ config }) => config.drop_path_rate)
    assert.equal(rates, [recorded.label === 'adamw' ? 0.3 : 0, 0, 0])
    run.trainer.destroy()
    run.model.store.destroy()
  })
}

test('ClassMix takes half of the classes that an image has, rounded down, by their priorities', async () => {
  const shape = [3, 2, 4]
  // Four classes, three classes, one class.
  const label = [0, 1, 2, 4, 4, 2, 1, 0, 3, 3, 3, 0, 0, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]
  const priority = [4, 0, 3, 9, 1, 1, 9, 5, 3, 0, 0, 1, 2, 3, 4]
  const program = await compile(
    device,
    { label: spec(shape, 'u8'), priority: spec([3, 5]), images: spec([3]) },
    ({ label, priority, images }) => ({ mask: classMask(toU32(label), priority, images) }),
  )
  program.run({
    label: Uint8Array.from(label),
    priority: Float32Array.from(priority),
    images: Float32Array.of(0, 1, 2),
  })
  const chosen = [[0, 2], [2], []]
  const expected = label.map((value, i) => Number(chosen[Math.floor(i / 8)]?.includes(value)))
  assert.equal([...(await program.read('mask'))], expected)
  program.destroy()
})

test('a confidence that went through a byte reaches the threshold from the first byte on that does', async () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
  for (const [threshold, first] of [
    [0.95, 243],
    [0.8, 204],
    [1, 255],
    [0, 0],
  ] as const) {
    const program = await compile(device, { bytes: spec([256], 'u8') }, (t) => ({
      out: confidentBytes(t.bytes, threshold),
    }))
    program.run({ bytes })
    assert.is((await program.read('out')).indexOf(1), first)
    program.destroy()
  }
})

const settings = {
  ...{ method: 'dual-teacher', nclass: 6, crop_size: 33, batch_size: 2, epochs: 2, lr: 0.01, dilations: [1, 2, 3] },
  model: {
    ...{ stem: [4, 4, 8], planes: [4, 4, 8, 8], blocks: [1, 1, 1, 1], expansion: 2 },
    ...{ reduce_channels: 4, aspp_channels: 8, fuse_channels: 8 },
  },
}

skipUnless(device.traits.half, 'the adapter has no shader-f16')(
  'the first step of an epoch makes the teacher the student, even where half precision skips it',
  async () => {
    const config = parseConfig(settings, 'the test')
    const model = createModel(new Store(device, 'model'), firstModelOf(config), new Random(2, 0, 6))
    const sizes = { iterationsPerEpoch: 3, labeled: 2, unlabeled: 2, height: 33, width: 33 }
    const trainer = await createTrainer(device, model, config, { ...sizes, amp: true })
    const data = randomBatch(trainer.layout, 2, 33, 6, new Draws('a batch'))
    const teacher = trainer.models[1]
    assert.ok(teacher)
    const names = parametersOf(teacher).map(({ name }) => name)
    const student = await model.store.readAll(names)
    for (const [name, values] of student) teacher.store.write(name, Float32Array.from(values).fill(0.5))
    trainer.lossScale?.restore({ scale: 2 ** 100, goodSteps: 0, skippedSteps: 0 })
    assert.is((await trainer.step(data)).skipped_steps, 1)
    assert.equal(await teacher.store.readAll(names), student)
    trainer.destroy()
    model.store.destroy()
  },
)

test('configs/dual-teacher-ade20k.yaml has the published settings', () => {
  const config = loadConfig('configs/dual-teacher-ade20k.yaml') as Config & Settings<typeof dualTeacher.keys>
  assert.is(config.method, 'dual-teacher')
  assert.equal([config.lr, config.lr_multi, config.weight_decay], [6e-5, 10, 0.01])
  assert.equal(config.optimizer, { name: 'adamw', betas: [0.9, 0.999], eps: 1e-8, norm_decay: 0 })
  assert.equal([config.epochs, config.batch_size, config.crop_size, config.amp], [200, 8, 512, false])
  assert.equal([config.nclass, config.conf_thresh, config.criterion.name], [150, 0.95, 'CELoss'])
  assert.equal(config.dual_teacher, {
    ema_decay: 0.99,
    consistency_weight: 0.2,
    resize: { short_side: 512, ratio: [0.5, 2] },
    max_class_share: 0.75,
    photometric_distortion: true,
  })
  const [model] = modelsOf(config)
  assert.equal([model?.architecture, config.backbone], ['segformer', 'mit_b1'])
  assert.equal(model?.config, { ...mitPresets.mit_b1, nclass: 150, head_channels: 256, head_dropout: 0.1 })
  const iterations = config.epochs * Math.floor(1263 / config.batch_size)
  const rateAt = (t: number) => learningRateAt(1, t, iterations, config.lr_schedule)
  for (const [t, share] of [
    [0, 1e-6],
    [749, 1 - (1 - 749 / 1500) * (1 - 1e-6)],
    [1500, 1 - 1500 / 50000],
    [25000, 0.5],
  ] as const) {
    assert.ok(Math.abs(rateAt(t) - share) < 1e-12, `iteration ${t}`)
  }
  assert.ok(rateAt(iterations - 1) > 0.3, 'it ends before the schedule does')
})

test.run()
