import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { applyOne, Graph, traceOf, tracing } from '#dist/engine/graph.js'
import { defineOp, type Op } from '#dist/engine/ir.js'
import { shareEqual } from '#dist/engine/passes/rewrite.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { add, mul, scale, sum } from '#dist/kernels/pointwise.js'
import { kernelsOf } from '../../support/kernels.js'
import { onDevice } from '../../support/on-device.js'

const { deviceTest } = await onDevice()

deviceTest('equal calls run once, and what nothing needs does not run', async (device) => {
  const program = await compile(device, { x: spec([5]), w: spec([3, 3]) }, ({ x, w }) => {
    sum(w)
    return { y: add(sum(x), mul(sum(x), sum(x))) }
  })
  assert.equal(kernelsOf(program), ['sum', 'add'])
  const naive = await compile(device, { x: spec([5]) }, ({ x }) => ({ y: add(sum(x), sum(x)) }), { optimize: false })
  assert.equal(kernelsOf(naive), ['sum', 'sum', 'add'])
  // Too large to share a dispatch.
  const different = await compile(device, { x: spec([2 ** 17]) }, ({ x }) => ({ a: scale(x, 2), b: scale(x, 3) }))
  assert.is(different.kernels.length, 2)
})

/** How many calls are left of one for each of `calls`, all on one input. */
function leftOf(calls: readonly { op: Op<unknown>; attrs: unknown }[]): number {
  const graph = new Graph()
  const x = graph.input('x', spec([4]))
  const outputs = tracing(graph, () => calls.map(({ op, attrs }) => applyOne(op, [x], attrs)))
  const trace = traceOf(graph, new Map(outputs.map((value, i) => [`y${i}`, value])))
  return shareEqual(trace).nodes.filter(({ op }) => op).length
}

const unary = () => defineOp<unknown>('unary', { shape: ([x = spec([])]) => [x], kernel: () => [] })

test('calls are equal by their operator itself and by all that their attributes hold', () => {
  const op = unary()
  assert.is(
    leftOf([
      { op, attrs: { rate: 1 } },
      { op, attrs: { rate: 1 } },
    ]),
    1,
  )
  assert.is(
    leftOf([
      { op, attrs: {} },
      { op: unary(), attrs: {} },
    ]),
    2,
  )
  const distinct = [
    undefined,
    null,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    0,
    -0,
    1n,
    () => 0,
    () => 0,
    Uint8Array.of(1),
  ]
  const calls = distinct.map((rate) => ({ op, attrs: { rate } }))
  assert.is(leftOf(calls), distinct.length)
  assert.is(leftOf([...calls, ...calls]), distinct.length)
})

test('calls are equal only where they see their operands and store their results alike', () => {
  const op = unary()
  const graph = new Graph()
  const x = graph.input('x', spec([4]))
  const outputs = tracing(graph, () => [x, x.reshape(2, 2)].map((value) => applyOne(op, [value], {})))
  const trace = traceOf(graph, new Map(outputs.map((value, i) => [`y${i}`, value])))
  assert.is(shareEqual(trace).nodes.length, 3)
  const twice = tracing(graph, () => applyOne(op, [x], {}))
  const stored = graph.nodes.map((node) => (node === twice.node ? { ...node, outputs: [spec([4], 'f16')] } : node))
  assert.is(shareEqual({ ...trace, nodes: graph.nodes }).nodes.length, 3)
  assert.is(shareEqual({ ...trace, nodes: stored }).nodes.length, 4)
})

test.run()
