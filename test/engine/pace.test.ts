import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Device } from '#dist/engine/device.js'
import { findAdapter } from '#dist/engine/node.js'
import { costOf, Pace } from '#dist/engine/pace.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { matmul } from '#dist/kernels/matmul.js'
import { onDevice } from '../support/on-device.js'

const { deviceTest } = await onDevice()

/** A clock that tests set. */
function paceAt(budget: number) {
  const clock = { now: 0 }
  return { clock, pace: new Pace(() => clock.now, budget, 1) }
}

test('a step costs its products or its bytes, whichever takes longer', () => {
  assert.is(costOf({ multiplyAdds: 1000, bytes: 10 }), 1000)
  assert.is(costOf({ multiplyAdds: 0, bytes: 10 }), 80)
})

test('a run is cut where its budget is used up, and a step never', () => {
  const { pace } = paceAt(10)
  assert.equal(pace.ends([3, 3, 3]), [3])
  assert.equal(pace.ends([6, 5, 5, 1]), [1, 3, 4])
  assert.equal(pace.ends([100, 100]), [1, 2])
  assert.equal(pace.ends([0, 0, 100]), [3])
})

test('what the last runs took moves the budget towards a tenth of a second, four times at most', () => {
  const { clock, pace } = paceAt(1000)
  const take = (work: number, milliseconds: number) => {
    pace.submitted(work)
    clock.now += milliseconds
    pace.done(pace.mark())
  }
  take(2000, 400)
  assert.equal(pace.ends([300, 300]), [1, 2], '5 in a millisecond: 500 are left')
  take(2000, 0.1)
  assert.equal(pace.ends([1000, 1000]), [2], 'four times as much')
  assert.equal(pace.ends([1000, 1000, 1]), [2, 3])
})

test('the rest is what the last rate leaves', () => {
  const { clock, pace } = paceAt(1000)
  pace.submitted(1000)
  assert.is(pace.rest(pace.mark()), 0, 'nothing was timed yet')
  clock.now = 100
  pace.done(pace.mark())
  assert.is(pace.rest(pace.mark()), 0, 'nothing is submitted')
  pace.submitted(500)
  pace.submitted(500)
  clock.now = 130
  assert.is(pace.rest(pace.mark()), 70)
})

test('work that is submitted while other work runs is timed from the end of that', () => {
  const { clock, pace } = paceAt(1000)
  pace.submitted(1000)
  const first = pace.mark()
  clock.now = 60
  pace.submitted(1000)
  const second = pace.mark()
  clock.now = 100
  pace.done(first)
  assert.is(pace.rest(second), 100)
  clock.now = 150
  assert.is(pace.rest(second), 50)
  assert.is(pace.rest(first), 0)
  pace.done(second)
  pace.submitted(1000)
  assert.is(pace.rest(pace.mark()), 50, 'twice as fast as the first')
})

deviceTest('a run in many submissions gives the same bits', async () => {
  const { adapter, summary } = await findAdapter()
  const results: Float32Array[] = []
  const counts: number[] = []
  for (const budget of [Number.POSITIVE_INFINITY, 1]) {
    const limits = { maxComputeWorkgroupStorageSize: adapter.limits.maxComputeWorkgroupStorageSize }
    const { adapter: own } = await findAdapter()
    const gpu = await own.requestDevice({ requiredLimits: limits })
    let submissions = 0
    const submit = gpu.queue.submit.bind(gpu.queue)
    gpu.queue.submit = (commands) => {
      submissions++
      submit(commands)
    }
    const device = Object.assign(new Device(gpu, summary), { pace: new Pace(undefined, budget, 1) })
    const program = await compile(device, { x: spec([16, 16]) }, ({ x }) => {
      return { y: matmul(matmul(matmul(x, x), x), x) }
    })
    program.run({ x: Float32Array.from({ length: 256 }, (_, i) => Math.sin(i)) })
    counts.push(submissions)
    results.push(await program.read('y'))
    device.destroy()
  }
  assert.equal(counts, [1, 3])
  assert.equal(results[0], results[1])
})

test.run()
