// A head that is trained on features which are computed once, against a training with a locked encoder.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { cropBatch, cropsOf, placesOf } from '#dist/segmenter/crops.js'
import { EncoderFeatures } from '#dist/segmenter/encoder-features.js'
import { type FineTuneOptions, type FineTuneProgress, type LabeledPicture, Segmenter } from '#dist/segmenter/index.js'
import { contentsOf } from '#dist/train/checkpoint/contents.js'
import { parseConfig } from '#dist/train/config/parse.js'
import { UserError } from '#dist/train/error.js'
import { joinBytes, sourceOf } from '#dist/train/io/byte-source.js'
import { parseSafetensors, safetensorsParts } from '#dist/train/io/safetensors-format.js'
import { supervised } from '#dist/train/methods/supervised.js'
import { Random } from '#dist/train/random.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import { onDevice } from '../support/on-device.js'
import { smallDinoV2 } from '../support/small-dinov2.js'
import { smallModel } from '../support/small-model.js'
import { smallSegFormer } from '../support/small-segformer.js'

const { deviceTest } = await onDevice()
const nclass = 3
const networks = [
  { architecture: 'dpt', widths: smallDinoV2, size: 28 },
  { architecture: 'deeplabv3plus', widths: smallModel, size: 33 },
  { architecture: 'segformer', widths: smallSegFormer, size: 32 },
]

/** A picture whose left half is bright and whose right half is dark, with noise, and the classes of the two. */
function picture(width: number, height: number, seed: number): LabeledPicture {
  const random = new Random(seed)
  const at = Array.from({ length: width * height }, (_, i) => i % width < width / 2)
  const data = at.flatMap((isLeft) => [0, 1, 2].map(() => (isLeft ? 150 : 50) + random.integer(0, 50)))
  return {
    image: { data: Uint8Array.from(data), width, height },
    labels: Uint8Array.from(at, (isLeft) => (isLeft ? 1 : 2)),
  }
}
const samples = [picture(44, 40, 1), picture(30, 62, 2), picture(20, 24, 3)]

const pairs = (pictures: readonly LabeledPicture[]) =>
  pictures.map(({ image: { width, height, data }, labels }) => {
    return { image: { width, height, data: Uint8Array.from(data) }, label: { width, height, data: labels } }
  })

const newModel = (device: Device, { architecture, widths }: (typeof networks)[0]): SegmentationModel =>
  createModel(new Store(device, 'model'), { architecture, config: { ...widths, nclass } }, new Random(3, 0, 0))

async function fileOf(model: SegmentationModel): Promise<Uint8Array> {
  const { tensors, metadata } = await contentsOf(model, {})
  return joinBytes(safetensorsParts(tensors, metadata))
}

const floats = (file: Uint8Array) => parseSafetensors(sourceOf(file, 'weights')).tensors

async function loaded(device: Device, network: (typeof networks)[0]): Promise<[Segmenter, Uint8Array]> {
  const model = newModel(device, network)
  const file = await fileOf(model)
  model.store.destroy()
  return [await Segmenter.load(device, file), file]
}

/** The largest, as a share of the largest value. */
function difference(found: ArrayLike<number>, expected: ArrayLike<number> = []): number {
  const values = Array.from(expected, Math.abs)
  return Math.max(...Array.from(found, (x, i) => Math.abs(x - (expected[i] ?? Number.NaN)))) / Math.max(1e-3, ...values)
}

for (const network of networks) {
  deviceTest(`${network.architecture}: the head learns what it learns beside a locked encoder`, async (device) => {
    const { size } = network
    const [steps, batchSize, learningRate, seed] = [4, 2, 0.05, 0]
    const [segmenter, before] = await loaded(device, network)
    const seen: FineTuneProgress[] = []
    const onProgress = (progress: FineTuneProgress) => void seen.push(progress)
    await segmenter.fineTune(samples, { head: true, steps, batchSize, learningRate, cropSize: size, onProgress })
    const tuned = await segmenter.toBytes()
    segmenter.destroy()

    const model = newModel(device, network)
    const keys = { crop_size: size, batch_size: batchSize, epochs: steps, lr: learningRate, lr_multi: 1, seed }
    const config = parseConfig({ nclass, method: 'supervised', lock_backbone: true, ...keys }, 'test')
    const sizes = { iterationsPerEpoch: 1, labeled: batchSize, unlabeled: batchSize, height: size, width: size }
    const trainer = await createTrainer(device, model, config, sizes)
    const crops = cropsOf(pairs(samples), size, 255)
    const losses: (number | undefined)[] = []
    for (let step = 0; step < steps; step++) {
      const batch = cropBatch(supervised.layout(config as never), crops, placesOf(step, crops.length, batchSize, seed))
      losses.push((await trainer.step(batch)).metrics.total_loss)
    }
    const expected = floats(await fileOf(model))
    trainer.destroy()
    model.store.destroy()

    const ofSteps = seen.filter(({ step }) => step > 0)
    for (const [i, { loss }] of ofSteps.entries()) assert.ok(Math.abs(loss - (losses[i] ?? 0)) < 1e-3 * loss)
    assert.is(ofSteps.length, losses.length)
    const [first, found] = [floats(before), floats(tuned)]
    for (const [name, { data }] of found) {
      // A GPU may compute one crop by another kernel than two, which adds up in another order.
      if (device.adapter.software) assert.equal(data, expected.get(name)?.data, name)
      else assert.ok(difference(data as Float32Array, expected.get(name)?.data as Float32Array) < 1e-3, name)
      if (name.startsWith('backbone.')) assert.equal(data, first.get(name)?.data, name)
    }
    assert.ok([...found].some(([name, { data }]) => String(data) !== String(first.get(name)?.data)))
    const counts = [...new Set(seen.map(({ features }) => features?.computed ?? 0))]
    assert.equal(counts, [...crops.keys(), crops.length], 'each crop goes through the encoder once')
  })
}

deviceTest(
  'features that wait on the host are those of the device, and no step computes an encoder',
  async (device) => {
    const [network] = networks as [(typeof networks)[0]]
    const model = newModel(device, network)
    const crops = cropsOf(pairs([picture(70, 28, 4)]), 28, 255)
    assert.is(crops.length, 8, 'four windows and their mirror images')
    const config = parseConfig(
      {
        nclass,
        method: 'supervised',
        lock_backbone: true,
        crop_size: 28,
        batch_size: 3,
        epochs: 1,
        lr: 0.1,
        lr_multi: 1,
      },
      'test',
    )
    const batch = cropBatch(supervised.layout(config as never), crops, [7, 0, 3])
    const losses: (number | undefined)[] = []
    const mapBytes = 4 * 2 * 2 * smallDinoV2.dim * 4
    for (const deviceBytes of [undefined, 3 * mapBytes, 0]) {
      const encoder = await EncoderFeatures.create(device, model, { size: 28, batchSize: 3, deviceBytes })
      for (const { image } of crops) await encoder.add(image)
      assert.is(encoder.bytes, 8 * mapBytes)
      encoder.finish()
      const sizes = { iterationsPerEpoch: 1, labeled: 3, unlabeled: 3, height: 28, width: 28 }
      const trainer = await createTrainer(device, encoder.model, config, sizes)
      assert.not.ok(trainer.nodes.some(({ scope }) => scope.includes('backbone')))
      encoder.load([7, 0, 3])
      const before = model.store.snapshot('before')
      losses.push((await trainer.step(batch)).metrics.total_loss)
      model.store.copyFrom(before)
      for (const each of [before, trainer, encoder]) each.destroy()
    }
    assert.ok(Number.isFinite(losses[0]))
    assert.equal(losses, [losses[0], losses[0], losses[0]])
    model.store.destroy()
  },
)

deviceTest('the loss falls, and the right classes are found', async (device) => {
  const [segmenter] = await loaded(device, networks[0] as (typeof networks)[0])
  const losses: number[] = []
  const optimizer = { name: 'adamw' }
  const onProgress = ({ step, loss }: FineTuneProgress) => void (step > 0 && losses.push(loss))
  const options = { head: true, steps: 60, learningRate: 0.01, cropSize: 28, settings: { optimizer }, onProgress }
  await segmenter.fineTune(samples, options)
  const [first = 0, last = 0] = [losses[0], losses.at(-1)]
  assert.ok(last < 0.5 * first, `from ${first} to ${last}`)
  const { image, labels } = picture(42, 42, 9)
  const found = (await segmenter.segment(image)).labels
  const right = found.reduce((sum, label, i) => sum + Number(label === labels[i]), 0)
  assert.ok(right > 0.8 * labels.length, `${right} of ${labels.length}`)
  segmenter.destroy()
})

deviceTest('what ends it while features are computed leaves the weights as they were', async (device) => {
  const [segmenter] = await loaded(device, networks[1] as (typeof networks)[0])
  const before = Buffer.from(await segmenter.toBytes())
  const reason = new Error('enough')
  const controller = new AbortController()
  let crops = 0
  const onProgress = ({ features }: FineTuneProgress) => {
    crops = features?.computed ?? 0
    if (crops === 2) controller.abort(reason)
  }
  const options = { head: true, steps: 2, learningRate: 0.1, cropSize: 33, signal: controller.signal, onProgress }
  assert.is(await segmenter.fineTune(samples, options).catch((error: unknown) => error), reason)
  assert.is(crops, 2)
  assert.ok(before.equals(await segmenter.toBytes()))
  const broken = { head: true, steps: 5, learningRate: 1e30, cropSize: 33 }
  const error = await segmenter.fineTune(samples, broken).catch((error: unknown) => error)
  assert.match((error as Error).message, /^fine-tuning: step \d: .*(NaN|infinity|Infinity).*: lower the learning rate/)
  assert.ok(before.equals(await segmenter.toBytes()))
  segmenter.destroy()
})

deviceTest('refuses what does not go with features that are computed once', async (device) => {
  const [segmenter] = await loaded(device, networks[1] as (typeof networks)[0])
  const unlabeled = samples.map(({ image }) => image)
  const cases: [RegExp, Partial<FineTuneOptions>][] = [
    [/leave out 'unlabeled'; or .*lock_backbone: true/, { unlabeled }],
    [/unimatch changes pictures at each step.*lock_backbone: true/, { method: 'unimatch' }],
    [/augseg changes pictures/, { settings: { method: 'augseg' } }],
    [/leave out 'micro_batch'/, { settings: { micro_batch: 2 } }],
    [/leave out 'lock_backbone'/, { settings: { lock_backbone: false } }],
  ]
  for (const [pattern, options] of cases) {
    const tuning = segmenter.fineTune(samples, { head: true, steps: 1, learningRate: 0.1, cropSize: 33, ...options })
    const error = await tuning.catch((error: unknown) => error)
    assert.instance(error, UserError, String(pattern))
    assert.match((error as Error).message, pattern)
  }
  segmenter.destroy()
})

test.run()
