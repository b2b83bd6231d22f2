import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assignBuffers, type Interval, livePeak } from '#dist/engine/buffers.js'
import { OutOfMemoryError } from '#dist/engine/device.js'
import { UserError } from '#dist/train/error.js'
import { Random } from '../../cases/case.js'
import { stepModels, stepTrainer } from '../../cases/steps.js'
import { nullDevice } from '../support/null-device.js'

function randomIntervals(random: Random, count: number): Interval[] {
  const apart = Array.from({ length: count }, () => new Set<string>())
  for (let k = 0; k < count; k++) {
    const [a, b] = [random.integer(count), random.integer(count)]
    apart[a]?.add(`v${b}`)
    apart[b]?.add(`v${a}`)
  }
  return apart.map((others, i) => {
    const first = random.integer(40)
    const bytes = 100 * (1 + random.integer(30))
    return { key: `v${i}`, bytes, first, last: first + random.integer(12), apart: others }
  })
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)

test('values that live at the same time do not overlap, and lie in different buffers where they must', () => {
  let [beside, kept] = [0, 0]
  for (let seed = 0; seed < 50; seed++) {
    const values = randomIntervals(new Random(`slots ${seed}`), 40)
    const { sizes, ranges } = assignBuffers(values, true)
    const rangeOf = (key: string) => ranges.get(key) ?? { buffer: -1, offset: 0, bytes: 0 }
    for (const [i, a] of values.entries()) {
      const at = rangeOf(a.key)
      assert.is(at.bytes, a.bytes)
      assert.is(at.offset % 256, 0)
      assert.ok(at.offset + at.bytes <= (sizes[at.buffer] ?? 0), `${a.key} reaches beyond its buffer`)
      for (const b of values.slice(i + 1)) {
        const other = rangeOf(b.key)
        if (a.first > b.last || b.first > a.last || at.buffer !== other.buffer) continue
        const disjoint = at.offset + at.bytes <= other.offset || other.offset + other.bytes <= at.offset
        assert.ok(disjoint, `seed ${seed}: ${a.key} and ${b.key} overlap in buffer ${at.buffer}`)
        assert.not.ok(a.apart.has(b.key), `seed ${seed}: ${a.key} and ${b.key} share buffer ${at.buffer}`)
        beside++
      }
      kept += a.apart.size
    }
    assert.ok(Math.max(...sizes) <= Math.max(...values.map(({ bytes }) => bytes)))
    const live = Array.from({ length: 60 }, (_, at) =>
      sum(values.filter(({ first, last }) => first <= at && at <= last).map(({ bytes }) => bytes)),
    )
    assert.is(livePeak(values), Math.max(...live))
    assert.ok(sum(sizes) >= livePeak(values))
    assert.is(sum(assignBuffers(values, false).sizes), sum(values.map(({ bytes }) => bytes)))
  }
  assert.ok(beside > 100 && kept > 100, `${beside} pairs side by side, ${kept} kept apart`)
})

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

const messageOf = async (
  action: Promise<unknown>,
  kind: new (message: string) => Error = UserError,
): Promise<string> => {
  try {
    await action
  } catch (error) {
    assert.instance(error, kind)
    return (error as Error).message
  }
  throw new Error('nothing was refused')
}

test('a tensor that the adapter cannot bind is refused with the sizes that fit', async () => {
  const adapter = { bindingLimit: 2 ** 27 }
  const step = (crop: number, batch: number) => {
    return stepTrainer(nullDevice(adapter), stepModels.resnet50, 'prevmatch', { crop, batch })
  }
  const message = await messageOf(step(321, 8))
  const tensor = /^prevmatch step: .*concat f32\[32, 81, 81, 304\] of 243.5 MiB is too large: this adapter binds /
  assert.match(message, tensor)
  assert.match(message, /at most 128.0 MiB at once: use at most batch_size 4, or at most crop_size 229$/)
  await step(321, 4)
  await step(229, 8)
  await messageOf(step(321, 5))
  await messageOf(step(233, 8))
})

test('a step that does not fit the memory is refused with its largest tensors', async () => {
  const device = nullDevice({ memory: 2 ** 30 })
  const step = stepTrainer(device, stepModels.resnet50, 'supervised', { crop: 321, batch: 8 })
  const message = await messageOf(step, OutOfMemoryError)
  assert.match(message, /^allocating 2\d{3}\.\d MiB, the largest tensors being backbone\.[^;]+ of 101\.3 MiB; /)
  assert.match(message, / for supervised step: out of GPU memory: buffer allocation failed: use a smaller batch_size /)
  assert.match(message, /or activation_checkpointing: \[stem, layer1, .*, decoder\]/)
})

test.run()
