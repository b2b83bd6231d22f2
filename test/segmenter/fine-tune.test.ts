// A model that is trained on from its own weights, on pictures in memory.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { writeScenes } from '#dist/demo/dataset.js'
import type { Device } from '#dist/engine/device.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { type FineTuneOptions, type FineTuneProgress, type LabeledPicture, Segmenter } from '#dist/segmenter/index.js'
import { contentsOf } from '#dist/train/checkpoint/contents.js'
import { readImage, readList, readPair } from '#dist/train/data/dataset.js'
import { UserError } from '#dist/train/error.js'
import { safetensorsParts } from '#dist/train/io/safetensors-format.js'
import { Random } from '#dist/train/random.js'
import { onDevice } from '../support/on-device.js'
import { smallDinoV2 } from '../support/small-dinov2.js'
import { smallModel } from '../support/small-model.js'

const { device: opened, deviceTest } = await onDevice()
const folder = mkdtempSync(join(tmpdir(), 'atrous-fine-tune-'))
test.after(() => rmSync(folder, { recursive: true }))

let checkpoint = new Uint8Array()
let transformer = new Uint8Array()
const samples: LabeledPicture[] = []
const unlabeled: LabeledPicture['image'][] = []
if (opened) {
  const data = join(folder, 'data')
  await writeScenes(data, { seed: 5, size: 48, labeled: 2, unlabeled: 3, validation: 1 })
  const bytesOf = async (architecture: string, widths: object) => {
    const spec = { architecture, config: { ...widths, nclass: 6 } }
    const model = createModel(new Store(opened, 'model'), spec, new Random(3, 0, 0))
    const { tensors, metadata } = await contentsOf(model, { epoch: 3 })
    model.store.destroy()
    return Uint8Array.from(Buffer.concat(safetensorsParts(tensors, metadata)))
  }
  checkpoint = await bytesOf('deeplabv3plus', smallModel)
  transformer = await bytesOf('dpt', smallDinoV2)
  const rules = { nclass: 6, ignoreIndex: 255, reduceZero: false }
  for (const sample of readList(join(data, 'labeled.txt'), data, 'required')) {
    const { image, label } = await readPair(sample, rules)
    samples.push({ image, labels: label?.data ?? new Uint8Array() })
  }
  for (const { image } of readList(join(data, 'unlabeled.txt'), data, 'unused')) unlabeled.push(await readImage(image))
}
const small = { steps: 3, learningRate: 0.05, cropSize: 33 }

/** Fine-tunes a model of the checkpoint; returns its bytes and what was told of the way. */
async function tuned(device: Device, options: FineTuneOptions) {
  const segmenter = await Segmenter.load(device, checkpoint)
  const seen: FineTuneProgress[] = []
  await segmenter.fineTune(samples, { ...options, onProgress: (progress) => void seen.push(progress) })
  const bytes = await segmenter.toBytes()
  segmenter.destroy()
  return { bytes, seen }
}

deviceTest('learns what the labels say, tells of it, and gives the same bits for the same seed', async (device) => {
  const options = { ...small, steps: 16 }
  const { bytes, seen } = await tuned(device, options)
  const compiling = seen.filter(({ step }) => step === 0)
  assert.ok(compiling.length > 3 && compiling.at(-1)?.compiled === compiling.at(-1)?.kernels)
  const steps = seen.filter(({ step }) => step > 0)
  assert.equal(
    steps.map(({ step }) => step),
    Array.from({ length: 16 }, (_, i) => i + 1),
  )
  const [first, last] = [steps[0]?.loss ?? 0, steps.at(-1)?.loss ?? 0]
  assert.ok(last < 0.8 * first, `from ${first} to ${last}`)
  assert.equal(Object.keys(steps[0]?.metrics ?? {}), ['loss_x', 'lambda'])
  assert.ok(Buffer.from((await tuned(device, options)).bytes).equals(bytes))
  assert.not.ok(Buffer.from((await tuned(device, { ...options, seed: 1 })).bytes).equals(bytes))
  const segmenter = await Segmenter.load(device, bytes)
  const { labels } = await segmenter.segment(samples[0]?.image ?? { data: new Uint8Array(), width: 0, height: 0 })
  const right = labels.reduce((sum, label, i) => sum + Number(label === samples[0]?.labels[i]), 0)
  assert.ok(right > labels.length / 4, `${right} of ${labels.length}`)
  segmenter.destroy()
})

for (const method of ['prevmatch', 'augseg']) {
  deviceTest(`${method} fine-tunes, with unlabeled pictures`, async (device) => {
    const options = { ...small, steps: 2, method, unlabeled, settings: { conf_thresh: 0 } }
    const { bytes, seen } = await tuned(device, options)
    assert.not.ok(Buffer.from(bytes).equals(checkpoint))
    assert.ok(seen.every(({ step, loss }) => step === 0 || Number.isFinite(loss)))
    if (method === 'prevmatch') assert.ok('mask_ratio_prev' in (seen.at(-1)?.metrics ?? {}), 'no previous model guides')
  })
}

deviceTest('crops are of a side that the model computes', async (device) => {
  const segmenter = await Segmenter.load(device, transformer)
  const before = Buffer.from(await segmenter.toBytes())
  const refused = await segmenter.fineTune(samples, { ...small, unlabeled }).catch((error: unknown) => error)
  assert.instance(refused, UserError)
  assert.match((refused as Error).message, /'crop_size' is 33, .* a multiple of 14, such as 28/)
  await segmenter.fineTune(samples, { steps: 1, learningRate: 0.05, unlabeled })
  assert.not.ok(before.equals(await segmenter.toBytes()))
  segmenter.destroy()
})

deviceTest('other calls take turns with the steps', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  const [{ image }] = samples as [LabeledPicture]
  const masks: Uint8Array[] = []
  const onProgress = async ({ step }: FineTuneProgress) => {
    if (step > 0) masks.push((await segmenter.segment(image)).confidence as unknown as Uint8Array)
  }
  const tuning = segmenter.fineTune(samples, { ...small, onProgress })
  const message = await segmenter.fineTune(samples, small).catch((error: Error) => error.message)
  assert.match(String(message), /once at a time/)
  await tuning
  assert.is(masks.length, 3)
  assert.not.equal(masks[0], masks[2])
  segmenter.destroy()
})

deviceTest('whatever ends it early, the weights are those of before', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  const before = Buffer.from(await segmenter.toBytes())
  const reason = new Error('enough')
  for (const last of [0, 2]) {
    const controller = new AbortController()
    const onProgress = ({ step }: FineTuneProgress) => {
      if (step === last) controller.abort(reason)
    }
    const options = { ...small, signal: controller.signal, onProgress }
    assert.is(await segmenter.fineTune(samples, options).catch((error: unknown) => error), reason)
    assert.ok(before.equals(await segmenter.toBytes()), `after step ${last}`)
  }
  for (const last of [0, 1]) {
    const onProgress = async ({ step }: FineTuneProgress) => {
      if (step === last) throw reason
    }
    assert.is(await segmenter.fineTune(samples, { ...small, onProgress }).catch((error: unknown) => error), reason)
    assert.ok(before.equals(await segmenter.toBytes()), `told of step ${last}`)
  }
  const broken = await segmenter.fineTune(samples, { ...small, learningRate: 1e30 }).catch((error: unknown) => error)
  assert.instance(broken, UserError)
  assert.match((broken as Error).message, /fine-tuning: step \d: .*lower the learning rate/)
  assert.ok(before.equals(await segmenter.toBytes()))
  const end = ({ step }: FineTuneProgress) => {
    if (step === 1) segmenter.destroy()
  }
  const tuning = segmenter.fineTune(samples, { ...small, onProgress: end })
  assert.match(String(await tuning.catch((error: Error) => error.message)), /was destroyed/)
  await device.idle()
})

deviceTest('a call that was made before the end still sees the weights of its step', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  const [{ image }] = samples as [LabeledPicture]
  const before = await segmenter.segment(image)
  const controller = new AbortController()
  let now: unknown
  let waiting: unknown
  const onProgress = async ({ step }: FineTuneProgress) => {
    if (step !== 2) return
    now = await segmenter.segment(image)
    waiting = segmenter.segment(image)
    controller.abort()
  }
  await segmenter.fineTune(samples, { ...small, signal: controller.signal, onProgress }).catch(() => {})
  assert.not.equal(now, before)
  assert.equal(await waiting, now)
  assert.equal(await segmenter.segment(image), before)
  segmenter.destroy()
})

deviceTest('refuses in one line what it cannot learn from', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  const [sample] = samples as [LabeledPicture]
  const pixels = sample.labels.length
  const cases: [RegExp, readonly LabeledPicture[], Partial<FineTuneOptions>][] = [
    [/there are no labeled pictures/, [], {}],
    [/picture 0 has .* 3 labels/, [{ ...sample, labels: new Uint8Array(3) }], {}],
    [/label 6, but the classes are 0 to 5/, [{ ...sample, labels: new Uint8Array(pixels).fill(6) }], {}],
    [/no pixel has a label/, [{ ...sample, labels: new Uint8Array(pixels).fill(255) }], {}],
    [/'unlabeled'/, samples, { method: 'unimatch' }],
    [/several networks/, samples, { method: 'co-training' }],
    [/several networks/, samples, { settings: { method: 'co-training' } }],
    [/'method'/, samples, { method: 'magic' }],
    [/steps is 0/, samples, { steps: 0 }],
    [/'lr'/, samples, { learningRate: -1 }],
    [/'crop_size'/, samples, { cropSize: 3 }],
    [/at least 2/, samples, { batchSize: 1 }],
    [/'wings'/, samples, { settings: { wings: 2 } }],
    [/has 6 classes, .*'nclass'/, samples, { settings: { nclass: 7 } }],
    [/255 is ignored: .*'ignore_index'/, samples, { settings: { ignore_index: 254 } }],
  ]
  for (const [pattern, given, options] of cases) {
    const error = await segmenter.fineTune(given, { ...small, ...options }).catch((error: unknown) => error)
    assert.instance(error, UserError, String(pattern))
    assert.match((error as Error).message, pattern)
    assert.match((error as Error).message, /^fine-tuning: /)
  }
  segmenter.destroy()
})

test.run()
