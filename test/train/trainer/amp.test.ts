// Training and evaluation in half precision: beside float32, and the loss scale.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decode } from 'fast-png'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { read } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { nonFiniteCounts } from '#dist/kernels/finite.js'
import { cast, mul, sum } from '#dist/kernels/pointwise.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { readSafetensors } from '#dist/train/io/safetensors.js'
import { nonFiniteIn } from '#dist/train/run/non-finite.js'
import { usesHalf } from '#dist/train/trainer/amp.js'
import { LossScale, type LossScaleState, withinLimit } from '#dist/train/trainer/loss-scale.js'
import { createState, optimizerOf, updateParameters } from '#dist/train/trainer/optimizer.js'
import { Random } from '../../../cases/case.js'
import { passes } from '../../golden/report.js'
import { runTrajectory } from '../../golden/trajectory.js'
import { skipUnless } from '../../support/skip.js'
import { run, tinyData } from '../../support/tiny-run.js'

const device = await open()
test.after(() => device.destroy())
const halfTest = skipUnless(device.traits.half, 'the adapter has no shader-f16')

halfTest('a narrow Xception has the losses of float32 in half precision', async () => {
  const { checks, rows, trainer, model } = await runTrajectory(device, 'test/fixtures/coco', { amp: true })
  const results = checks.flatMap(({ results }) => results)
  assert.ok(results.filter(({ name }) => name.startsWith('loss')).length > 4 * 4)
  assert.equal(
    results.filter((result) => !passes(result)),
    [],
  )
  // Gradients of its first layers reach 9: no step is counted that the first loss scale, 65536, skips.
  assert.is(rows.at(-1)?.skipped_steps, 0)
  trainer.destroy()
  model.store.destroy()
})

const losses = ['total_loss', 'loss_x', 'loss_s1', 'loss_s2', 'loss_fp', 'loss_s1_prev', 'loss_fp_prev'] as const

for (const name of ['pascal', 'cityscapes']) {
  halfTest(`${name}: four steps of PrevMatch in half precision have the losses of float32`, async () => {
    const folder = `test/fixtures/${name}`
    const full = await runTrajectory(device, folder)
    const half = await runTrajectory(device, folder, { amp: true })
    for (const [i, row] of full.rows.entries()) {
      for (const loss of losses) {
        const [wanted, got] = [row.metrics[loss], half.rows[i]?.metrics[loss]]
        assert.is(typeof got, typeof wanted)
        if (wanted === undefined || got === undefined) continue
        assert.ok(Math.abs(got / wanted - 1) < 0.01, `${loss} of step ${i}: ${got}, in float32 ${wanted}`)
      }
      const norm = (half.rows[i]?.metrics.grad_norm ?? 0) / (row.metrics.grad_norm ?? 1)
      // So small a network is on the edge of many maxima: rounding the weights to f16 alone moves it by up to 7 %.
      assert.ok(Math.abs(norm - 1) < 0.2, `gradient of step ${i}: ${norm} times that of float32`)
    }
    assert.is(half.rows.at(-1)?.skipped_steps, 0)
    assert.is(half.rows.at(-1)?.loss_scale, 65536)
    assert.is(full.rows[0]?.loss_scale, undefined)
    assert.ok(half.trainer.memory.planned < full.trainer.memory.planned)
    for (const { trainer, model } of [full, half]) {
      trainer.destroy()
      model.store.destroy()
    }
  })
}

/** A step whose gradient is the input `x`, from a state of the loss scale. */
async function scaledSteps(state: LossScaleState, gradients: readonly number[]) {
  const store = new Store(device, 'model')
  store.declare('weight', spec([2]), Float32Array.of(1, 2))
  const groups = [{ name: 'head', parameters: store.all() }] as const
  const optimizer = optimizerOf({})
  const stores = createState(optimizer, groups)
  const [momentum] = stores as [Store]
  const lossScale = new LossScale(new Store(device, 'loss scale'))
  lossScale.restore(state)
  const body = ({ x }: { x: Tensor }): Record<string, Tensor> => {
    const [weight] = groups[0].parameters
    if (!weight) throw new Error('unreachable: there is a weight')
    const by = { optimizer, rates: { backbone: sum(x), head: read(rate) }, inputs: {}, lossScale }
    const { scaled } = updateParameters(sum(mul(read(weight), x)), [{ groups, state: stores }], by)
    return scaled ? { skipped: scaled.skippedSteps } : {}
  }
  const rate = store.declare('rate', spec([]), Float32Array.of(0.5))
  const program = await compile(device, { x: spec([2]) }, body)
  const rows: { weight: number[]; momentumBuffer: number[]; state: LossScaleState }[] = []
  for (const gradient of gradients) {
    program.run({ x: Float32Array.of(0, gradient) })
    const [weight, momentumBuffer] = [await store.read('weight'), await momentum.read('weight')]
    rows.push({ weight: [...weight], momentumBuffer: [...momentumBuffer], state: await lossScale.state() })
  }
  program.destroy()
  for (const each of [store, momentum]) each.destroy()
  lossScale.destroy()
  return rows
}

test('a step without finite gradients changes nothing but the scale', async () => {
  const start = { scale: 2 ** 16, goodSteps: 7, skippedSteps: 2 }
  // 2^115 is finite, but not times the scale.
  const [good, overflow, nan, after] = await scaledSteps(start, [0.25, 2 ** 115, Number.NaN, 0.25])
  assert.equal(good?.state, { scale: 2 ** 16, goodSteps: 8, skippedSteps: 2 })
  const decay = Math.fround(1e-4)
  assert.ok(Math.abs((good?.momentumBuffer[1] ?? 0) - (0.25 + 2 * decay)) < 1e-6)
  assert.ok(Math.abs((good?.weight[1] ?? 0) - (2 - 0.5 * (0.25 + 2 * decay))) < 1e-6)
  assert.equal(overflow?.state, { scale: 2 ** 15, goodSteps: 0, skippedSteps: 3 })
  assert.equal(nan?.state, { scale: 2 ** 14, goodSteps: 0, skippedSteps: 4 })
  for (const skipped of [overflow, nan]) {
    assert.equal(skipped?.weight, good?.weight)
    assert.equal(skipped?.momentumBuffer, good?.momentumBuffer)
  }
  assert.equal(after?.state, { scale: 2 ** 14, goodSteps: 1, skippedSteps: 4 })
  assert.ok((after?.weight[1] ?? 0) < (good?.weight[1] ?? 0))
})

test('2000 good steps double the scale', async () => {
  const [before, grown] = await scaledSteps({ scale: 2 ** 16, goodSteps: 1998, skippedSteps: 0 }, [1, 1])
  assert.equal(before?.state, { scale: 2 ** 16, goodSteps: 1999, skippedSteps: 0 })
  assert.equal(grown?.state, { scale: 2 ** 17, goodSteps: 0, skippedSteps: 0 })
  const largest = { scale: 2 ** 24, goodSteps: 1999, skippedSteps: 0 }
  const [most] = await scaledSteps(largest, [2 ** -20])
  assert.is(most?.state.scale, 2 ** 24)
  // Checkpoints of runs that grew it further resume with the largest one.
  assert.equal(withinLimit({ ...largest, scale: 2 ** 40 }), largest)
  assert.equal(withinLimit({ ...largest, scale: 2 ** 20 }), { ...largest, scale: 2 ** 20 })
})

test('amp: auto is for GPUs, and without shader-f16 there is float32', () => {
  const said: string[] = []
  const use = (amp: boolean | 'auto', half: boolean, software: boolean) =>
    usesHalf(amp, { traits: { ...device.traits, half, software } } as typeof device, (line) => said.push(line))
  assert.equal([use(true, true, true), use(false, true, false), use(true, false, false)], [true, false, false])
  assert.equal([use('auto', true, false), use('auto', true, true), use('auto', false, false)], [true, false, false])
  assert.is(said.length, 1)
})

halfTest('predictions in half precision are those of float32', async () => {
  const run = await runTrajectory(device, 'test/fixtures/pascal')
  const random = new Random('image')
  const [width, height] = [160, 120]
  const image = { width, height, data: new Uint8Array(width * height * 3).map(() => random.integer(256)) }
  const labels: Uint32Array[] = []
  for (const amp of [false, true]) {
    const evaluator = new Evaluator(device, run.model, { mode: 'original', amp })
    labels.push((await evaluator.predict(image)).label)
    evaluator.destroy()
  }
  const [full, half] = labels
  assert.ok(full && half && new Set(full).size > 1)
  const same = full?.filter((label, i) => label === half?.[i]).length ?? 0
  assert.ok(same >= 0.995 * width * height, `${same} of ${width * height} pixels`)
  run.trainer.destroy()
  run.model.store.destroy()
})

test('a loss scale that shrinks without end ends the run', () => {
  const step = {
    metrics: { total_loss: 1, loss_x: 1 },
    lr_used: [0, 0],
    withoutLabels: false,
    nonFinite: [],
    skipped_steps: 31,
  } as const
  assert.is(nonFiniteIn({ ...step, loss_scale: 2 ** -14 }), undefined)
  assert.match(
    nonFiniteIn({ ...step, loss_scale: 2 ** -15 })?.what ?? '',
    /31 steps were skipped: lower lr, or set amp to f/,
  )
})

halfTest('what f16 cannot hold becomes infinite, by which overflowing gradients are found', async () => {
  const body = ({ x }: { x: Tensor }) => ({ counts: nonFiniteCounts([cast(x, 'f16')]) })
  const program = await compile(device, { x: spec([6]) }, body, { optimize: false })
  // 65504 is what some drivers store for all that is larger.
  program.run({ x: Float32Array.of(65472, -65472, 65504, 65520, -1e5, Number.NaN) })
  assert.equal([...(await program.read('counts', 'u32'))], [4])
  program.destroy()
})

halfTest('tensors are counted in as few dispatches as the adapter binds buffers for', async () => {
  const specs = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`x${i}`, spec([i + 1])]))
  const data = Object.fromEntries(
    Object.entries(specs).map(([name, { shape }], i) => [
      name,
      new Float32Array(shape[0] ?? 1).fill(i % 3 ? 1 : Infinity),
    ]),
  )
  for (const [maxBuffers, dispatches] of [
    [4, 4],
    [7, 2],
  ] as const) {
    const body = (tensors: Record<string, Tensor>) => ({ counts: nonFiniteCounts(Object.values(tensors), maxBuffers) })
    const program = await compile(device, specs, body)
    assert.is(program.kernels.filter((label) => label === 'countNonFinite').length, dispatches)
    program.run(data)
    assert.equal([...(await program.read('counts', 'u32'))], [1, 0, 0, 4, 0, 0, 7, 0, 0, 10, 0, 0])
    program.destroy()
  }
})

halfTest('--trace-nan finds what overflows in half precision', async () => {
  const { trainInto, remove } = await tinyData('overflow')
  const diverging = ['--set', 'lr=1e5', '--set', 'amp=true', '--trace-nan', '--max-iters', '3']
  const { code, errors } = trainInto('diverging', ...diverging)
  remove()
  assert.is(code, 5, errors.join('\n'))
  assert.match(
    errors[0] ?? '',
    /the first value .* is pseudo-labels\.backbone\.conv1\.0: conv2d .*; its inputs are finite: .*: cast/,
  )
})

halfTest('a run in half precision goes on with the same bits, loss scale included', async () => {
  const { folder, data, config, trainInto, remove } = await tinyData('amp')
  try {
    const latest = (name: string) => join(folder, name, 'latest.safetensors')
    const train = (name: string, ...args: string[]) => {
      const { code, errors, stdout } = trainInto(name, '--amp', ...args)
      assert.is(code, 0, errors.join('\n'))
      return stdout
    }
    assert.match(train('whole'), /MiB for a step in half precision\n.*loss scale 65536/s)
    train('parts', '--max-iters', '3')
    train('parts', '--resume', latest('parts'))
    const [whole, parts] = ['whole', 'parts'].map((name) => readSafetensors(latest(name)))
    assert.equal(JSON.parse(whole?.metadata.lossScale ?? 'null'), { scale: 65536, goodSteps: 6, skippedSteps: 0 })
    assert.is(parts?.metadata.lossScale, whole?.metadata.lossScale)
    for (const [name, { data }] of whole?.tensors ?? []) assert.equal(parts?.tensors.get(name)?.data, data, name)
    const other = trainInto('parts', '--no-amp', '--set', 'epochs=3', '--resume', latest('parts'))
    assert.match(other.stdout, /from here on epochs 3 instead of 2; amp false instead of true\n/)
    assert.match(other.stdout, /epoch 3\/3/)

    const weights = ['--ckpt-path', latest('whole')]
    const out = (name: string) => ['--out', join(folder, name)]
    const scored = run('evaluate.js', ['--config', config, '--amp', ...weights, ...out('scores')])
    assert.match(scored.stdout, /protocol: .*; in half precision\n/)
    const [full, half] = [[], ['--amp']].map((options, i) => {
      const args = ['--images', join(data, 'images'), ...weights, ...options, ...out(`masks ${i}`)]
      assert.is(/; in half precision\n/.test(run('predict.js', args).stdout), i === 1)
      const masks = join(folder, `masks ${i}`, 'masks')
      return readdirSync(masks).map((file) => decode(readFileSync(join(masks, file))).data)
    })
    assert.is(half?.length, 11)
    const pixels = full?.flatMap((mask, k) => Array.from(mask, (label, i) => label === half?.[k]?.[i])) ?? []
    const same = pixels.filter((agrees) => agrees).length
    assert.ok(same >= 0.995 * pixels.length, `${same} of ${pixels.length} pixels`)
  } finally {
    remove()
  }
})

test.run()
