// A training that is copied to the host and goes on in another trainer has the bits of one that was not interrupted.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { scene } from '#dist/demo/scenes.js'
import { open } from '#dist/engine/node.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { parseConfig } from '#dist/train/config/parse.js'
import { memoryBatch } from '#dist/train/data/memory-batch.js'
import { firstModelOf } from '#dist/train/methods/index.js'
import { PURPOSE, Random } from '#dist/train/random.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import type { Trainer } from '#dist/train/trainer/trainer.js'
import { copyTrainer, restoreTrainer } from '#dist/train/trainer/trainer-state.js'
import { smallModel } from '../../support/small-model.js'

const device = await open()
test.after(() => device.destroy())

const { replace_stride_with_dilation: _, dilations, ...model } = smallModel
const [size, batchSize] = [33, 2]
const pairs = [0, 1].map((i) => {
  const { image, label } = scene(1, i, size)
  const sides = { width: size, height: size }
  return { image: { data: image, ...sides }, label: { data: label, ...sides } }
})
const images = { labeled: pairs, unlabeled: pairs.map(({ image }) => image) }

async function newTrainer(method: string, settings: object, amp: boolean, seed: number): Promise<Trainer> {
  const config = parseConfig(
    {
      ...{ dataset: 'scenes', nclass: 6, method, seed: 1, epochs: 4, crop_size: size, batch_size: batchSize, lr: 0.01 },
      ...{ model, dilations: [...dilations], conf_thresh: 0.2, prev: { conf_thresh: 0.2 } },
      ...settings,
    },
    'the test',
  )
  const first = createModel(
    new Store(device, 'model'),
    firstModelOf(config),
    new Random(seed, 0, PURPOSE.initialization),
  )
  const sizes = { labeled: batchSize, unlabeled: batchSize, height: size, width: size }
  return createTrainer(device, first, config, { iterationsPerEpoch: 1, ...sizes, amp })
}

async function steps(trainer: Trainer, count: number): Promise<(number | undefined)[]> {
  const losses: (number | undefined)[] = []
  for (let i = 0; i < count; i++) {
    trainer.beginEpoch(true)
    const { layout, epoch } = trainer
    const sides = { size, batchSize, seed: 1, ignoreIndex: 255 }
    const batch = memoryBatch(layout, images, sides, { epoch, iteration: 0, iterationsPerEpoch: 1 })
    const { metrics, loss_scale } = await trainer.step(batch)
    losses.push(metrics.total_loss, loss_scale)
  }
  return losses
}

const trainings = [
  // Previous models, and draws among them.
  { method: 'prevmatch', settings: {}, amp: device.traits.half },
  // Further models with counters of their own, and an optimizer that counts its updates.
  { method: 'dual-teacher', settings: { optimizer: 'adamw' }, amp: false },
]

for (const { method, settings, amp } of trainings) {
  test(`${method} goes on in another trainer with the same bits`, async () => {
    const whole = await newTrainer(method, settings, amp, 1)
    await steps(whole, 1)
    whole.lossScale?.restore({ scale: 1024, goodSteps: 3, skippedSteps: 0 })
    await steps(whole, 1)
    const copy = structuredClone(await copyTrainer(whole))
    const other = await newTrainer(method, settings, amp, 2)
    restoreTrainer(other, copy)
    assert.equal([other.iteration, other.updates], [2, 2])
    assert.equal(await steps(other, 2), await steps(whole, 2))
    assert.equal(
      other.models.map(({ batchesTracked }) => [...batchesTracked]),
      whole.models.map(({ batchesTracked }) => [...batchesTracked]),
    )
    assert.ok(whole.models.every(({ batchesTracked }) => [...batchesTracked.values()].some((count) => count > 2)))
    assert.equal(await other.lossScale?.state(), await whole.lossScale?.state())
    assert.equal(await other.model.store.readAll(), await whole.model.store.readAll())
    for (const trainer of [whole, other]) {
      const { store } = trainer.model
      trainer.destroy()
      store.destroy()
    }
  })
}

test.run()
