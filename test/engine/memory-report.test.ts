// The memory of training steps, and what is said where it is too little.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { OutOfMemoryError } from '#dist/engine/device.js'
import { UserError } from '#dist/train/error.js'
import { stepModels, stepTrainer } from '../../cases/steps.js'
import { messageOf } from '../support/messages.js'
import { nullDevice } from '../support/null-device.js'

const steps = [
  ['small', { crop: 65, batch: 2 }],
  ['resnet50', { crop: 129, batch: 4 }],
  ['resnet50', { crop: 321, batch: 8 }],
  ['resnet101', { crop: 321, batch: 8 }],
] as const

for (const [name, size] of steps) {
  for (const method of ['supervised', 'prevmatch'] as const) {
    for (const adapter of [{}, { software: false, subgroupSize: 32 }]) {
      const driver = adapter.software === false ? 'a GPU' : 'the CPU driver'
      test(`${method}, ${name}, crop ${size.crop}: buffers hold at most 1.15 times what lives at once on ${driver}`, async () => {
        const { memory } = await stepTrainer(nullDevice(adapter), stepModels[name], method, size)
        const { planned, live, unshared } = memory
        assert.ok(live <= planned && planned <= 1.15 * live, `${planned} bytes planned, ${live} live`)
        assert.ok(live < unshared / 2, `${live} bytes live, ${unshared} in all`)
      })
    }
  }
}

test('a tensor that the adapter cannot bind is refused with the sizes that fit', async () => {
  const adapter = { bindingLimit: 2 ** 27 }
  const step = (crop: number, batch: number) => {
    return stepTrainer(nullDevice(adapter), stepModels.resnet50, 'prevmatch', { crop, batch })
  }
  const message = await messageOf(() => step(321, 8), UserError)
  const tensor = /^prevmatch step: .*concat f32\[32, 81, 81, 304\] of 243.5 MiB is too large: this adapter binds /
  assert.match(message, tensor)
  assert.match(
    message,
    /at most 128.0 MiB at once: use at most micro_batch 4, or at most batch_size 4, or at most crop_size 229$/,
  )
  await step(321, 4)
  await step(229, 8)
  await messageOf(() => step(321, 5), UserError)
  await messageOf(() => step(233, 8), UserError)
})

test('a step that does not fit the memory is refused with its largest tensors', async () => {
  const device = nullDevice({ memory: 2 ** 30 })
  const step = () => stepTrainer(device, stepModels.resnet50, 'supervised', { crop: 321, batch: 8 })
  const message = await messageOf(step, OutOfMemoryError)
  assert.match(message, /^allocating 2\d{3}\.\d MiB, the largest tensors being backbone\.[^;]+ of 101\.3 MiB; /)
  assert.match(message, / for supervised step: out of GPU memory: buffer allocation failed: give what the device has /)
  assert.match(message, / as memory, such as --memory 4GiB, and what fits is chosen, or use a smaller batch_size or /)
})

test.run()
