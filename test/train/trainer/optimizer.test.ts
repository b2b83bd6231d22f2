import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { read } from '#dist/engine/graph.js'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { mul, sum } from '#dist/kernels/pointwise.js'
import { createModel } from '#dist/models/index.js'
import { LossScale } from '#dist/train/trainer/loss-scale.js'
import { learningRateAt } from '#dist/train/trainer/lr-schedule.js'
import { createState, type OptimizerSettings, optimizerOf, updateParameters } from '#dist/train/trainer/optimizer.js'
import { smallModel } from '../../support/small-model.js'

const device = await open()
test.after(() => device.destroy())

const adamw: OptimizerSettings = {
  optimizer: { name: 'adamw', betas: [0.9, 0.999], eps: 1e-8, norm_decay: 0 },
  weight_decay: 0.5,
}

/** Steps of two parameters of one element, whose gradients are given; where they are scaled, those may not be finite. */
async function steps(settings: OptimizerSettings, gradients: readonly number[], isScaled = false) {
  const store = new Store(device, 'model')
  const weight = store.declare('weight', spec([2]), Float32Array.of(1, 1))
  const norm = store.declare('norm', spec([2]), Float32Array.of(1, 1))
  const groups = [{ name: 'backbone', parameters: [weight, norm], normalization: new Set([norm]) }] as const
  const optimizer = optimizerOf(settings)
  const state = createState(optimizer, groups)
  const lossScale = isScaled ? new LossScale(new Store(device, 'loss scale')) : undefined
  const program = await compile(device, { x: spec([2]), rate: spec([]), ...optimizer.inputs }, (inputs) => {
    const loss = sum(mul(mul(read(weight), read(norm)), inputs.x))
    const rates = { backbone: inputs.rate, head: inputs.rate }
    updateParameters(loss, [{ groups, state }], { optimizer, rates, inputs, lossScale })
    return {}
  })
  const rows: { weight: number; norm: number }[] = []
  let updates = 0
  for (const gradient of gradients) {
    const x = Float32Array.of(gradient, 0)
    program.run({ x, rate: Float32Array.of(0.1), ...optimizer.values(updates + 1) })
    if (Number.isFinite(gradient)) updates++
    rows.push({ weight: (await store.read('weight'))[1] ?? 0, norm: (await store.read('norm'))[1] ?? 0 })
  }
  const first = (await store.read('weight'))[0] ?? 0
  program.destroy()
  for (const each of [store, ...state]) each.destroy()
  lossScale?.destroy()
  return { rows, first }
}

test('weight decay of normalisation layers of the backbone is apart', async () => {
  // Without a gradient AdamW changes a parameter by its decay alone.
  const { rows } = await steps(adamw, [1, 1])
  assert.ok(Math.abs((rows[1]?.weight ?? 0) - 0.95 ** 2) < 1e-6)
  assert.is(rows[1]?.norm, 1)
  const { rows: same } = await steps(
    { ...adamw, optimizer: { ...adamw.optimizer, norm_decay: undefined } as never },
    [1],
  )
  assert.is(same[0]?.norm, same[0]?.weight)
  const { rows: plain } = await steps({ weight_decay: 0.5 }, [1])
  assert.ok(Math.abs((plain[0]?.weight ?? 0) - 0.95) < 1e-6)
})

test('the first step of AdamW has the length of the learning rate, whatever the gradient', async () => {
  for (const gradient of [1e-3, 1, 1e3]) {
    const { first } = await steps({ ...adamw, weight_decay: 0 }, [gradient])
    assert.ok(Math.abs(first - 0.9) < 1e-4, `${gradient}: ${first}`)
  }
})

test('a skipped step of AdamW changes nothing, and does not count', async () => {
  const good = await steps(adamw, [1, 1], true)
  const skipped = await steps(adamw, [1, Number.NaN, 1], true)
  assert.equal(skipped.rows[1], skipped.rows[0])
  assert.equal(skipped.rows[2], good.rows[1])
  assert.is(skipped.first, good.first)
})

test('a model tells which of its parameters are those of normalisation layers', () => {
  const model = createModel(new Store(device, 'model'), {
    architecture: 'deeplabv3plus',
    config: { ...smallModel, nclass: 5 },
  })
  const [backbone] = model.groups
  const names = [...(backbone?.normalization ?? [])].map(({ name }) => name)
  assert.ok(names.includes('backbone.layer1.0.bn1.weight') && names.includes('backbone.bn1.bias'))
  assert.ok(
    names.every((name) => /\.(bn\d|conv1\.[14]|downsample\.1)\.(weight|bias)$/.test(name)),
    names.join(' '),
  )
  const norms = backbone?.parameters.filter(({ spec: { shape } }) => shape.length === 1)
  assert.is(names.length, norms?.length)
  model.store.destroy()
})

test('learning rates: warm-up, power, length, set before or after a step', () => {
  const schedule = { power: 1, warmup_iterations: 4, warmup_ratio: 0.5, iterations: 10, set: 'before' } as const
  const rates = Array.from({ length: 13 }, (_, i) => learningRateAt(8, i, 100, schedule))
  assert.equal(rates.slice(0, 5), [4, 5, 6, 7, 8 * (1 - 4 / 10)])
  assert.ok(Math.abs((rates[9] ?? 0) - 8 * (1 - 9 / 10)) < 1e-12)
  assert.equal(rates.slice(10), [rates[9], rates[9], rates[9]])
  const after = Array.from({ length: 5 }, (_, i) => learningRateAt(8, i, 100, { ...schedule, set: 'after' }))
  assert.equal(after, [4, 4, 5, 6, 7])
})

test.run()
