// A SegFormer under the methods that perturb features, and what its training takes.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { ImageTooSmallError } from '#dist/models/segmentation.js'
import { withOverrides } from '#dist/train/config/load.js'
import type { Batch } from '#dist/train/data/batch.js'
import { bytesOf } from '#dist/train/data/batch.js'
import { endingOf } from '#dist/train/run/exit-codes.js'
import { MemoryPlanner } from '#dist/train/run/memory-choice.js'
import { Random } from '../../../cases/case.js'
import { stepTrainer } from '../../../cases/steps.js'
import { messageOf } from '../../support/messages.js'
import { nullDevice } from '../../support/null-device.js'
import { smallSegFormer } from '../../support/small-segformer.js'

const device = await open()
test.after(() => device.destroy())

const { nclass, ...model } = smallSegFormer
const choice = { nclass, backbone: 'mit_b0', model }

for (const method of ['supervised', 'unimatch', 'prevmatch']) {
  test(`${method}: a step changes every parameter, and the same step gives the same bits`, async () => {
    const runs: (readonly (readonly [string, Float32Array])[])[] = []
    for (let run = 0; run < 2; run++) {
      const trainer = await stepTrainer(device, choice, method, { crop: 33, batch: 2 })
      const random = new Random('segformer')
      const fields = trainer.layout.flatMap((stream) => Object.entries(stream.fields))
      const batch: Batch = Object.fromEntries(
        fields.map(([name, field]) => {
          const most = field.view === 'label' ? nclass : field.view === 'padding' ? 1 : 256
          const values = () => (field.view === 'cutmixBox' ? random.integer(2) : random.integer(most))
          return [name, Uint8Array.from({ length: 2 * bytesOf(field, 33) }, values)]
        }),
      )
      // Weights that are 0 would keep gradients from most of the network.
      for (const variable of trainer.model.store.all()) {
        const scale = /running_var$/.test(variable.name) ? 1 : 0.1
        const { length } = await trainer.model.store.read(variable.name)
        trainer.model.store.write(
          variable.name,
          Float32Array.from({ length }, () => scale * (0.5 + random.uniform())),
        )
      }
      const before = await trainer.model.store.readAll()
      const { metrics, nonFinite } = await trainer.step(batch)
      assert.equal(nonFinite, [])
      assert.ok((metrics.total_loss ?? 0) > 0)
      const after = [...(await trainer.model.store.readAll())].map(
        ([name, data]) => [name, data as Float32Array] as const,
      )
      for (const [name, data] of after) assert.not.equal(data, before.get(name), name)
      runs.push(after)
      trainer.destroy()
      trainer.model.store.destroy()
    }
    assert.equal(runs[0], runs[1])
  })
}

const configOf = (...overrides: string[]) =>
  withOverrides(
    { nclass, backbone: 'mit_b0', model, crop_size: 65, batch_size: 4, epochs: 1, lr: 0.01 },
    overrides,
    'it',
  )

test('its memory is planned, and less of it with stages that are computed again', async () => {
  const image = { width: 60, height: 40, data: new Uint8Array(60 * 40 * 3) }
  const config = configOf('method=supervised')
  const planner = new MemoryPlanner(nullDevice({}), { config, image, keepBefore: false })
  assert.equal(planner.stages, ['stage1', 'stage2', 'stage3', 'stage4', 'head'])
  const whole = await planner.alternative(planner.first)
  const again = await planner.alternative({ ...planner.first, stages: ['stage1', 'head'] })
  assert.ok(again.bytes < whole.bytes && again.time > 1, `${again.bytes} of ${whole.bytes} bytes, ${again.time}`)
})

test('a configuration names it by its model, and crops are large enough', async () => {
  assert.is(configOf('model=segformer', 'backbone=mit_b1').backbone, 'mit_b1')
  const { backbone, model: section } = withOverrides(
    { nclass, model: 'segformer', crop_size: 65, batch_size: 4, epochs: 1, lr: 0.01 },
    [],
    'it',
  )
  assert.equal([backbone, section], ['mit_b2', {}])
  const message = (...overrides: string[]) => messageOf(() => configOf(...overrides))
  assert.match(await message('crop_size=28'), /it: 'crop_size' is 28, but the model needs 29 at least$/)
  assert.is(endingOf(new ImageTooSmallError(20, 40, 29)), 'userError')
  assert.match(await message('model=deeplabv3plus'), /the model deeplabv3plus has no backbone 'mit_b0'/)
})

test.run()
