import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assignSlots, type Interval, livePeak } from '#dist/engine/slots.js'
import { stepModels, stepTrainer } from '../bench/step.js'
import { Random } from './cases/case.js'
import { nullDevice } from './null-device.js'

const randomIntervals = (random: Random, count: number): Interval[] =>
  Array.from({ length: count }, (_, i) => {
    const first = random.integer(40)
    return { key: `v${i}`, bytes: 4 * (1 + random.integer(30)), first, last: first + random.integer(12) }
  })

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)

test('values that live at the same time have slots of their own, each large enough', () => {
  for (let seed = 0; seed < 50; seed++) {
    const values = randomIntervals(new Random(`slots ${seed}`), 40)
    const { sizes, of } = assignSlots(values, true)
    for (const [i, a] of values.entries()) {
      const slot = of.get(a.key) ?? -1
      assert.ok((sizes[slot] ?? 0) >= a.bytes, `${a.key} of ${a.bytes} bytes in a slot of ${sizes[slot]}`)
      for (const b of values.slice(i + 1)) {
        const together = a.first <= b.last && b.first <= a.last
        assert.not.ok(together && of.get(b.key) === slot, `seed ${seed}: ${a.key} and ${b.key} share slot ${slot}`)
      }
    }
    const live = Array.from({ length: 60 }, (_, at) =>
      sum(values.filter(({ first, last }) => first <= at && at <= last).map(({ bytes }) => bytes)),
    )
    assert.is(livePeak(values), Math.max(...live))
    assert.ok(sum(sizes) >= livePeak(values))
    assert.is(sum(assignSlots(values, false).sizes), sum(values.map(({ bytes }) => bytes)))
  }
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

test.run()
