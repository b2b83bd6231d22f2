import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Graph, tracing } from '#dist/engine/graph.js'
import { open } from '#dist/engine/node.js'
import { elements, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import type { DeepLabV3PlusConfig } from '#dist/models/deeplabv3plus.js'
import { architectureOf, chooseModel, createModel } from '#dist/models/index.js'
import { countBatches, logits, parametersOf, stageOf } from '#dist/models/segmentation.js'
import {
  fromTorchLayout,
  loadStateDict,
  type StateTensor,
  stateDict,
  stateShapes,
  toTorchLayout,
} from '#dist/models/weights.js'
import { loadWeights } from '#dist/train/checkpoint/read.js'
import { UserError } from '#dist/train/error.js'
import { Random } from '#dist/train/random.js'

const device = await open()
test.after(() => device.destroy())

const widths: DeepLabV3PlusConfig = {
  stem: [4, 6, 8],
  planes: [4, 4, 4, 8],
  blocks: [1, 1, 1, 2],
  expansion: 2,
  replace_stride_with_dilation: [false, false, true],
  dilations: [1, 2, 3],
  reduce_channels: 4,
  aspp_channels: 16,
  fuse_channels: 32,
  nclass: 3,
}
const small = { architecture: 'deeplabv3plus', config: widths }

for (const [name, nclass] of [
  ['resnet50', 21],
  ['resnet101', 21],
  ['xception', 81],
] as const) {
  test(`${name}: names, order and shapes are those of PyTorch`, () => {
    const expected = JSON.parse(readFileSync(`test/fixtures/${name}.json`, 'utf8')) as {
      parameters: number
      shapes: Record<string, number[]>
    }
    const store = new Store(device, name)
    const model = createModel(store, chooseModel({ backbone: name, nclass }))
    assert.equal([...stateShapes(model)], Object.entries(expected.shapes))
    const sizes = parametersOf(model).map(({ spec }) => elements(spec.shape))
    const count = sizes.reduce((a, b) => a + b, 0)
    assert.is(count, expected.parameters)
    if (name === 'resnet50') assert.is(count, 40_475_957)
    if (name === 'xception') assert.is(count, 54_726_881)
    store.destroy()
  })
}

test('model settings prevail over those of the backbone', () => {
  const { config } = chooseModel({
    backbone: 'resnet101',
    nclass: 19,
    dilations: [12, 24, 36],
    model: { blocks: [1, 1, 1, 1], stem: undefined },
  })
  assert.equal(config, {
    ...architectureOf('deeplabv3plus').presets.resnet101,
    nclass: 19,
    dilations: [12, 24, 36],
    blocks: [1, 1, 1, 1],
  })
})

test('a backbone that there is not, and sections that do not fit, are named', () => {
  assert.throws(
    () => chooseModel({ backbone: 'resnet18', nclass: 3 }),
    /no backbone 'resnet18': choose one of resnet50/,
  )
  const short = { blocks: [1, 2, 3] }
  assert.throws(
    () => chooseModel({ nclass: 3, model: short }),
    /^the section 'model' does not fit deeplabv3plus .*blocks/,
  )
  assert.throws(() => chooseModel({ nclass: 3, model: { heads: 8 } }), /heads/)
  assert.throws(() => architectureOf('unet'), /no architecture 'unet': choose one of deeplabv3plus/)
})

test('a model says what optimizer, dropout, recomputation and decoder need to know of it', () => {
  const store = new Store(device, 'described')
  const model = createModel(store, small)
  const [backbone, head] = model.groups
  assert.equal([backbone?.name, head?.name], ['backbone', 'head'])
  assert.ok(backbone?.parameters.every(({ name }) => /^backbone\..*(weight|bias)$/.test(name)))
  assert.ok(head?.parameters.every(({ name }) => /^(head|reduce|fuse|classifier)\..*(weight|bias)$/.test(name)))
  assert.equal(
    parametersOf(model),
    model.groups.flatMap(({ parameters }) => parameters),
  )
  const statistics = store.all().filter(({ name }) => /running_(mean|var)$/.test(name))
  assert.is(parametersOf(model).length + statistics.length, store.all().length)
  assert.equal(Object.keys(model.stages), architectureOf('deeplabv3plus').stagesOf(widths))
  assert.throws(() => stageOf(model, ['layer5']), /no stage 'layer5': choose among stem, layer1/)
  assert.is(stageOf(model, ['decoder', 'layer1'])('backbone.layer1.0.conv1'), 'layer1')
  assert.is(stageOf(model, ['decoder', 'layer1'])('backbone.layer10'), undefined)
  for (const [height, width] of [
    [1, 2],
    [33, 62],
    [64, 127],
  ] as const) {
    const graph = new Graph()
    const x = graph.input('image', spec([2, height, width, model.inputChannels]))
    tracing(graph, () => {
      const features = model.features(x, { training: false })
      const shapes = model.dropoutLevels.map(({ levels: [level = 0], channels }) => [
        features[level]?.shape.at(-1),
        channels,
      ])
      assert.ok(shapes.length === 2 && shapes.every(([actual, said]) => actual === said))
      const size = [model.logitSize(height), model.logitSize(width)]
      assert.equal(model.decode(features, { training: false }).shape, [2, ...size, 3])
      assert.equal(logits(model, x, { training: false }).shape, [2, height, width, 3])
    })
  }
  store.destroy()
})

test('initial weights have the distributions of PyTorch, and depend on the seed alone', async () => {
  const values = async (seed: number) => {
    const store = new Store(device, 'initial')
    createModel(store, small, new Random(seed))
    const data = await store.readAll()
    store.destroy()
    return (name: string) => [...(data.get(name) ?? [])]
  }
  const of = await values(1)
  const same = await values(1)
  const other = await values(2)
  const variance = (list: number[]) => list.reduce((sum, v) => sum + v * v, 0) / list.length

  // 3x3 with 6 inputs and 8 outputs: normal, 2 / (8 * 9). 432 values: 5 deviations are 34 % of the variance.
  const stem = of('backbone.conv1.6.weight')
  assert.is(stem.length, 432)
  assert.ok(Math.abs(variance(stem) / (2 / 72) - 1) < 0.34)
  assert.ok(Math.max(...stem.map(Math.abs)) > 2 * Math.sqrt(2 / 72), 'a normal distribution has no such narrow bound')
  // 3x3 with 32 inputs: uniform within 1 / sqrt(288), of variance 1 / (3 * 288).
  const fuse = of('fuse.3.weight')
  const bound = 1 / Math.sqrt(288)
  assert.ok(Math.max(...fuse.map(Math.abs)) <= bound)
  assert.ok(Math.abs(variance(fuse) * 3 * 288 - 1) < 0.1)
  assert.ok(Math.max(...of('classifier.bias').map(Math.abs)) <= 1 / Math.sqrt(32))
  assert.ok(Math.max(...of('classifier.bias').map(Math.abs)) > 0)
  assert.equal(of('head.b0.1.weight'), Array(16).fill(1))
  assert.equal(of('head.b0.1.bias'), Array(16).fill(0))
  assert.equal(of('backbone.bn1.running_var'), Array(8).fill(1))
  assert.equal(same('fuse.3.weight'), fuse)
  assert.not.equal(other('fuse.3.weight'), fuse)
})

test('weights change their layout between [KH, KW, I, O] and [O, I, KH, KW]', () => {
  const shape = [2, 3, 5, 7]
  const ours = Float32Array.from({ length: 210 }, (_, i) => i)
  const torch = toTorchLayout(shape, ours)
  const at = (kh: number, kw: number, i: number, o: number) => ((kh * 3 + kw) * 5 + i) * 7 + o
  assert.is(torch[((6 * 5 + 4) * 2 + 1) * 3 + 2], at(1, 2, 4, 6))
  assert.is(torch[((2 * 5 + 3) * 2 + 0) * 3 + 1], at(0, 1, 3, 2))
  assert.equal(fromTorchLayout(shape, torch), ours)
  assert.is(toTorchLayout([210], ours), ours)
})

test('a state_dict survives the way through the store, counters included', async () => {
  const store = new Store(device, 'state')
  const model = createModel(store, small)
  const random = new Random(3)
  const state = new Map<string, StateTensor>()
  for (const [name, shape] of stateShapes(model)) {
    const length = elements(shape)
    const counter = name.endsWith('num_batches_tracked')
    if (counter) state.set(name, { dtype: 'I64', shape, data: BigInt64Array.of(BigInt(random.integer(0, 1000))) })
    else state.set(name, { dtype: 'F32', shape, data: Float32Array.from({ length }, () => random.normal()) })
  }
  loadStateDict(model, state)
  assert.equal([...(await stateDict(model))], [...state])
  const before = Number(state.get('backbone.bn1.num_batches_tracked')?.data[0])
  countBatches(model, 2)
  const after = (await stateDict(model)).get('backbone.bn1.num_batches_tracked')?.data[0]
  assert.is(after, BigInt(before + 2))
  store.destroy()
})

test('weights that do not fit are refused as a whole, with one list of the faults', async () => {
  const store = new Store(device, 'refused')
  const model = createModel(store, small)
  const state = await stateDict(model)
  state.delete('fuse.0.weight')
  state.set('backbone.fc.weight', { dtype: 'F32', shape: [2], data: new Float32Array(2) })
  state.set('classifier.weight', { dtype: 'F32', shape: [21, 32, 1, 1], data: new Float32Array(21 * 32) })
  state.set('classifier.bias', { dtype: 'F32', shape: [3], data: Float32Array.of(1, 2, 3) })
  let message = ''
  try {
    loadWeights(model, state, 'weights.safetensors')
  } catch (error) {
    assert.instance(error, UserError)
    message = String(error)
  }
  assert.match(message, /^[^\n]*weights\.safetensors: [^\n]+$/)
  assert.match(message, 'missing: fuse.0.weight')
  assert.match(message, 'unexpected: backbone.fc.weight')
  assert.match(message, 'classifier.weight [21, 32, 1, 1] instead of [3, 32, 1, 1]')
  assert.equal(await store.read('classifier.bias'), new Float32Array(3))
  store.destroy()
})

test.run()
