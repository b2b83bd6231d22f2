import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assign, Graph, read, scoped, traceOf, tracing } from '#dist/engine/graph.js'
import type { Tensor, Trace } from '#dist/engine/ir.js'
import { open } from '#dist/engine/node.js'
import { recompute } from '#dist/engine/passes/recompute.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { batchNormTraining } from '#dist/kernels/batchnorm.js'
import { matmul } from '#dist/kernels/matmul.js'
import { relu, sum } from '#dist/kernels/pointwise.js'
import { type RunOptions, runTrajectory } from '../../golden/trajectory.js'
import { nullDevice } from '../../support/null-device.js'
import { skipUnless } from '../../support/skip.js'

const device = await open()
test.after(() => device.destroy())

/** Loss and gradients of two layers of matmul, batch norm and relu; the first one is the stage. */
function twoLayers(): Trace {
  const store = new Store(nullDevice(), 'state')
  const declare = (name: string) => store.declare(name, spec([4]))
  const norms = ['a', 'b'].map((layer) => ({
    weight: declare(`${layer}.weight`),
    bias: declare(`${layer}.bias`),
    runningMean: declare(`${layer}.mean`),
    runningVar: declare(`${layer}.variance`),
  }))
  const graph = new Graph()
  const x = graph.input('x', spec([8, 4]))
  const weights = ['first', 'second'].map((name) => graph.input(name, spec([4, 4])))
  const body = (): Record<string, Tensor> => {
    let y = x
    for (const [i, norm] of norms.entries()) {
      y = scoped(i === 0 ? 'stage.0' : 'rest', () => {
        const { weight, bias, runningMean, runningVar } = norm
        const state = {
          weight: read(weight),
          bias: read(bias),
          runningMean: read(runningMean),
          runningVar: read(runningVar),
        }
        const normal = batchNormTraining(matmul(y, weights[i] as Tensor), state)
        assign(runningMean, normal.runningMean)
        assign(runningVar, normal.runningVar)
        return relu(normal.y)
      })
    }
    const loss = sum(y)
    const [first, second] = grad(loss, weights)
    return { loss, first: first as Tensor, second: second as Tensor }
  }
  return traceOf(graph, new Map(Object.entries(tracing(graph, body))))
}

const inStage = (scope: string): string | undefined => (scope.startsWith('stage') ? 'stage' : undefined)

test('within a stage what only the backward pass reads later is computed twice, in front of it', () => {
  const trace = twoLayers()
  const result = recompute(trace, inStage)
  const count = (list: Trace, name: string) =>
    list.nodes.filter((node) => node.name === name && node.scope === 'stage.0').length
  assert.is(count(result, 'matmul'), count(trace, 'matmul') + 1)
  // Running statistics must not move twice, the stage's result is there anyway, and no gradient needs what is between.
  for (const name of ['batchNormStatistics', 'relu', 'batchNorm'])
    assert.is(count(result, name), count(trace, name), name)
  const forward = result.nodes.filter(({ backward, op }) => op && !backward)
  assert.equal(
    forward.map(({ id }) => id),
    trace.nodes.filter(({ backward, op }) => op && !backward).map(({ id }) => id),
  )
  const forwardIds = new Set(forward.filter(({ scope }) => scope === 'stage.0').map(({ id }) => id))
  const readLater = result.nodes
    .filter(({ backward }) => backward)
    .flatMap(({ inputs }) => inputs.filter((value) => forwardIds.has(value.node.id)).map(({ node }) => node.name))
  assert.equal([...new Set(readLater)].sort(), ['batchNormStatistics', 'relu'])
  const position = new Map(result.nodes.map(({ id }, i) => [id, i]))
  for (const [i, node] of result.nodes.entries()) {
    for (const value of node.inputs)
      assert.ok((position.get(value.node.id) ?? i) < i, 'a value is read before it is made')
  }
})

test('without a stage nothing changes', () => {
  const trace = twoLayers()
  const ids = (list: Trace) => list.nodes.map(({ id }) => id)
  assert.equal(ids(recompute(trace, () => undefined)), ids(trace))
})

const halfTest = skipUnless(device.traits.half, 'the adapter has no shader-f16')
const kinds = [
  { method: 'supervised', amp: false },
  { method: 'prevmatch', amp: false },
  { method: 'prevmatch', amp: true },
] as const

for (const { method, amp } of kinds) {
  const name = `${method}${amp ? ' in half precision' : ''}`
  const register = amp ? halfTest : test
  register(`${name}: four steps with checkpointed stages give the same bits as without, in less memory`, async () => {
    const run = async (settings: RunOptions['settings']) => {
      const options = { amp, settings: { method, ...settings } }
      const { rows, model, trainer } = await runTrajectory(device, 'test/fixtures/pascal', options)
      const values = [await model.store.readAll(), await trainer.optimizerState[0]?.readAll()]
      const { live } = trainer.memory
      trainer.destroy()
      model.store.destroy()
      return { rows, values, live, stages: Object.keys(model.stages) }
    }
    const plain = await run({})
    for (const activation_checkpointing of [['layer2'], plain.stages]) {
      const lean = await run({ activation_checkpointing })
      assert.equal(lean.rows, plain.rows)
      assert.equal(lean.values, plain.values)
      assert.ok(lean.live < plain.live, `${lean.live} bytes instead of ${plain.live}`)
    }
  })
}

test.run()
