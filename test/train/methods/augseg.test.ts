import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { type Spec, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { loadConfig } from '#dist/train/config/load.js'
import type { Config } from '#dist/train/config/schema.js'
import { UserError } from '#dist/train/error.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { type AugSegSettings, augsegLearningRate, teacherDecay } from '#dist/train/methods/augseg.js'
import { labelsWithConfidence, thresholdedLoss } from '#dist/train/methods/augseg-losses.js'
import { firstModelOf } from '#dist/train/methods/index.js'
import {
  boxRange,
  drawMixing,
  labelInjection,
  mixingInputs,
  mixingValues,
} from '#dist/train/methods/label-injection.js'
import { Random } from '#dist/train/random.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import { checkBatches } from '#dist/train/trainer/micro-batches.js'
import { randomBatch } from '../../../bench/random-field.js'
import { Random as Draws } from '../../../cases/case.js'
import { passes } from '../../golden/report.js'
import { runTrajectory } from '../../golden/trajectory.js'
import { messageOf } from '../../support/messages.js'
import { assertSameRun } from '../../support/same-run.js'
import { skipUnless } from '../../support/skip.js'
import { tinyData } from '../../support/tiny-run.js'

const device = await open()
const { folder, config: file, trainInto, remove } = await tinyData('augseg')
const halfTest = skipUnless(device.traits.half, 'the adapter has no shader-f16')
test.after(() => {
  remove()
  device.destroy()
})

test('four recorded steps, of which the last averages the teacher, agree with PyTorch', async () => {
  const run = await runTrajectory(device, 'test/fixtures/augseg')
  const results = run.checks.flatMap(({ iteration, results }) =>
    results.map((result) => ({ ...result, name: `iteration ${iteration}: ${result.name}` })),
  )
  assert.is(run.rows.length, 4)
  assert.is(results.length, 4 * 9)
  assert.equal(
    results.filter((result) => !passes(result)),
    [],
  )
  run.trainer.destroy()
  run.model.store.destroy()
})

const [images, size] = [4, 16]
const area = size * size
const random = new Random(7)
const bytes = (count: number): Uint8Array => Uint8Array.from({ length: count }, () => random.integer(0, 250))
const batch = {
  own: bytes(images * area * 3),
  labeled: bytes(images * area * 3),
  label: Uint32Array.from(bytes(images * area)),
  target: bytes(images * area),
  confidence: Float32Array.from({ length: images * area }, () => random.uniform()),
  ofImages: Float32Array.of(0.2, 0.5, 0.7, 0.9),
}
const maps = [images, size, size]
const specs: Record<string, Spec> = {
  ...{ own: spec([...maps, 3], 'u8'), labeled: spec([...maps, 3], 'u8') },
  ...{ label: spec(maps, 'u32'), target: spec(maps, 'u8'), confidence: spec(maps), ofImages: spec([images]) },
  ...mixingInputs(images, [size, size]),
}
const mixingDraws = {
  mix: [0.4],
  permutation: [2, 0, 3, 1],
  // Image 2 equals the confidence, which is enough.
  needed_confidence: [0.6, 0.4, Math.fround(0.7), 0.95],
  label_lambda: [0.6],
  label_centers: [3, 4, 8, 8, 15, 2, 6, 12],
  patch_lambda: [0.3],
  patch_centers: [9, 5, 2, 14, 7, 7, 13, 10],
}

/** Boxes and rules of the mixing, pixel by pixel. */
function mixedByHand(
  own: ArrayLike<number>,
  labeled: (image: number, at: number) => number,
  channels: number,
): number[] {
  const { permutation: source, needed_confidence: needed } = mixingDraws
  const at = (image: number, pixel: number, c: number) => (image * area + pixel) * channels + c
  const isIn = (lambda: number, centers: readonly number[], image: number, pixel: number) =>
    [Math.floor(pixel / size), pixel % size].every((place, axis) => {
      const half = Math.floor(Math.floor(size * Math.sqrt(1 - lambda)) / 2)
      const center = centers[2 * image + axis] ?? 0
      return place >= center - half && place < center + half
    })
  const injected = (image: number, pixel: number, c: number): number => {
    const isUnsure = (needed[image] ?? 0) > (batch.ofImages[image] ?? 0)
    const isLabeled = isUnsure && isIn(mixingDraws.label_lambda[0] ?? 0, mixingDraws.label_centers, image, pixel)
    return isLabeled ? labeled(source[image] ?? 0, at(0, pixel, c)) : (own[at(image, pixel, c)] ?? 0)
  }
  return Array.from({ length: images * area * channels }, (_, i) => {
    const [image, pixel, c] = [Math.floor(i / (area * channels)), Math.floor(i / channels) % area, i % channels]
    const isMixed = isIn(mixingDraws.patch_lambda[0] ?? 0, mixingDraws.patch_centers, image, pixel)
    return isMixed ? injected(source[image] ?? 0, pixel, c) : (own[i] ?? 0)
  })
}

test('patches hold labels where the teacher is unsure, and nothing is mixed twice', async () => {
  const program = await compile(device, specs, (t) => {
    const tensor = (name: string) => t[name] as NonNullable<(typeof t)[string]>
    const { mix, holdsLabels } = labelInjection(t, tensor('ofImages'))
    return {
      image: mix(tensor('own'), tensor('labeled')),
      label: mix(tensor('label'), tensor('target')),
      confidence: mix(tensor('confidence'), 1),
      holdsLabels,
    }
  })
  program.run({ ...batch, ...mixingValues(mixingDraws, [size, size], 0.5) })
  const byHand = {
    image: mixedByHand(batch.own, (image, at) => batch.labeled[image * area * 3 + at] ?? 0, 3),
    label: mixedByHand(batch.label, (image, at) => batch.target[image * area + at] ?? 0, 1),
    confidence: mixedByHand(batch.confidence, () => 1, 1),
    holdsLabels: [0, 1, 1, 0],
  }
  const names = ['image', 'label', 'confidence', 'holdsLabels'] as const
  assert.equal(
    (await program.readAll(names)).map((values) => Array.from(values)),
    Object.values(byHand),
  )
  // At `cutmix_prob` the draw is not below it.
  program.run({ ...batch, ...mixingValues(mixingDraws, [size, size], 0.4) })
  const unmixed = await program.readAll(['image', 'label', 'confidence'])
  assert.equal(
    unmixed.map((values) => Array.from(values)),
    [batch.own, batch.label, batch.confidence].map((values) => Array.from(values)),
  )
  program.destroy()
})

test('the confidence of an image falls with the entropy of its pixels', async () => {
  const logits = Float32Array.from({ length: 2 * 3 * 3 * 4 }, (_, i) => (i < 36 ? 0 : 3 * random.normal()))
  const program = await compile(device, { logits: spec([2, 3, 3, 4]) }, (t) => {
    const { label, confidence, ofImages } = labelsWithConfidence(t.logits)
    return { label, confidence, ofImages }
  })
  program.run({ logits })
  const pixels = Array.from({ length: 18 }, (_, pixel) => {
    const scores = Array.from(logits.subarray(4 * pixel, 4 * pixel + 4), Math.exp)
    const total = scores.reduce((a, b) => a + b)
    const p = scores.map((score) => score / total)
    const entropy = -p.reduce((sum, value) => sum + value * Math.log(value), 0)
    return { label: p.indexOf(Math.max(...p)), certainty: (1 - entropy / Math.log(4)) * Math.max(...p) }
  })
  const [label = [], ofImages = []] = await program.readAll(['label', 'ofImages'])
  assert.equal(
    Array.from(label),
    pixels.map((pixel) => pixel.label),
  )
  assert.ok(Math.abs(ofImages[0] ?? 1) < 1e-6)
  const second = pixels.slice(9).reduce((sum, { certainty }) => sum + certainty, 0) / 9
  assert.ok(Math.abs((ofImages[1] ?? 0) - second) < 1e-6, `${ofImages[1]} instead of ${second}`)
  program.destroy()
})

test('the loss of unlabeled images is divided by all pixels', async () => {
  const inputs = { logits: spec([1, 2, 2, 2]), label: spec([1, 2, 2], 'u32'), confidence: spec([1, 2, 2]) }
  const program = await compile(device, inputs, (t) => ({
    ...thresholdedLoss(t.logits, { label: t.label, confidence: t.confidence }, { threshold: 0.95, ignoreIndex: 255 }),
  }))
  program.run({
    logits: Float32Array.of(0, 0, 0, 0, 0, 0, 0, 0),
    label: Uint32Array.of(0, 1, 255, 1),
    // The first reaches the threshold, as float32.
    confidence: Float32Array.of(0.95, 0.9499, 1, 1),
  })
  const [loss, ratio] = [await program.read('loss'), await program.read('ratio')]
  assert.ok(Math.abs((loss?.[0] ?? 0) - Math.LN2 / 2) < 1e-6, `${loss}`)
  assert.equal(Array.from(ratio ?? []), [0.5])
  program.destroy()
})

test('boxes are of an even side, cut off at the border', () => {
  assert.equal(boxRange(513, 0.9784846305847168, 102), [65, 139])
  assert.equal(boxRange(65, 0.7207346558570862, 11), [0, 28])
  assert.equal(boxRange(800, 0.2927042543888092, 697), [361, 800])
  assert.equal(boxRange(65, 0.9998999834060669, 30), [30, 30])
})

test('what is drawn for a batch stays in its ranges, and λ is of the beta distributions', () => {
  const sums = { label: 0, patch: 0, labelSquares: 0, patchSquares: 0 }
  const count = 4000
  const places = new Set<number>()
  for (let i = 0; i < count; i++) {
    const draws = drawMixing(new Random(3, i), 3, [33, 33])
    assert.equal([...Array.from(draws.permutation ?? [])].sort(), [0, 1, 2])
    const [label, patch] = [draws.label_lambda?.[0] ?? 0, draws.patch_lambda?.[0] ?? 0]
    sums.label += label / count
    sums.patch += patch / count
    sums.labelSquares += label ** 2 / count
    sums.patchSquares += patch ** 2 / count
    for (const name of ['label_centers', 'patch_centers']) {
      const centers = Array.from(draws[name] ?? [])
      assert.is(centers.length, 6)
      for (const center of centers) places.add(center)
    }
  }
  assert.equal([Math.min(...places), Math.max(...places)], [4, 32])
  // Beta(8, 2) and Beta(4, 4): means 0.8 and 0.5, variances 16 / 1100 and 16 / 576.
  assert.ok(Math.abs(sums.label - 0.8) < 0.008 && Math.abs(sums.patch - 0.5) < 0.01)
  assert.ok(Math.abs(sums.labelSquares - sums.label ** 2 - 16 / 1100) < 0.0015)
  assert.ok(Math.abs(sums.patchSquares - sums.patch ** 2 - 16 / 576) < 0.002)
})

test('the teacher is a copy through the first semi-supervised epoch, and the learning rate falls from the second step on', () => {
  const decays = (settings: { sup_only_epoch: number; ema_decay: number }, ...iterations: number[]) =>
    iterations.map((iteration) => teacherDecay(iteration, 3, settings))
  assert.equal(decays({ sup_only_epoch: 1, ema_decay: 0.88 }, 0, 3, 5, 6, 7, 11), [0, 0, 0, 0.75, 0.8, 0.88])
  assert.equal(decays({ sup_only_epoch: 0, ema_decay: 0.999 }, 2, 3), [0, 0.75])
  assert.is(augsegLearningRate(0.01, 0, 15), 0.01)
  assert.is(augsegLearningRate(0.01, 1, 15), 0.01 * (14 / 15) ** 0.9)
})

const settings = [
  'method=augseg',
  'epochs=3',
  'augseg.sup_only_epoch=1',
  'augseg.threshold=0.4',
  'augseg.ema_decay=0.9',
]
const sized = ['augseg.resize={base: 48, ratio: [0.5, 2]}', 'augseg.extra_weak=true']
const changes = [...settings, ...sized].flatMap((setting) => ['--set', setting])

test('a run warms up, and resumes with the same bits on other numbers of threads', () => {
  const into = (name: string, ...args: string[]) => {
    const { code, errors } = trainInto(name, ...changes, ...args)
    assert.is(code, 0, errors.join('\n'))
  }
  into('whole', '--set', 'workers=1')
  into('cut', '--set', 'workers=3', '--max-iters', '4')
  into('cut', '--set', 'workers=2', '--max-iters', '8', '--resume', join(folder, 'cut', 'latest.safetensors'))
  into('cut', '--set', 'workers=1', '--resume', join(folder, 'cut', 'latest.safetensors'))
  assertSameRun(join(folder, 'cut'), join(folder, 'whole'))

  const lines = readFileSync(join(folder, 'whole', 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
  const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  const steps = events.filter(({ event }) => event === 'train')
  assert.is(steps.length, 9)
  for (const [i, step] of steps.entries()) {
    assert.is('loss_u' in step, i >= 3)
    const unlabeled = i < 3 ? 0 : Number(step.loss_u)
    assert.ok(Math.abs(Number(step.loss_x) + unlabeled - Number(step.total_loss)) < 1e-5)
    if (i < 3) continue
    assert.ok(Number(step.confidence) > 0 && Number(step.confidence) < 1)
    assert.ok(Number(step.mask_ratio) > 0 && Number(step.mask_ratio) <= 1)
  }
  const evaluation = events.findLast(({ event }) => event === 'evaluation')
  assert.type((evaluation?.others as Record<string, unknown> | undefined)?.student, 'number')
})

test('the teacher is saved beside the student, and differs from it once it averages', () => {
  const { tensors } = readSafetensors(join(folder, 'whole', 'latest.safetensors'))
  for (const name of ['classifier.weight', 'backbone.bn1.running_mean']) {
    const [student, teacher] = [tensors.get(name), tensors.get(`stores/teacher/${name}`)]
    assert.ok(student && teacher)
    assert.not.equal(teacher.data, student.data)
  }
})

const read = (path: string, ...overrides: string[]) =>
  loadConfig(path, overrides) as Config & { readonly augseg: AugSegSettings }

test('settings that AugSeg cannot train with are refused, by their names', async () => {
  const messageOfSetting = (...overrides: string[]) =>
    messageOf(() => read(file, 'method=augseg', ...overrides), UserError)
  assert.match(
    await messageOfSetting('augseg.resize.ratio=[2, 1]'),
    /'augseg\.resize\.ratio' is \[2,1\], expected the smaller/,
  )
  const base =
    /'augseg\.resize' is .*, expected a base of \[height, width\] for the kind scale, and of one number for long/
  assert.match(await messageOfSetting('augseg.resize.kind=scale'), base)
  assert.match(await messageOfSetting('augseg.resize.base=[48, 48]'), base)
  assert.match(await messageOfSetting('augseg.resize.base=0'), /'augseg\.resize\.base' is 0, .*>=1/)
  assert.match(await messageOfSetting('augseg.threshold=2'), /'augseg\.threshold' is 2, .*<=1/)
  const config = read(file, 'method=augseg')
  const withOne = (warmUp: number) => {
    const own = { ...config.augseg, sup_only_epoch: warmUp }
    return checkBatches({ ...config, batch_size: 1, augseg: own } as never, (what) => new Error(what))
  }
  assert.throws(() => withOne(1), /^batch_size 1: in the warm-up one image gives the batch norm .*: use at least 2$/)
  withOne(0)

  const model = createModel(new Store(device, 'model'), firstModelOf(config))
  const uneven = { iterationsPerEpoch: 3, labeled: 2, unlabeled: 3, height: 33, width: 33 }
  assert.match(
    await messageOf(() => createTrainer(device, model, config, uneven)),
    /augseg mixes labeled with unlabeled images: a batch needs as many of each, not 2 and 3/,
  )
  model.store.destroy()
})

halfTest('a step that half precision skips leaves the teacher as it is', async () => {
  const config = read(file, 'method=augseg')
  const model = createModel(new Store(device, 'model'), firstModelOf(config), new Random(2, 0, 6))
  const sizes = { iterationsPerEpoch: 3, labeled: 2, unlabeled: 2, height: 33, width: 33 }
  const trainer = await createTrainer(device, model, config, { ...sizes, amp: true })
  const data = randomBatch(trainer.layout, 2, 33, 6, new Draws('a batch'))
  const teacher = trainer.run.stores?.teacher
  assert.ok(teacher)
  const before = await teacher.readAll()
  trainer.lossScale?.restore({ scale: 2 ** 100, goodSteps: 0, skippedSteps: 0 })
  assert.is((await trainer.step(data)).skipped_steps, 1)
  assert.equal(await teacher.readAll(), before)
  trainer.lossScale?.restore({ scale: 2 ** 8, goodSteps: 0, skippedSteps: 1 })
  assert.is((await trainer.step(data)).skipped_steps, 1)
  assert.not.equal(await teacher.readAll(), before)
  trainer.destroy()
  model.store.destroy()
})

test('the published settings are those of the configurations', () => {
  const [pascal, cityscapes] = ['pascal', 'cityscapes'].map((name) => read(`configs/augseg-${name}.yaml`))
  const shared = { sup_only_epoch: 0, loss_weight: 1, extra_weak: false, cutmix_prob: 1, strong_num: 3 }
  const published = [
    {
      ...{ crop_size: 513, nclass: 21, epochs: 80, batch_size: 16, lr: 0.001, lr_multi: 10, weight_decay: 1e-4 },
      criterion: { name: 'CELoss', kwargs: { ignore_index: 255 } },
      augseg: {
        ...{ ...shared, threshold: 0.95, ema_decay: 0.999 },
        resize: { kind: 'long_side', base: 500, ratio: [0.5, 2] },
      },
      ...{ eval_mode: 'original', amp: false },
    },
    {
      ...{ crop_size: 800, nclass: 19, epochs: 240, batch_size: 16, lr: 0.01, lr_multi: 1, weight_decay: 5e-4 },
      criterion: { name: 'OHEM', kwargs: { ignore_index: 255, thresh: 0.7, min_kept: 4 * 100_000 } },
      augseg: {
        ...{ ...shared, threshold: -0.7, ema_decay: 0.996 },
        resize: { kind: 'scale', base: [1024, 2048], ratio: [0.5, 2] },
      },
      ...{ eval_mode: 'sliding_window', amp: false },
    },
  ]
  for (const [i, config] of [pascal, cityscapes].entries()) {
    const expected = published[i] ?? {}
    const actual = Object.fromEntries(Object.keys(expected).map((key) => [key, config?.[key as keyof typeof config]]))
    assert.equal(actual, expected)
  }
  // Those of Pascal are the defaults.
  const { augseg: defaults } = read(file, 'method=augseg')
  assert.equal(defaults, pascal?.augseg)
})

test.run()
