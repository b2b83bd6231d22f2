import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { drawPrevious, lambdaAt } from '#dist/train/methods/prevmatch.js'
import { SnapshotList } from '#dist/train/methods/snapshots.js'
import { drawDropout } from '#dist/train/methods/unimatch.js'
import { Random } from '#dist/train/random.js'
import { learningRateAt } from '#dist/train/trainer/lr-schedule.js'
import { passes } from '../../golden/report.js'
import { checkFinal, finalTensors, runTrajectory, type Trajectory } from '../../golden/trajectory.js'

const device = await open()
test.after(() => device.destroy())

const free = ({ trainer, model }: Trajectory): void => {
  trainer.destroy()
  model.store.destroy()
}

// `pascal`: cross entropy, pixelwise, learning rate of the decoder times 10. `cityscapes`: OHEM, pixelavg.
// `coco`: an Xception in place of the residual network.
for (const name of ['pascal', 'cityscapes', 'coco']) {
  test(`${name}: four steps of PrevMatch, two with a previous model, agree with PyTorch`, async () => {
    const folder = `test/fixtures/${name}`
    const run = await runTrajectory(device, folder)
    const results = run.checks.flatMap(({ iteration, results }) =>
      results.map((result) => ({ ...result, name: `iteration ${iteration}: ${result.name}` })),
    )
    assert.is(run.rows.length, 4)
    assert.is(run.trainer.run.snapshots?.length, 1)
    assert.is(results.length, 2 * 9 + 2 * 13)
    const final = checkFinal(folder, run, await finalTensors(run))
    // Of `coco` only the first half of the recorded steps is kept here, and so nothing of its last one.
    const hasMomentum = final.some((result) => result.name === 'momentum/classifier.bias')
    assert.is(hasMomentum, name !== 'coco')
    assert.equal(
      [...results, ...final].filter((result) => !passes(result)),
      [],
    )
    free(run)
  })
}

test('a batch is uploaded once a step, however many previous models look at it', async () => {
  const { queue } = device.gpu
  const write = queue.writeBuffer
  let uploads = 0
  // Small uploads are scalars and multipliers of dropout.
  queue.writeBuffer = (...args) => {
    if ((args[4] ?? args[2].byteLength) >= 33 * 33) uploads++
    write.apply(queue, args)
  }
  try {
    const perStep: number[] = []
    const run = await runTrajectory(device, 'test/fixtures/pascal', { onStep: () => perStep.push(uploads) })
    const fields = run.trainer.layout.flatMap((stream) => Object.keys(stream.fields)).length
    const before = (perStep[0] ?? 0) - fields
    assert.equal(
      perStep.map((count) => count - before),
      [1, 2, 3, 4].map((step) => step * fields),
    )
    free(run)
  } finally {
    queue.writeBuffer = write
  }
})

test('UniMatch is PrevMatch without previous models', async () => {
  const run = await runTrajectory(device, 'test/fixtures/pascal', { settings: { method: 'unimatch' } })
  const results = run.checks.slice(0, 2).flatMap(({ results }) => results)
  assert.is(results.length, 2 * 9)
  assert.equal(
    results.filter((result) => !passes(result)),
    [],
  )
  assert.is(run.trainer.run.snapshots, undefined)
  assert.is(run.rows[3]?.metrics.loss_s1_prev, undefined)
  free(run)
})

test('supervised steps agree with PyTorch', async () => {
  const run = await runTrajectory(device, 'test/fixtures/pascal', { settings: { method: 'supervised' } })
  // The labeled batches of the fixture alone, PyTorch 1.13 in float64.
  const losses = [1.0065278976982257, 0.861440500513298, 0.787775302345316, 1.2629539548511521]
  const norms = [1.8134469024202615, 1.6407261323089326, 3.4753238480750097, 2.5876877490970074]
  for (const [i, { metrics }] of run.rows.entries()) {
    const { total_loss: loss = 0, grad_norm: norm = 0 } = metrics
    assert.ok(Math.abs(loss - (losses[i] ?? 0)) < 2e-5, `loss of step ${i}: ${loss}`)
    assert.ok(Math.abs(norm / (norms[i] ?? 0) - 1) < 1e-4, `gradient of step ${i}: ${norm}`)
    assert.is(metrics.loss_s1, undefined)
  }
  assert.is(run.model.batchesTracked.get('backbone.bn1.num_batches_tracked'), 4)
  free(run)
})

test('the same steps give the same bits', async () => {
  const values = async () => {
    const run = await runTrajectory(device, 'test/fixtures/pascal')
    const result = { rows: run.rows, weights: await run.model.store.readAll() }
    free(run)
    return result
  }
  const [first, second] = [await values(), await values()]
  assert.equal(first.rows, second.rows)
  for (const [name, data] of first.weights) assert.equal(second.weights.get(name), data, name)
})

test('models are kept after a new best only, from base_only_epoch on', async () => {
  const run = await runTrajectory(device, 'test/fixtures/cityscapes', { settings: { miou_after_epoch: [0, 0] } })
  const { trainer } = run
  const { snapshots } = trainer.run
  assert.is(snapshots?.length, 0)
  trainer.iteration = 0
  assert.equal(trainer.beginEpoch(true), [], 'base_only_epoch is 1')
  trainer.iteration = trainer.options.iterationsPerEpoch
  assert.equal(trainer.beginEpoch(false), [])
  const line = 'epoch 2: kept the model; previous models: 1'
  assert.equal(trainer.beginEpoch(true), [{ name: 'previous', fields: { epoch: 1, models: 1 }, line }])
  assert.is(snapshots?.length, 1)
  free(run)
})

test('lambda rises to 1 at half the training and falls again', () => {
  const all = (epochs: number) => Array.from({ length: epochs }, (_, epoch) => lambdaAt(epoch, epochs))
  assert.equal(all(4), [0, 0.5, 1, 0.5])
  assert.equal(all(5), [0, 0.5, 1, 1 - 1 / 3, 1 - 2 / 3])
  assert.equal(all(1), [1])
})

test('the learning rate decays after each step', () => {
  assert.is(learningRateAt(0.1, 0, 10), 0.1)
  assert.is(learningRateAt(0.1, 1, 10), 0.1)
  assert.is(learningRateAt(0.1, 2, 10), 0.1 * 0.9 ** 0.9)
  assert.is(learningRateAt(0.1, 9, 10), 0.1 * (1 - 8 / 10) ** 0.9)
})

test('previous models are copies, and the oldest leaves', async () => {
  const store = new Store(device, 'weights')
  store.declare('w', spec([2]))
  const left: Store[] = []
  const previous = new SnapshotList('previous models', 2, (snapshot) => left.push(snapshot))
  for (const value of [1, 2, 3]) {
    store.write('w', Float32Array.of(value, value))
    previous.push(store, `${value}`)
  }
  store.write('w', Float32Array.of(9, 9))
  assert.is(previous.length, 2)
  assert.is(left.length, 1)
  assert.equal(await previous.at(0).read('w'), Float32Array.of(2, 2))
  assert.equal(await previous.at(1).read('w'), Float32Array.of(3, 3))
  assert.throws(() => previous.at(2), /2 previous models/)
  previous.destroy()
  assert.is(left.length, 3)
  store.destroy()
})

test('previous models are drawn without repetition', () => {
  const settings = { model_num: 3, random_select: true }
  const random = new Random(1)
  const sizes = new Set<number>()
  for (let i = 0; i < 100; i++) {
    const { prev_indices, prev_weights } = drawPrevious(random, 5, settings)
    sizes.add(prev_indices.length)
    assert.is(new Set(prev_indices).size, prev_indices.length)
    assert.ok(prev_indices.every((index) => index >= 0 && index < 5))
    assert.is(prev_weights.length, prev_indices.length)
    assert.ok(Math.abs(prev_weights.reduce((a, b) => a + b, 0) - 1) < 1e-12)
  }
  assert.equal([...sizes].sort(), [1, 2, 3])
  const all = drawPrevious(random, 2, { ...settings, random_select: false })
  assert.equal([...all.prev_indices].sort(), [0, 1])
  assert.equal(drawPrevious(random, 0, settings), { prev_indices: [], prev_weights: [] })
})

test('channel dropout keeps half of the channels, doubled', () => {
  const multipliers = drawDropout(new Random(1), 10, 100)
  const kept = multipliers.filter((value) => value === 2).length
  assert.is(multipliers.filter((value) => value === 0).length, 1000 - kept)
  // Five deviations of 1000 throws.
  assert.ok(Math.abs(kept - 500) < 80)
})

test.run()
