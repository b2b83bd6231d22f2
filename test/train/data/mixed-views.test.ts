// Fields of a batch that are made of all of its images.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { writeScenes } from '#dist/demo/dataset.js'
import { parseConfig } from '#dist/train/config/load.js'
import type { Batch, BatchLayout } from '#dist/train/data/batch.js'
import { cutBox, cutMixView, denormalizedLevels, drawCutMix } from '#dist/train/data/cutmix-view.js'
import { readImage, readList, readPair } from '#dist/train/data/dataset.js'
import { labelRules } from '#dist/train/data/label-rules.js'
import { createLoader, type LoaderOptions } from '#dist/train/data/loader.js'
import { memoryBatch } from '#dist/train/data/memory-batch.js'
import { dualTeacher } from '#dist/train/methods/dual-teacher.js'
import { unimatch } from '#dist/train/methods/unimatch.js'
import { PURPOSE, Random } from '#dist/train/random.js'

const root = mkdtempSync(join(tmpdir(), 'atrous-mixed-'))
const folder = join(root, 'data')
test.before(async () => {
  await writeScenes(folder, { seed: 3, size: 48, labeled: 4, unlabeled: 7, validation: 2 })
})
test.after(() => rmSync(root, { recursive: true }))

const [size, batchSize, seed] = [33, 2, 5]
const config = parseConfig(
  { nclass: 6, crop_size: size, epochs: 4, batch_size: batchSize, lr: 0.1, method: 'dual-teacher' },
  'the test',
)
const layout: BatchLayout = dualTeacher.layout(config as never)

async function batchesOf(epoch: number, changes: Partial<LoaderOptions> = {}, start = 0): Promise<Batch[]> {
  const labeled = readList(join(folder, 'labeled.txt'), folder, 'required')
  const unlabeled = readList(join(folder, 'unlabeled.txt'), folder, 'unused')
  const loader = createLoader({ config, labeled, unlabeled, seed, layout, workers: 1, epochOf: 'labeled', ...changes })
  const batches: Batch[] = []
  for await (const batch of loader.epoch(epoch, start)) {
    batches.push(Object.fromEntries(Object.entries(batch).map(([name, data]) => [name, data.slice()])))
  }
  await loader.close()
  return batches
}

const bytesOf = (batch: Batch | undefined, field: string): Uint8Array => batch?.[field] as Uint8Array

test('an epoch of a method may be one pass over the labeled images', async () => {
  assert.is((await batchesOf(0)).length, 2)
  assert.is((await batchesOf(0, { epochOf: undefined })).length, 3)
})

test('the CutMix view is made of the whole batch, by draws that its number gives', async () => {
  const batches = await batchesOf(2)
  for (const [i, batch] of batches.entries()) {
    const random = new Random(seed, 2 * batches.length + i, PURPOSE.cutMixView)
    const draws = drawCutMix(batchSize, size, random)
    const images = bytesOf(batch, 'img_u')
    const expected = new Uint8Array(images.length)
    const bytes = images.length / batchSize
    for (let place = 0; place < batchSize; place++) {
      cutMixView(images, size, draws, place, expected.subarray(place * bytes, (place + 1) * bytes))
    }
    assert.equal(bytesOf(batch, 'img_u_aug'), expected)
    assert.not.equal(expected, images)
  }
})

test('the same bits for any number of threads, from any start', async () => {
  const reference = await batchesOf(2)
  assert.equal(await batchesOf(2, { workers: 3 }), reference)
  assert.equal(await batchesOf(2, { workers: 2 }, 1), reference.slice(1))
  assert.not.equal(await batchesOf(2, { seed: 6 }), reference)
})

test('images in memory give the same batches as files, mixed views and all', async () => {
  const labeled = readList(join(folder, 'labeled.txt'), folder, 'required')
  const unlabeled = readList(join(folder, 'unlabeled.txt'), folder, 'unused')
  const pairs = await Promise.all(labeled.map((sample) => readPair(sample, labelRules(config))))
  const images = {
    labeled: pairs.map(({ image, label }) => ({ image, label: label ?? image })),
    unlabeled: await Promise.all(unlabeled.map(({ image }) => readImage(image))),
  }
  for (const method of [dualTeacher, unimatch] as const) {
    const layout: BatchLayout = method.layout(config as never)
    for (const epoch of [0, 1]) {
      const expected = await batchesOf(epoch, { layout })
      const actual = expected.map((_, iteration) => {
        const filling = { size, batchSize, seed, ignoreIndex: 255 }
        return memoryBatch(layout, images, filling, { epoch, iteration, iterationsPerEpoch: expected.length })
      })
      assert.equal(actual, expected, `${method.name}, epoch ${epoch}`)
    }
  }
})

test('a view of even epochs is not made in odd ones', async () => {
  // Buffers are new, and so hold zeros where nothing is written.
  for (const batch of await batchesOf(1)) {
    assert.ok(bytesOf(batch, 'img_u').some((value) => value > 0))
    assert.ok(bytesOf(batch, 'img_u_aug').every((value) => value === 0))
  }
})

test('an epoch can be left while batches are mixed', async () => {
  const labeled = readList(join(folder, 'labeled.txt'), folder, 'required')
  const unlabeled = readList(join(folder, 'unlabeled.txt'), folder, 'unused')
  const loader = createLoader({ config, labeled, unlabeled, seed, layout, workers: 2 })
  const firsts: Uint8Array[] = []
  for (let round = 0; round < 2; round++) {
    for await (const batch of loader.epoch(0)) {
      firsts.push(bytesOf(batch, 'img_u_aug').slice())
      break
    }
  }
  await loader.close()
  assert.equal(firsts[0], firsts[1])
})

test('shares of images that boxes leave are spread around a half', () => {
  const random = new Random(3)
  const draws = Array.from({ length: 4000 }, () => random.beta(4, 4))
  const mean = draws.reduce((a, b) => a + b) / draws.length
  const variance = draws.reduce((a, b) => a + (b - mean) ** 2, 0) / draws.length
  // 1/2 and 1/36; five times the errors of 4000 draws.
  assert.ok(Math.abs(mean - 0.5) < 0.013 && Math.abs(variance - 1 / 36) < 0.003, `${mean} ${variance}`)
  assert.ok(draws.every((x) => x > 0 && x < 1))
})

test('boxes lie within the image, and leave a share of it around their centre', () => {
  assert.equal(cutBox(65, 65, 0, 36, 41), { x: 9, y: 4, w: 56, h: 61 })
  assert.equal(cutBox(20, 20, 0.75, 10, 10), { x: 5, y: 5, w: 10, h: 10 })
  assert.is(cutBox(20, 20, 1, 10, 10).w, 0)
})

test('levels that a normalised image loses as bytes lose one', () => {
  let lost = 0
  for (const levels of denormalizedLevels) {
    for (const [level, after] of levels.entries()) {
      assert.ok(after === level || after === level - 1)
      lost += level - after
    }
  }
  // As recorded from PyTorch and NumPy.
  assert.is(lost, 129)
})

test.run()
