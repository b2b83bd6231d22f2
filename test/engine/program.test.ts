// Programs as a whole: the same numbers however they are optimised, inputs, shared buffers, determinism.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { ohemCrossEntropy } from '#dist/kernels/loss.js'
import { relu } from '#dist/kernels/pointwise.js'
import { softmax } from '#dist/kernels/softmax.js'
import { Random } from '../../cases/case.js'
import { messageOf } from '../support/messages.js'
import { onDevice } from '../support/on-device.js'
import { ramp, randomProgram } from '../support/random-program.js'

const { deviceTest } = await onDevice()

deviceTest('random programs give the same numbers with and without optimisation', async (device) => {
  const extent = 128
  const names = ['a', 'b', 'c', 'part'] as const
  const small = (start: number) => ramp(extent, start).map((value) => value / extent)
  for (let seed = 0; seed < 24; seed++) {
    const results: Float32Array[][] = []
    for (const optimize of [true, false]) {
      const random = new Random(`run ${seed}`)
      const store = new Store(device, 'state')
      const variables = ['u', 'v'].map((name, i) => store.declare(name, spec([extent]), small(i)))
      const build = () =>
        compile(
          device,
          { x: spec([extent]), y: spec([extent]) },
          ({ x, y }) => randomProgram(random, variables, [x, y]) as Record<(typeof names)[number], Tensor>,
          { optimize },
        )
      let program: Awaited<ReturnType<typeof build>>
      try {
        program = await build()
      } catch (error) {
        assert.match(String(error), /copied both from and to/)
        continue
      }
      for (let k = 0; k < 2; k++) program.run({ x: small(1), y: small(-64) })
      const outputs = await program.readAll(names)
      const state = await store.readAll()
      results.push([...outputs, ...state.values()].map((data) => Float32Array.from(data)))
      program.destroy()
      store.destroy()
    }
    const [optimized = [], naive = []] = results
    for (const [i, list] of optimized.entries()) {
      for (const [k, value] of list.entries()) {
        const other = naive[i]?.[k] ?? Number.NaN
        const close = Object.is(value, other) || Math.abs(value - other) <= 1e-5 * Math.max(1, Math.abs(other))
        assert.ok(close, `seed ${seed}, result ${i}: ${list} and ${naive[i]}`)
      }
    }
  }
})

deviceTest('values with disjoint lifetimes share buffers', async (device) => {
  const body = ({ x }: { x: Tensor }) => {
    let y = x
    for (let k = 0; k < 8; k++) y = softmax(y)
    return { y }
  }
  const program = await compile(device, { x: spec([32, 32]) }, body)
  const naive = await compile(device, { x: spec([32, 32]) }, body, { optimize: false })
  assert.ok(program.memory.planned <= 4 * 4096, `${program.memory.planned} bytes planned`)
  assert.ok(program.memory.unshared > 8 * 4096 - 1, `${program.memory.unshared} bytes without sharing`)
  assert.is(naive.memory.planned, naive.memory.unshared)
})

const wrongInput: [string, Parameters<typeof spec>, Float32Array | Uint8Array | undefined, RegExp][] = [
  ['too short', [[3]], new Float32Array(2), /input 'x' is f32\[3\], not a Float32Array of 2/],
  ['of another type', [[3]], new Uint8Array(3), /input 'x' is f32\[3\], not a Uint8Array of 3/],
  ['missing', [[3]], undefined, /input 'x' is missing/],
]
for (const [name, shape, data, expected] of wrongInput) {
  deviceTest(`an input that is ${name} is an error`, async (device) => {
    const program = await compile(device, { x: spec(...shape) }, ({ x }) => ({ y: relu(x) }))
    assert.match(await messageOf(() => program.run({ x: data as Float32Array })), expected)
  })
}
deviceTest('the same inputs give the same bits', async (device) => {
  const inputs = { x: spec([2, 33, 31, 3]), w: spec([3, 3, 3, 8]), g: spec([8]), target: spec([2, 33, 31], 'u8') }
  const build = () =>
    compile(device, inputs, ({ x, w, g, target }) => {
      const statistics = { weight: g, bias: g, runningMean: g, runningVar: g }
      const { y, runningVar } = batchNormTraining(conv2d(x, w, { padding: 1 }), statistics)
      const { loss, kept } = ohemCrossEntropy(y, target, { threshold: 0.3, minKept: 500 })
      const [dw, dg] = grad(loss, [w, g])
      if (!dw || !dg) throw new Error('grad gave nothing')
      return { loss, kept, runningVar, dw, dg }
    })
  const random = new Random('determinism')
  const data = {
    x: new Float32Array(2 * 33 * 31 * 3).map(() => random.normal()),
    w: new Float32Array(216).map(() => random.normal()),
    g: new Float32Array(8).fill(1),
    target: new Uint8Array(2 * 33 * 31).map(() => (random.integer(9) ? random.integer(8) : 255)),
  }
  const names = ['loss', 'kept', 'runningVar', 'dw', 'dg'] as const
  const bits: Uint8Array[][] = []
  for (let k = 0; k < 2; k++) {
    const program = await build()
    for (let run = 0; run < 2; run++) {
      program.run(data)
      bits.push(
        (await program.readAll(names)).map((list) => new Uint8Array(list.buffer, list.byteOffset, list.byteLength)),
      )
    }
    program.destroy()
  }
  assert.ok(
    bits[0]?.[3]?.some((byte) => byte !== 0),
    'gradients of 0 prove nothing',
  )
  for (const other of bits.slice(1)) assert.equal(other, bits[0])
})

test.run()
