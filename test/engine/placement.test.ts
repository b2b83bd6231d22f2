// Ranges of values, and values one after the other, are places in buffers rather than copies.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '#dist/engine/device.js'
import { assign, read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { compile } from '#dist/engine/program.js'
import { type Data, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { concat, slice } from '#dist/kernels/movement.js'
import { add, mul, relu, scale, sum } from '#dist/kernels/pointwise.js'
import { softmax } from '#dist/kernels/softmax.js'
import { kernelsOf } from '../support/kernels.js'
import { onDevice } from '../support/on-device.js'
import { ramp } from '../support/random-program.js'

const { deviceTest } = await onDevice()

/** Elements of a sample: any sample begins where a binding may. */
const sample = 64

/** Kernels and copies of a program over two samples and one, whose result is that of a program that copies all ranges. */
async function commandsOf(device: Device, body: (x: Tensor, y: Tensor) => Tensor): Promise<string[]> {
  const specs = { x: spec([2, sample]), y: spec([1, sample]) }
  const results: Data[] = []
  const commands: string[][] = []
  for (const optimize of [true, false]) {
    const program = await compile(device, specs, ({ x, y }) => ({ out: body(x, y) }), { optimize })
    program.run({ x: ramp(2 * sample, -70), y: ramp(sample, -9) })
    results.push(await program.read('out'))
    commands.push(kernelsOf(program))
    program.destroy()
  }
  assert.equal(results[0], results[1])
  return commands[0] ?? []
}

deviceTest('samples of a tensor are read where they are', async (device) => {
  const commands = await commandsOf(device, (x) => softmax(slice(x, 0, 1, 1)))
  assert.equal(commands, ['softmax'])
})

deviceTest('what is concatenated lives in the result, also where others read it', async (device) => {
  const commands = await commandsOf(device, (x, y) => {
    const a = softmax(x)
    return add(softmax(concat([a, softmax(y)], 0)), sum(a))
  })
  assert.equal(commands, ['softmax', 'softmax', 'softmax', 'sum', 'add'])
})

deviceTest('what cannot live in the result is copied there', async (device) => {
  // An input of the program, which has its own buffer.
  const ofInput = await commandsOf(device, (x, y) => softmax(concat([x, softmax(y)], 0)))
  assert.equal(ofInput, ['softmax', 'copy', 'softmax'])
  // A value twice.
  const twice = await commandsOf(device, (x, y) => softmax(concat([softmax(x), ...Array(2).fill(softmax(y))], 0)))
  assert.equal(twice, ['softmax', 'softmax', 'copy', 'copy', 'softmax'])
  // A value that is computed from another one: a kernel cannot read and write one buffer.
  const fromOther = await commandsOf(device, (x) => {
    const first = softmax(x)
    return softmax(concat([first, softmax(first)], 0))
  })
  assert.equal(fromOther, ['softmax', 'softmax', 'copy', 'softmax'])
})

deviceTest('gradients of ranges are put side by side, with zeros where there is none', async (device) => {
  const gradient = (ranges: readonly (readonly [number, number])[]) => (x: Tensor) => {
    const y = softmax(x)
    const parts = ranges.map(([start, size]) => slice(y, 0, start, size))
    const [dy] = grad(parts.map((part) => sum(mul(part, part))).reduce(add), [y])
    return softmax(dy ?? x)
  }
  const moves = (commands: readonly string[]) =>
    commands.filter((command) => ['slice', 'pad', 'copy', 'clear'].includes(command))
  const [upper, lower] = [
    [1, 1],
    [0, 1],
  ] as const
  assert.equal(moves(await commandsOf(device, gradient([upper, lower]))), [])
  assert.equal(moves(await commandsOf(device, gradient([upper]))), ['clear'])
})

deviceTest(
  'views of variables are of the store that a run is given, with the values from before it',
  async (device) => {
    const stores = [0, 100].map((start) => {
      const store = new Store(device, `state ${start}`)
      store.declare('v', spec([2, sample]), ramp(2 * sample, start))
      return store
    })
    const [first, second] = stores
    if (!first || !second) throw new Error('unreachable: there are two stores')
    const program = await compile(device, {}, () => {
      const v = first.get('v')
      const part = slice(read(v), 0, 1, 1)
      assign(v, scale(read(v), 2))
      return { part, same: relu(part) }
    })
    for (const store of [first, second, first]) {
      program.run({}, { stores: new Map([[first, store]]) })
      const [part, same] = await program.readAll(['part', 'same'])
      const v = await store.read('v')
      assert.equal(
        [...(part ?? [])].map((value) => 2 * value),
        [...v.subarray(sample)],
      )
      assert.equal(part, same)
    }
    program.destroy()
    for (const store of stores) store.destroy()
  },
)

test.run()
