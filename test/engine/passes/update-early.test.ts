import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assign, read } from '#dist/engine/graph.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { mul, relu, sum } from '#dist/kernels/pointwise.js'
import { sgd } from '#dist/kernels/update.js'
import { onDevice } from '../../support/on-device.js'
import { ramp } from '../../support/random-program.js'

const { deviceTest } = await onDevice()

deviceTest('an update runs as soon as its gradient is there, and gradients then share memory', async (device) => {
  const layers = 6
  // Too large to wait for one another in a batch.
  const size = 2 ** 17
  const store = new Store(device, 'chain')
  const weights = Array.from({ length: layers }, (_, i) => store.declare(`w${i}`, spec([size]), ramp(size)))
  const momentumBuffers = weights.map(({ name }) => store.declare(`v${name}`, spec([size])))
  const program = await compile(device, { x: spec([size]), rate: spec([]) }, ({ x, rate }) => {
    const loss = sum(weights.reduce((y, w) => relu(mul(y, read(w))), x))
    const gradients = grad(loss, weights.map(read))
    for (const [i, gradient] of gradients.entries()) {
      const [parameter, momentumBuffer] = [weights[i], momentumBuffers[i]]
      if (!parameter || !momentumBuffer) throw new Error('unreachable: as many gradients as weights')
      const next = sgd({
        parameter: read(parameter),
        momentumBuffer: read(momentumBuffer),
        gradient,
        learningRate: rate,
      })
      assign(parameter, next.parameter)
      assign(momentumBuffer, next.momentumBuffer)
    }
    return { loss }
  })
  const updates = program.nodes.flatMap((node, i) => (node.name.endsWith('sgd') ? [i] : []))
  const lastGradient = program.nodes.findLastIndex((node) => node.op && !node.name.endsWith('sgd'))
  assert.is(updates.length, layers)
  assert.ok((updates[0] ?? lastGradient) < lastGradient, 'all updates come last')
  program.destroy()
  store.destroy()
})

test.run()
