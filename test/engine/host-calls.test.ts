// Programs that call JavaScript between their dispatches.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '#dist/engine/device.js'
import { apply, applyOne, assign, read, scoped } from '#dist/engine/graph.js'
import { defineOp, type Tensor } from '#dist/engine/ir.js'
import { printProgram } from '#dist/engine/print-program.js'
import { compile } from '#dist/engine/program.js'
import { type Data, type Spec, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { NoTimestampsError, Profiler } from '#dist/engine/timestamps.js'
import { grad } from '#dist/kernels/autograd.js'
import { hostKernel, sumOverRanks } from '#dist/kernels/exchange.js'
import { concat, slice } from '#dist/kernels/movement.js'
import { add, mul, scale, sum } from '#dist/kernels/pointwise.js'
import { sgd } from '#dist/kernels/update.js'
import { localRanks } from '../support/local-ranks.js'
import { messageOf } from '../support/messages.js'
import { nullDevice } from '../support/null-device.js'
import { onDevice } from '../support/on-device.js'
import { ramp } from '../support/random-program.js'

const { deviceTest } = await onDevice()

interface Calls {
  readonly name: string
  readonly log: string[]
  /** Milliseconds that it takes. */
  readonly takes?: number
}

/** Adds 1 to each tensor, in JavaScript. */
const incrementOp = defineOp<Calls>('increment', {
  callsHost: true,
  shape: (inputs) => inputs.map(({ shape }): Spec => spec(shape)),
  vjp: ({ grads }) => grads,
  kernel: (context) => {
    const { name, log, takes = 0 } = context.attrs
    return hostKernel(name, context, async (values): Promise<Data[]> => {
      log.push(`${name} begins`)
      await new Promise((resolve) => setTimeout(resolve, takes))
      log.push(`${name} ends`)
      return values.map((value) => value.map((x) => x + 1))
    })
  },
})
const increment = (x: Tensor, calls: Calls): Tensor => applyOne(incrementOp, [x], calls)

const extent = 640

/** Every way of a value into and out of host calls: views, joined values, variables, two at a time. */
async function runAll(device: Device, optimize: boolean, share: boolean): Promise<number[][]> {
  const store = new Store(device, 'state')
  const counter = store.declare('counter', spec([extent]), ramp(extent, 1))
  const log: string[] = []
  const program = await compile(
    device,
    { x: spec([2, extent / 2]) },
    ({ x }) => {
      const half = increment(slice(x, 0, 1, 1), { name: 'half', log })
      const [a, b] = apply(incrementOp, [scale(x, 2), mul(half, half)], { name: 'two', log }) as [Tensor, Tensor]
      const joined = concat([b, increment(b, { name: 'joined', log }), a], 0)
      const next = increment(read(counter), { name: 'counter', log })
      assign(counter, next)
      return { a: a.reshape(extent), joined, count: scale(read(counter), 3), half }
    },
    { optimize, share },
  )
  assert.is(program.memory.hostCalls, 4)
  const results: number[][] = []
  for (let k = 0; k < 2; k++) {
    await program.runAsync({ x: ramp(extent, k) })
    const outputs = await program.readAll(['a', 'joined', 'count', 'half'])
    results.push(...outputs.map((data) => [...data]))
  }
  results.push([...(await store.read('counter'))])
  program.destroy()
  store.destroy()
  return results
}

deviceTest('host calls get and give values wherever they lie', async (device) => {
  const x = ramp(extent, 1)
  const half = [...x.subarray(extent / 2)].map((value) => value + 1)
  const all = await runAll(device, true, true)
  const [, , , , a, joined, count, lastHalf, counter] = all
  assert.equal(lastHalf, half)
  assert.equal(
    a,
    [...x].map((value) => 2 * value + 1),
  )
  const squares = half.map((value) => Math.fround(value * value) + 1)
  assert.equal(joined, [...squares, ...squares.map((value) => value + 1), ...(a ?? [])])
  assert.equal(
    counter,
    [...ramp(extent, 1)].map((value) => value + 2),
  )
  assert.equal(
    count,
    counter?.map((value) => 3 * value),
  )
  for (const [optimize, share] of [
    [true, false],
    [false, true],
    [false, false],
  ] as const) {
    assert.equal(await runAll(device, optimize, share), all, `optimize ${optimize}, share ${share}`)
  }
})

deviceTest('equal host calls are all made, once in each run, and begin in their order', async (device) => {
  const log: string[] = []
  const slow = { name: 'slow', log, takes: 500 }
  const program = await compile(device, { x: spec([extent]) }, ({ x }) => {
    const first = increment(x, slow)
    const second = increment(x, slow)
    const quick = increment(scale(x, 2), { name: 'quick', log })
    return { y: add(add(first, second), quick) }
  })
  await program.runAsync({ x: ramp(extent, 0) })
  const begins = log.filter((line) => line.endsWith('begins'))
  assert.equal(begins, ['slow begins', 'slow begins', 'quick begins'])
  // The device and the later calls do not wait for what nothing needs yet.
  assert.equal(log.slice(0, 4), [...begins, 'quick ends'])
  assert.equal(
    await program.read('y'),
    ramp(extent, 0).map((value) => 4 * value + 3),
  )
  assert.is(await messageOf(() => program.run({ x: ramp(extent, 0) })), 'program holds host calls: it takes runAsync')
  program.destroy()
})

deviceTest('a host call that fails ends the run, and a missing result is an error', async (device) => {
  const failing = (body: () => Promise<Data[]>) =>
    defineOp<undefined>('failing', {
      callsHost: true,
      shape: ([x = spec([])]) => [x],
      kernel: (context) => hostKernel('failing', context, body),
    })
  for (const [body, message] of [
    [async () => Promise.reject(new Error('the other side is gone')), /the other side is gone/],
    [async () => [], /the host call failing gave no result 0/],
    [async () => [new Float32Array(3)], /host call failing is f32\[2\], not a Float32Array of 3 elements/],
  ] as const) {
    const op = failing(body as () => Promise<Data[]>)
    const program = await compile(device, { x: spec([2]) }, ({ x }) => ({ y: scale(applyOne(op, [x], undefined), 2) }))
    const error = await program.runAsync({ x: new Float32Array(2) }).catch((reason: unknown) => reason)
    assert.match(String(error), message)
    program.destroy()
  }
})

/** Two parameters in a row of layers, trained with gradients that are passed through a host call. */
function trainingStep(device: Device, log: string[], recompute?: (scope: string) => string | undefined) {
  const store = new Store(device, 'model')
  const weights = [0, 1].map((i) => store.declare(`w${i}`, spec([extent]), ramp(extent, i + 1)))
  return compile(
    device,
    { x: spec([extent]), rate: spec([]) },
    ({ x, rate }) => {
      const layer = (value: Tensor, i: number) =>
        scoped(`layer${i}`, () => {
          const inner = increment(mul(value, read(weights[i] as never)), { name: `layer ${i}`, log })
          return mul(inner, inner)
        })
      const loss = sum(layer(layer(x, 0), 1))
      const gradients = grad(loss, weights.map(read))
      for (const i of [1, 0]) {
        const parameter = weights[i] as (typeof weights)[0]
        const gradient = increment(gradients[i] as Tensor, { name: `gradient ${i}`, log })
        const momentumBuffer = scale(read(parameter), 0)
        assign(parameter, sgd({ parameter: read(parameter), momentumBuffer, gradient, learningRate: rate }).parameter)
      }
      return { loss }
    },
    recompute ? { recompute } : {},
  ).then((program) => ({ program, store }))
}

deviceTest('recomputation repeats no host call, and gradients leave while the rest is computed', async (device) => {
  const run = async (recompute?: (scope: string) => string | undefined) => {
    const log: string[] = []
    const { program, store } = await trainingStep(device, log, recompute)
    await program.runAsync({ x: ramp(extent, 0).map((value) => value / extent), rate: Float32Array.of(1e-3) })
    const values = [...(await store.readAll()).values()].map((data) => [...data])
    const { kernels } = program
    program.destroy()
    store.destroy()
    return { log, values, kernels }
  }
  const kept = await run()
  assert.equal(
    kept.log.filter((line) => line.endsWith('begins')),
    ['layer 0 begins', 'layer 1 begins', 'gradient 1 begins', 'gradient 0 begins'],
  )
  const begins = kept.kernels.flatMap((kernel, i) => (kernel === 'host begin' ? [i] : []))
  const ends = kept.kernels.flatMap((kernel, i) => (kernel === 'host end' ? [i] : []))
  const [, , first = 0, second = 0] = begins
  assert.ok(kept.kernels.slice(first, second).some((kernel) => !kernel.startsWith('host')))
  assert.ok((ends[2] ?? 0) > second)
  const again = await run((scope) => /^layer\d/.exec(scope)?.[0])
  assert.equal(again.log.length, kept.log.length)
  assert.equal(again.values, kept.values)
})

deviceTest('profiles time what runs between host calls', async (device) => {
  let profiler: Profiler
  try {
    profiler = new Profiler(device)
  } catch (error) {
    assert.instance(error, NoTimestampsError)
    return
  }
  const { program, store } = await trainingStep(device, [])
  const run = () => program.runAsync({ x: ramp(extent, 0), rate: Float32Array.of(0) })
  const { runs } = await profiler.record('kernels', run)
  assert.ok(runs.length > 4)
  const timed = runs.flatMap(({ kernels }) => kernels)
  const computed = program.kernels.filter((kernel) => !kernel.startsWith('host')).length
  // Four values are copied for the host, and two variables take new values.
  assert.ok(timed.length >= computed + 4)
  for (const { start, end } of timed) assert.ok(end >= start)
  profiler.destroy()
  program.destroy()
  store.destroy()
})

deviceTest('the gradient of a sum over ranks is that of all losses', async (device) => {
  const ranks = localRanks(2)
  const results = await Promise.all(
    ranks.map(async (exchange, rank) => {
      const program = await compile(device, { x: spec([2]) }, ({ x }) => {
        const [total] = sumOverRanks([x], exchange) as [Tensor]
        const loss = sum(mul(total, scale(total, rank + 1)))
        const [dx] = grad(loss, [x]) as [Tensor]
        return { total, dx }
      })
      await program.runAsync({ x: Float32Array.of(1 + rank, 5) })
      const [total, dx] = await program.readAll(['total', 'dx'])
      program.destroy()
      return { total: [...(total ?? [])], dx: [...(dx ?? [])] }
    }),
  )
  // d(t² + 2t²)/dx = 6t with t = [3, 10].
  for (const result of results) assert.equal(result, { total: [3, 10], dx: [18, 60] })
})

test('dry devices count host calls, and the text of a program shows them', async () => {
  const { program } = await trainingStep(nullDevice(), [])
  assert.is(program.memory.hostCalls, 4)
  assert.equal(program.hostCalls.at(-1), 'gradient 0 f32[640]')
  assert.match(printProgram(program), /increment\s+host call begins\s+0\.0 MiB\s+%\d+\.0 b\d+(\+\d+)? → host/)
  assert.match(printProgram(program), /increment\s+host call ends\s+0\.0 MiB\s+host → %\d+\.0 b\d+/)
})

test.run()
