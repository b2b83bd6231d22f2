// A segmenter against the commands that do the same, and what it refuses.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { writeScenes } from '#dist/demo/dataset.js'
import { Segmenter } from '#dist/segmenter/index.js'
import { prepareCheckpoint } from '#dist/train/checkpoint/write.js'
import { readImage } from '#dist/train/data/dataset.js'
import { UserError } from '#dist/train/error.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { onDevice } from '../support/on-device.js'
import { run } from '../support/tiny-run.js'
import { variedModel } from '../support/varied-model.js'

const { device, deviceTest } = await onDevice()
const folder = mkdtempSync(join(tmpdir(), 'atrous-segmenter-'))
const at = (name: string) => join(folder, name)
test.after(() => rmSync(folder, { recursive: true }))

const classes = ['sky', 'land', 'house', 'tree', 'boat', 'water']
const palette = classes.map((_, k) => [k, 2 * k, 255 - k] as const)
const checkpoint = at('model.safetensors')
const images = at('data/images')
if (device) {
  await writeScenes(at('data'), { seed: 5, size: 48, labeled: 2, unlabeled: 1, validation: 1 })
  const model = variedModel(device, classes.length)
  const file = await prepareCheckpoint(model, { class_names: classes, palette })
  file.write(checkpoint)
  model.store.destroy()
}
const pictures = async () => {
  const names = readdirSync(images).sort()
  return Promise.all(names.map(async (name) => ({ name, image: await readImage(join(images, name)) })))
}
const maskOf = (out: string, name: string) =>
  Uint8Array.from(decode(readFileSync(join(at(out), 'masks', name.replace(/\.\w+$/, '.png')))).data)

function predict(ckpt: string, out: string): void {
  const { code, errors } = run('predict.js', ['--images', images, '--ckpt-path', ckpt, '--out', at(out), '--no-tune'])
  assert.is(code, 0, errors.join('\n'))
}

deviceTest(
  'gives what predict.js gives, whatever the checkpoint is handed over as, with alpha and without',
  async (device) => {
    predict(checkpoint, 'predicted')
    const bytes = readFileSync(checkpoint)
    const sources = [checkpoint, bytes, Uint8Array.from(bytes).buffer, new Blob([bytes])]
    for (const [i, source] of sources.entries()) {
      const segmenter = await Segmenter.load(device, source)
      assert.equal(segmenter.classes, classes)
      assert.equal(segmenter.palette, palette)
      for (const { name, image } of await pictures()) {
        const rgba = new Uint8ClampedArray(image.width * image.height * 4).fill(9)
        for (let k = 0; k < image.data.length; k++) rgba[4 * Math.floor(k / 3) + (k % 3)] = image.data[k] ?? 0
        const { labels, width, height, confidence } = await segmenter.segment(
          i === 0 ? image : { ...image, data: rgba },
        )
        assert.equal([width, height], [image.width, image.height])
        assert.equal(labels, maskOf('predicted', name))
        assert.ok(new Set(labels).size > 1)
        assert.ok(confidence.length === labels.length && confidence.every((value) => value > 1 / 6 && value <= 1))
      }
      segmenter.destroy()
    }
  },
)

deviceTest('scores come beside the same labels; their softmax is the confidence', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  const [{ image }] = (await pictures()) as [Awaited<ReturnType<typeof pictures>>[0]]
  const plain = await segmenter.segment(image)
  const { labels, confidence, scores = new Float32Array() } = await segmenter.segment(image, { scores: true })
  assert.equal(labels, plain.labels)
  assert.equal(confidence, plain.confidence)
  for (let pixel = 0; pixel < labels.length; pixel += 97) {
    const own = [...scores.subarray(pixel * classes.length, (pixel + 1) * classes.length)]
    const sum = own.reduce((total, score) => total + Math.exp(score - Math.max(...own)), 0)
    // The two resize in another order: their logits of about 1 differ in the last bits.
    assert.ok(Math.abs((confidence[pixel] ?? 0) - 1 / sum) < 1e-5, `pixel ${pixel}`)
    assert.is(labels[pixel], own.indexOf(Math.max(...own)))
  }
  segmenter.destroy()
})

deviceTest('saves what predict.js and load take, and ONNX as convert.js writes it', async (device) => {
  const segmenter = await Segmenter.load(device, readFileSync(checkpoint))
  await segmenter.save(at('saved.safetensors'))
  const bytes = await segmenter.toBytes()
  assert.ok(readFileSync(at('saved.safetensors')).equals(bytes))
  assert.equal(readSafetensors(at('saved.safetensors')).tensors, readSafetensors(checkpoint).tensors)
  const again = await Segmenter.load(device, bytes)
  assert.ok(Buffer.from(await again.toBytes()).equals(bytes))
  again.destroy()
  predict(at('saved.safetensors'), 'of saved')
  for (const { name } of await pictures()) assert.equal(maskOf('of saved', name), maskOf('predicted', name))
  assert.is(run('convert.js', [checkpoint, at('model.onnx')]).code, 0)
  assert.ok(Buffer.from(await segmenter.exportOnnx()).equals(readFileSync(at('model.onnx'))))
  segmenter.destroy()
})

deviceTest('calls take turns, tell how far kernels are compiled, and end when they are told to', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  const [{ image }] = (await pictures()) as [Awaited<ReturnType<typeof pictures>>[0]]
  const controller = new AbortController()
  const seen: number[] = []
  const reason = new Error('enough')
  const aborted = segmenter.segment(image, {
    signal: controller.signal,
    onProgress: ({ compiled, kernels }) => {
      seen.push(compiled / kernels)
      if (seen.length === 2) controller.abort(reason)
    },
  })
  const next = segmenter.segment(image)
  const error = await aborted.then(
    () => undefined,
    (error: unknown) => error,
  )
  assert.is(error, reason)
  assert.is(seen.length, 2)
  const [a, b] = await Promise.all([next, segmenter.segment(image)])
  assert.equal(a, b)
  const already = await segmenter.segment(image, { signal: AbortSignal.abort(reason) }).catch((error: unknown) => error)
  assert.is(already, reason)
  segmenter.destroy()
  const late = await segmenter.segment(image).catch((error: Error) => error.message)
  assert.match(String(late), /was destroyed/)
})

deviceTest('refuses in one line what it cannot use', async (device) => {
  const message = async (body: () => Promise<unknown>): Promise<string> => {
    try {
      await body()
    } catch (error) {
      assert.instance(error, UserError)
      return (error as Error).message
    }
    throw new Error('it was taken')
  }
  assert.match(await message(() => Segmenter.load(device, at('none'))), /^cannot open .*none/)
  assert.match(await message(() => Segmenter.load(device, new Uint8Array(40))), /^the checkpoint /)
  const damaged = readFileSync(checkpoint)
  damaged[damaged.length - 1] = 77
  const named = new File([damaged], 'mine.safetensors')
  assert.match(await message(() => Segmenter.load(device, named)), /^mine\.safetensors .*checksum/)
  const segmenter = await Segmenter.load(device, checkpoint)
  const wrong = { data: new Uint8Array(10), width: 2, height: 2 }
  assert.match(await message(() => segmenter.segment(wrong)), /2x2 pixels has 10 bytes: expected are 3/)
  assert.match(await message(() => segmenter.save(at('none/x.safetensors'))), /^cannot write/)
  segmenter.destroy()
  writeFileSync(at('note.txt'), 'weights?')
  assert.match(await message(() => Segmenter.load(device, at('note.txt'))), /it is a text/)
})

test.run()
