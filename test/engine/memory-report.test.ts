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

// Transforms of Winograd's convolutions are large and soon gone: what is freed is then filled less tightly.
const most = 1.18

for (const [name, size] of steps) {
  for (const method of ['supervised', 'prevmatch'] as const) {
    for (const adapter of [{}, { software: false, subgroupSize: 32 }]) {
      const driver = adapter.software === false ? 'a GPU' : 'the CPU driver'
      test(`${method}, ${name}, crop ${size.crop}: buffers hold at most ${most} times what lives at once on ${driver}`, async () => {
        const { memory } = await stepTrainer(nullDevice(adapter), stepModels[name], method, size)
        const { planned, live, unshared } = memory
        assert.ok(live <= planned && planned <= most * live, `${planned} bytes planned, ${live} live`)
        assert.ok(live < unshared / 2, `${live} bytes live, ${unshared} in all`)
      })
    }
  }
}

test('a step whose batches the adapter cannot bind is computed a few images at a time', async () => {
  const size = { crop: 321, batch: 8 }
  const step = (adapter: { bindingLimit?: number }) =>
    stepTrainer(nullDevice(adapter), stepModels.resnet50, 'prevmatch', size)
  const [whole, divided] = [await step({}), await step({ bindingLimit: 2 ** 27 })]
  assert.ok(divided.memory.dispatches > whole.memory.dispatches)
  assert.ok(
    divided.memory.planned < 1.05 * whole.memory.planned,
    `${divided.memory.planned} of ${whole.memory.planned}`,
  )
})

test('a step of Cityscapes as published is planned where a kernel binds 128 MiB', async () => {
  const device = nullDevice({ bindingLimit: 2 ** 27 })
  const { memory } = await stepTrainer(device, stepModels.resnet101, 'prevmatch', { crop: 801, batch: 8 })
  assert.ok(memory.planned <= 1.05 * memory.live, `${memory.planned} bytes planned, ${memory.live} live`)
})

test('an image that the adapter cannot bind is refused with the crop that fits', async () => {
  // Weights take up to 18 MiB.
  const adapter = { bindingLimit: 19 * 2 ** 20 }
  const step = (crop: number, batch: number) => {
    return stepTrainer(nullDevice(adapter), stepModels.resnet50, 'supervised', { crop, batch })
  }
  const message = await messageOf(() => step(401, 2), UserError)
  assert.match(
    message,
    /^supervised step: backbone.* f32\[1, 201, 201, 128\] of 19.7 MiB is too large: this adapter binds /,
  )
  assert.match(message, /at most 19.0 MiB at once: use at most crop_size 393$/)
  await step(393, 8)
  await messageOf(() => step(397, 2), UserError)
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
