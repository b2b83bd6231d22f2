// The choice among kernels by what was measured: what decides, and which calls share a choice.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { callOf, fastest, promising, Tuning } from '#dist/engine/autotune.js'
import { defineOp } from '#dist/engine/ir.js'
import type { Candidate } from '#dist/engine/kernel.js'
import { spec } from '#dist/engine/shape.js'
import { kernel, measurement } from '../support/tuning.js'

test('another kernel than the first must be faster by more than the margin', () => {
  assert.is(fastest([100]), 0)
  assert.is(fastest([100, 96]), 0)
  assert.is(fastest([100, 94]), 1)
  assert.is(fastest([100, 94, 50, 51]), 2)
  assert.is(fastest([100, 200]), 0)
  assert.is(fastest([null, 200, 100]), 2)
  assert.is(fastest([100, null]), 0)
  assert.is(fastest([null, null]), 0)
})

const op = defineOp<unknown>('product', { shape: () => [spec([1])], kernel: () => [] })

test('a call is named by classes of shapes', () => {
  const at = (height: number, width: number, channels: number, attrs: object = { stride: 1 }) =>
    callOf({
      name: op.name,
      inputs: [spec([1, height, width, channels]), spec([3, 3, channels, 8]), spec([channels])],
      outputs: [spec([1, height, width, 8])],
      attrs,
    })
  assert.is(at(94, 120, 64), 'product(f32[~8192, 64], f32[~512, 8], f32[64]) {"stride":1}')
  assert.is(at(94, 120, 64), at(90, 120, 64))
  assert.is.not(at(94, 120, 64), at(188, 240, 64))
  assert.is.not(at(94, 120, 64), at(94, 120, 65))
  assert.is.not(at(94, 120, 64), at(94, 120, 64, { stride: 2 }))
  const sized = (height: number, width: number) => at(height, width, 64, { size: [1, height, width, 8] })
  assert.is(sized(94, 120), sized(90, 120))
})

test('a known choice stays, and holds for the very same kernels only', () => {
  const node = { id: 0, op: op as never, name: op.name, inputs: [], attrs: {}, outputs: [], scope: '', backward: false }
  const call = callOf(node)
  const tuning = new Tuning([measurement(call, 'k1'), measurement(call, 'k0')])
  const candidates = (sources: readonly string[]) => sources.map((source, i) => kernel(`k${i}`, source))
  const chosen = (sources: readonly string[]) => tuning.selectKernel(node, candidates(sources))?.name
  assert.is(chosen(['a', 'b']), 'k1')
  assert.is(chosen(['a', 'changed']), 'k0')
  assert.is(chosen(['a', 'b', 'c']), 'k0')
  assert.is(chosen(['b', 'a']), 'k0')
  tuning.add([measurement(call, 'k0')])
  assert.is(chosen(['a', 'b']), 'k1')
  assert.is(tuning.measurements.length, 1)
})

test('kernels that are hopeless by their estimates are not measured, the first and those without one are', () => {
  const estimated = (name: string, estimate?: number): Candidate => ({ ...kernel(name, name), estimate })
  const names = (list: readonly Candidate[]) => promising(list).map(({ name }) => name)
  const plain = kernel('plain', 'plain')
  assert.equal(names([estimated('a', 9), estimated('b', 3), estimated('c', 4), estimated('d', 5), plain]), [
    'a',
    'b',
    'c',
    'plain',
  ])
  assert.equal(names([estimated('a', 1), estimated('b', 1.1), estimated('c', 1.2), estimated('d', 1.3)]), [
    'a',
    'b',
    'c',
  ])
  assert.equal(names([plain, plain]), ['plain', 'plain'])
})

test('calls that are alike in what their speed depends on share a choice', () => {
  const tuned = (epilogue: string): Candidate[] =>
    ['k0', 'k1'].map((name) => ({
      ...kernel(name, `${name} ${epilogue}`),
      tuned: { call: 'product of 3 x 4', sources: [name] },
    }))
  const node = (stride: number) => ({ op: op as never, name: 'p', inputs: [], attrs: { stride }, outputs: [] })
  const kernels = ['k0', 'k1'].map((name) => ({ name, sources: [name] }))
  const tuning = new Tuning([{ call: 'product of 3 x 4', kernels, milliseconds: [2, 1], choice: 'k1' }])
  const select = (stride: number, epilogue: string) =>
    tuning.selectKernel({ ...node(stride), id: 0, scope: '', backward: false }, tuned(epilogue))?.name
  assert.is(select(1, 'relu'), 'k1')
  assert.is(select(2, 'sum'), 'k1')
})

test.run()
