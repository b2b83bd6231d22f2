// A batch in parts: what PyTorch computes where the loss of each part is divided by their number before backward.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { elements } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { grad } from '#dist/kernels/autograd.js'
import { chooseModel, createModel } from '#dist/models/index.js'
import { parametersOf } from '#dist/models/segmentation.js'
import { type Batch, imagesOf } from '#dist/train/data/batch.js'
import { UserError } from '#dist/train/error.js'
import { augseg } from '#dist/train/methods/augseg.js'
import { methodOf, registerMethod } from '#dist/train/methods/index.js'
import type { Prepared } from '#dist/train/methods/method.js'
import { Random as Initial } from '#dist/train/random.js'
import { batchStore, contextOf } from '#dist/train/trainer/context.js'
import { createTrainer } from '#dist/train/trainer/create.js'
import { learningRateAt } from '#dist/train/trainer/lr-schedule.js'
import { checkBatches, microBatches } from '#dist/train/trainer/micro-batches.js'
import { TrainingPasses } from '#dist/train/trainer/training-passes.js'
import { randomField } from '../../../bench/random-field.js'
import { Random } from '../../../cases/case.js'
import { start } from '../../support/child.js'
import { messageOf } from '../../support/messages.js'
import { assertSameRun } from '../../support/same-run.js'
import { skipUnless } from '../../support/skip.js'
import { smallModel } from '../../support/small-model.js'
import { tinyData } from '../../support/tiny-run.js'
import { toy } from '../../support/toy-method.js'

const device = await open()
const { folder, trainArgs, trainInto, remove } = await tinyData('parts')
test.after(() => {
  remove()
  device.destroy()
})
registerMethod(toy)
const halfTest = skipUnless(device.traits.half, 'the adapter has no shader-f16')

const [nclass, crop, batchSize] = [4, 33, 4]
const iterations = 3

const settingsOf = (method: string) => ({
  ...{ method, seed: 5, dataset: 'pascal', epochs: 1, lr: 0.02, lr_multi: 2, batch_size: batchSize },
  ...{ criterion: { name: 'CELoss', kwargs: {} } as const, conf_thresh: 0.2, ignore_index: 255 },
  prev: { list_max_len: 2, model_num: 2, random_select: true, conf_thresh: 0.3, base_only_epoch: 0 },
  augseg: augseg.keys.augseg.parse({ threshold: 0.3 }),
})

const modelOf = () =>
  createModel(new Store(device, 'model'), chooseModel({ nclass, model: smallModel }), new Initial(3, 0, 6))

const optionsOf = (images: number) => ({
  ...{ iterationsPerEpoch: iterations, labeled: images, unlabeled: images, height: crop, width: crop },
})

/** Random batches of a method. */
function batchesOf(method: string): Batch[] {
  const random = new Random(`batches of ${method}`)
  const layout = methodOf(method).layout(settingsOf(method) as never)
  return Array.from({ length: iterations }, () => {
    const fields = layout.flatMap((stream) =>
      Object.entries(stream.fields).map(([name, field]) => {
        return [name, randomField(field, imagesOf(stream, batchSize), crop, nclass, random)] as const
      }),
    )
    return Object.fromEntries(fields)
  })
}

/**
 * Steps by hand: each part is a run of its own, and gradients are averaged and SGD is done here. Yields the metrics of each
 * step, the model, momentum buffers and further stores, with which the next one goes on.
 */
async function* byHand(method: string, micro: number) {
  const parts = batchSize / micro
  const settings = settingsOf(method)
  const model = modelOf()
  const options = optionsOf(micro)
  const store = batchStore(device, methodOf(method).layout(settings as never), options)
  const workspace = new Store(device, 'workspace')
  const context = contextOf(model, settings, options, store, workspace, new TrainingPasses(workspace))
  const run = methodOf(method).create(context as never)
  const parameters = parametersOf(model)
  const metricNames = ['total_loss', ...run.metrics.map(({ name }) => name)]
  const names = [...metricNames, ...parameters.map(({ name }) => `gradient of ${name}`)]
  const program = await compile(device, run.inputs ?? {}, (inputs: Record<string, Tensor>) => {
    const { total, metrics } = run.losses(inputs, '')
    const gradients = grad(total, parameters.map(read))
    const named = parameters.map(({ name }, i) => [`gradient of ${name}`, gradients[i]] as const)
    return { total_loss: total, ...metrics, ...Object.fromEntries(named) } as Record<string, Tensor>
  })
  await run.compile?.((label, inputs, body) => compile(device, inputs, body as never, { label }) as never)
  const after = await compile(device, run.inputs ?? {}, (inputs: Record<string, Tensor>) => {
    run.afterUpdate?.(inputs, undefined, '')
    return {}
  })
  const head = new Set(model.groups.find(({ name }) => name === 'head')?.parameters)
  const momentum = new Store(device, 'momentum')
  for (const { name, spec } of parameters) momentum.declare(name, spec)
  for (const [iteration, batch] of batchesOf(method).entries()) {
    const at = { iteration, epoch: 0, epochs: 1, iterationsPerEpoch: iterations }
    if (iteration === 1) run.beginEpoch?.({ ...at, batchIndex: iteration, newBest: true })
    const means = new Map<string, number[]>()
    let prepared: Prepared = { inputs: {} }
    for (let part = 0; part < parts; part++) {
      for (const { name, spec } of store.all()) {
        const length = elements(spec.shape)
        store.write(name, batch[name]?.slice(part * length, (part + 1) * length) ?? new Uint8Array())
      }
      const now = { ...at, batchIndex: iteration * parts + part }
      prepared = run.prepare?.(now, run.draw?.(now) ?? {}) ?? prepared
      program.run(prepared.inputs)
      const values = await program.readAll(names)
      for (const [i, name] of names.entries()) {
        const shares = Array.from(values[i] ?? [], (value) => value / parts)
        means.set(name, means.get(name)?.map((sum, k) => sum + (shares[k] ?? 0)) ?? shares)
      }
    }
    const base = (run.learningRate ?? learningRateAt)(settings.lr, iteration, iterations)
    const [olds, befores] = [await model.store.readAll(), await momentum.readAll()]
    for (const parameter of parameters) {
      const { name } = parameter
      const rate = base * (head.has(parameter) ? settings.lr_multi : 1)
      const [old = [], before = []] = [olds.get(name), befores.get(name)]
      const mean = means.get(`gradient of ${name}`) ?? []
      const buffer = mean.map((value, k) => 0.9 * (before[k] ?? 0) + value + 1e-4 * (old[k] ?? 0))
      momentum.write(name, Float32Array.from(buffer))
      model.store.write(
        name,
        Float32Array.from(buffer, (value, k) => (old[k] ?? 0) - rate * value),
      )
    }
    after.run(prepared.inputs)
    const { values = {}, absent = [] } = prepared
    const shown = metricNames.filter((name) => !absent.includes(name))
    const metrics = { ...Object.fromEntries(shown.map((name) => [name, means.get(name)?.[0] ?? 0])), ...values }
    yield { metrics, stores: [model.store, momentum, ...Object.values(run.stores ?? {})] }
  }
  run.destroy?.()
  for (const each of [program, after]) each.destroy()
  for (const each of [store, workspace, momentum, model.store]) each.destroy()
}

/** Asserts that values differ by the rounding of SGD alone, which is done in float64 by hand. */
async function assertClose(actual: Store, expected: Store): Promise<void> {
  const [got, wanted] = [await actual.readAll(), await expected.readAll()]
  assert.equal([...got.keys()], [...wanted.keys()])
  for (const [name, values] of wanted) {
    const largest = Math.max(...Array.from(values, Math.abs))
    const differences = Array.from(values, (value, i) => Math.abs(value - (got.get(name)?.[i] ?? Number.NaN)))
    const error = Math.max(...differences)
    assert.ok(error <= 2 ** -21 * largest, `${name}: ${error} of ${largest}`)
  }
}

for (const [method, micro, passes] of [
  ['supervised', 2, 1],
  ['unimatch', 2, 2],
  ['prevmatch', 1, 2],
  ['augseg', 2, 1],
  ['toy', 2, 2],
] as const) {
  test(`${method}: ${iterations} steps in parts of ${micro} are those of averaged gradients`, async () => {
    const model = modelOf()
    const settings = { ...settingsOf(method), micro_batch: micro }
    const trainer = await createTrainer(device, model, settings, optionsOf(batchSize))
    const batches = batchesOf(method)
    for await (const { metrics, stores } of byHand(method, micro)) {
      if (trainer.iteration === 1) trainer.beginEpoch(true)
      const result = await trainer.step(batches[trainer.iteration] ?? {})
      assert.equal(Object.keys(result.metrics).sort(), Object.keys(metrics).sort())
      for (const [name, value] of Object.entries(metrics)) {
        const error = Math.abs((result.metrics[name] ?? Number.NaN) - value)
        assert.ok(error <= 2 ** -21 * Math.max(1, Math.abs(value)), `${name}: ${error} of ${value}`)
      }
      const own = [model.store, ...trainer.optimizerState, ...Object.values(trainer.run.stores ?? {})]
      assert.is(own.length, stores.length)
      for (const [i, store] of own.entries()) {
        const expected = stores[i]
        if (!expected) throw new Error('unreachable: there are as many')
        await assertClose(store, expected)
        // Rounding would grow from step to step.
        store.copyFrom(expected)
      }
      if (method === 'prevmatch' && trainer.iteration > 1) assert.ok((metrics.loss_s1_prev ?? 0) > 0)
    }
    assert.is(trainer.iteration, iterations)
    assert.equal(new Set(model.batchesTracked.values()), new Set([iterations * passes * (batchSize / micro)]))
    trainer.destroy()
    model.store.destroy()
  })
}

test('each part has draws of its own, and the whole batch those of the iteration', async () => {
  const seen: number[][] = []
  for (const micro of [undefined, 4, 2, 1]) {
    const model = modelOf()
    const settings = { ...settingsOf('unimatch'), ...(micro === undefined ? {} : { micro_batch: micro }) }
    const trainer = await createTrainer(device, model, settings, optionsOf(batchSize))
    const { run } = trainer
    const { draw } = run
    const indices: number[] = []
    Object.assign(run, {
      draw: (at: { batchIndex: number }) => {
        indices.push(at.batchIndex)
        return draw?.call(run, at as never)
      },
    })
    for (const batch of batchesOf('unimatch').slice(0, 2)) await trainer.step(batch)
    seen.push(indices)
    trainer.destroy()
    model.store.destroy()
  }
  assert.equal(seen, [
    [0, 1],
    [0, 1],
    [0, 1, 2, 3],
    [0, 1, 2, 3, 4, 5, 6, 7],
  ])
})

test('parts of the whole batch are the same program as without', async () => {
  const texts: string[] = []
  for (const micro of [{}, { micro_batch: batchSize }, { micro_batch: 2 }]) {
    const model = modelOf()
    const trainer = await createTrainer(device, model, { ...settingsOf('prevmatch'), ...micro }, optionsOf(batchSize))
    texts.push(trainer.text)
    trainer.destroy()
    model.store.destroy()
  }
  assert.is(texts[1], texts[0])
  assert.is.not(texts[2], texts[0])
  assert.match(texts[2] ?? '', /program prevmatch step, losses of 2 parts\n.*program prevmatch step, update\n/s)
})

halfTest('in half precision a step has one loss scale, and is skipped as a whole', async () => {
  const model = modelOf()
  const settings = { ...settingsOf('supervised'), micro_batch: 2 }
  const trainer = await createTrainer(device, model, settings, { ...optionsOf(batchSize), amp: true })
  const [first, second] = batchesOf('supervised')
  const good = await trainer.step(first ?? {})
  assert.is(good.loss_scale, 2 ** 16)
  assert.equal(await trainer.lossScale?.state(), { scale: 2 ** 16, goodSteps: 1, skippedSteps: 0 })
  trainer.lossScale?.restore({ scale: 2 ** 100, goodSteps: 1, skippedSteps: 0 })
  const before = await model.store.readAll(parametersOf(model).map(({ name }) => name))
  const skipped = await trainer.step(second ?? {})
  assert.is(skipped.skipped_steps, 1)
  assert.equal(await trainer.lossScale?.state(), { scale: 2 ** 99, goodSteps: 0, skippedSteps: 1 })
  assert.equal(await model.store.readAll([...before.keys()]), before)
  // What overflowed is not in the sums of the next step.
  trainer.lossScale?.restore({ scale: 2 ** 10, goodSteps: 0, skippedSteps: 1 })
  assert.is((await trainer.step(first ?? {})).skipped_steps, 1)
  assert.equal((await trainer.lossScale?.state())?.goodSteps, 1)
  trainer.destroy()
  model.store.destroy()
})

test('a run in parts resumes with the same bits', () => {
  const parts = ['--set', 'micro_batch=1']
  for (const args of [
    ['whole', ...parts],
    ['cut', ...parts, '--max-iters', '3'],
    ['cut', ...parts, '--resume', join(folder, 'cut', 'latest.safetensors')],
  ] as const) {
    const { code, errors } = trainInto(args[0], ...args.slice(1))
    assert.is(code, 0, errors.join('\n'))
  }
  assertSameRun(join(folder, 'cut'), join(folder, 'whole'))
  assert.match(readFileSync(join(folder, 'whole', 'config.yaml'), 'utf8'), /^micro_batch: 1$/m)
  const changed = trainInto('cut', '--set', 'epochs=3', '--resume', join(folder, 'cut', 'latest.safetensors'))
  assert.match(changed.stdout, /from here on epochs 3 instead of 2; micro_batch none instead of 1\n/)
})

/** Trains with a fault of test/support/faults, and gives what is printed. */
async function trainWith(fault: string, into: string, ...args: string[]): Promise<string> {
  const child = start('train.js', trainArgs(into, '--set', 'micro_batch=1', '--trace-nan', ...args), [`${fault}.js`])
  await child.ended
  return child.output()
}

test('--trace-nan repeats a step part by part', async () => {
  assert.match(await trainWith('look-into-healthy', 'healthy'), /found: undefined/)
  assert.match(
    await trainWith('poison-weight', 'poisoned'),
    /the first value that is not finite is variable fuse\.0\.we/,
  )
  const diverged = trainInto('diverged', '--set', 'micro_batch=1', '--set', 'lr=1e30', '--trace-nan')
  assert.is(diverged.code, 5)
  assert.match(diverged.errors.join('\n'), /the first value that is not finite is .*; its inputs are finite: /)
})

test('a batch that the parts do not divide is refused, and so are parts that the method cannot train with', async () => {
  const into = (...settings: string[]) => trainInto('none', ...settings.flatMap((setting) => ['--set', setting]))
  const divides = into('batch_size=6', 'micro_batch=4')
  assert.is(divides.code, 1)
  assert.match(divides.errors.join('\n'), /'micro_batch' is 4, which does not divide 'batch_size' 6: use 1, 2, 3, 6$/)
  const zero = into('micro_batch=0')
  assert.match(zero.errors.join('\n'), /'micro_batch' is 0, .*>=1/)
  const one = into('method=supervised', 'micro_batch=1')
  assert.match(one.errors.join('\n'), /error: micro_batch 1: one image gives the batch norm .*: use at least 2$/)
  const model = modelOf()
  const uneven = () =>
    createTrainer(device, model, { ...settingsOf('supervised'), micro_batch: 3 }, optionsOf(batchSize))
  assert.match(await messageOf(uneven), /micro_batch 3 does not divide a batch of 4 labeled and 4 unlabeled images/)
})

test('what micro_batch can be depends on the method', () => {
  assert.equal(microBatches(settingsOf('supervised')), [4, 2])
  assert.equal(microBatches(settingsOf('prevmatch')), [4, 2, 1])
  const fail = (what: string) => new UserError(what)
  assert.throws(() => checkBatches({ ...settingsOf('supervised'), batch_size: 1 }, fail), /^batch_size 1: one image /)
})

test.run()
