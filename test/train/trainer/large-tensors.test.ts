// Steps and evaluations on an adapter that binds less than their tensors take, beside one that binds all.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Device } from '#dist/engine/device.js'
import { open } from '#dist/engine/node.js'
import { Store } from '#dist/engine/store.js'
import { createModel } from '#dist/models/index.js'
import { type EvaluationOptions, Evaluator } from '#dist/train/evaluation/evaluator.js'
import { Random as RunRandom } from '#dist/train/random.js'
import { randomBatch } from '../../../bench/random-field.js'
import { Random } from '../../../cases/case.js'
import { stepModels, stepTrainer } from '../../../cases/steps.js'
import { runTrajectory } from '../../golden/trajectory.js'
import { smallModel } from '../../support/small-model.js'

const device = await open()
test.after(() => device.destroy())

/** The same device, of which kernels bind so many bytes at most; and the most that is bound on it. */
function binding(limit: number): { readonly limited: Device; readonly bound: { most: number } } {
  const bound = { most: 0 }
  const gpu = new Proxy(device.gpu, {
    get(target, name) {
      if (name !== 'createBindGroup') {
        const value: unknown = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      }
      return (descriptor: GPUBindGroupDescriptor) => {
        for (const { resource } of descriptor.entries)
          if ('size' in resource) bound.most = Math.max(bound.most, resource.size ?? 0)
        return target.createBindGroup(descriptor)
      }
    },
  })
  return {
    limited: new Device(gpu, device.adapter, undefined, {
      matrixConfigs: device.traits.matrixConfigs,
      bindingLimit: limit,
    }),
    bound,
  }
}

/** How far `actual` is from `expected`, relative to the largest of them. */
function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [worst, largest] = [0, Number.MIN_VALUE]
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? 0)))
    largest = Math.max(largest, Math.abs(expected[i] ?? 0))
  }
  return worst / largest
}

/** Sums of thousands of terms in another order; four steps carry the differences on. */
const tolerance = 1e-5

// The logits of one image take 17,424 and 33,620 bytes.
for (const [folder, limit] of [
  ['pascal', 18_000],
  ['cityscapes', 18_000],
  ['augseg', 34_000],
] as const) {
  test(`${folder}: recorded steps have the same losses where no batch can be bound`, async () => {
    const whole = await runTrajectory(device, `test/fixtures/${folder}`)
    const { limited, bound } = binding(limit)
    const divided = await runTrajectory(limited, `test/fixtures/${folder}`)
    assert.ok(bound.most > 0 && bound.most <= limit, `${bound.most} bytes bound`)
    for (const [i, { metrics }] of whole.rows.entries()) {
      const { metrics: got = {} } = divided.rows[i] ?? {}
      assert.ok(metrics.total_loss !== undefined && metrics.total_loss > 0)
      for (const [name, value] of Object.entries(metrics))
        assert.ok(
          difference([got[name] ?? Number.NaN], [value]) <= tolerance,
          `${name} of step ${i}: ${got[name]}, ${value}`,
        )
    }
    for (const { trainer, model } of [whole, divided]) {
      trainer.destroy()
      model.store.destroy()
    }
  })
}

/** Two steps from random weights. */
async function steps(on: Device, method: string) {
  const { nclass, model: widths } = stepModels.small
  const [crop, batch] = [65, 2]
  const trainer = await stepTrainer(on, { nclass, model: widths }, method, { crop, batch })
  const { store } = trainer.model
  const values = new Store(on, 'values')
  const config = { ...trainer.model.config }
  createModel(values, { architecture: trainer.model.architecture, config }, new RunRandom(3))
  store.copyFrom(values)
  const random = new Random(method)
  const rows: Readonly<Record<string, number>>[] = []
  for (let k = 0; k < 2; k++) {
    const data = randomBatch(trainer.layout, batch, crop, nclass, random)
    rows.push((await trainer.step(data)).metrics)
  }
  const weights = await store.readAll()
  values.destroy()
  trainer.destroy()
  store.destroy()
  return { rows, weights }
}

for (const method of ['supervised', 'unimatch']) {
  test(`${method}: two steps give the same weights where no batch can be bound`, async () => {
    const whole = await steps(device, method)
    // The logits of one image take 84,500 bytes.
    const { limited, bound } = binding(90_000)
    const divided = await steps(limited, method)
    assert.ok(bound.most > 0 && bound.most <= 90_000, `${bound.most} bytes bound`)
    for (const [i, row] of whole.rows.entries()) {
      const names = Object.keys(row)
      const [got, wanted] = [divided.rows[i] ?? {}, row].map((metrics) =>
        names.map((name) => metrics[name] ?? Number.NaN),
      )
      assert.ok(difference(got ?? [], wanted ?? []) <= tolerance, `step ${i}: ${got}, ${wanted}`)
    }
    for (const [name, wanted] of whole.weights) {
      const got = divided.weights.get(name) ?? new Float32Array()
      const largest = Math.max(...Float32Array.from(wanted, Math.abs))
      // A relu that lands on the other side of zero changes a gradient by up to 1e-3, and by that a weight by up to 1e-6.
      const allowed = 1e-4 * largest + 1e-6
      assert.ok(difference(got, wanted) * largest <= allowed, `${name}: ${difference(got, wanted)} of ${largest}`)
    }
  })
}

test('evaluations count the same pixels where no batch of windows can be bound', async () => {
  const nclass = 4
  const config = { ...smallModel, nclass }
  const model = createModel(new Store(device, 'model'), { architecture: 'deeplabv3plus', config }, new RunRandom(1))
  const random = new Random('image')
  const [width, height] = [95, 50]
  const bytes = (count: number, limit: number) => Uint8Array.from({ length: count }, () => random.integer(limit))
  const image = { data: bytes(width * height * 3, 256), width, height }
  const label = { data: bytes(width * height, nclass), width, height }
  const options: EvaluationOptions = { mode: 'sliding_window', window: 33, scores: true }
  for (const more of [{}, { flip: true, scales: [0.75, 1] }]) {
    const results: { counts: Float64Array; scores: Float32Array }[] = []
    for (const limit of [Number.POSITIVE_INFINITY, 80_000]) {
      const { limited, bound } = binding(limit)
      const evaluator = new Evaluator(limited, model, { ...options, ...more })
      const { scores = new Float32Array() } = (await evaluator.add({ image, label }, true)) ?? {}
      results.push({ counts: await evaluator.confusion(), scores })
      assert.ok(bound.most <= limit, `${bound.most} bytes bound`)
      evaluator.destroy()
    }
    const [whole, divided] = results
    assert.equal(divided, whole)
  }
  model.store.destroy()
})

test.run()
