import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Graph, traceOf, tracing } from '#dist/engine/graph.js'
import { open } from '#dist/engine/node.js'
import { elements, type Shape, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { deepLabV3Plus } from '#dist/models/deeplabv3plus.js'
import { chooseModel, createModel, inferModel, type ModelChoice } from '#dist/models/index.js'
import { logits, parametersOf } from '#dist/models/segmentation.js'
import { stateDict, stateShapes } from '#dist/models/weights.js'
import { exportOnnx } from '#dist/onnx/export.js'
import { loadWeights } from '#dist/train/checkpoint/read.js'
import { parseConfig } from '#dist/train/config/load.js'
import { UserError } from '#dist/train/error.js'
import { firstModelOf } from '#dist/train/methods/index.js'
import { Random } from '#dist/train/random.js'
import { smallModel } from '../support/small-model.js'

const device = await open()
test.after(() => device.destroy())

const { stem, ...residual } = smallModel
const small = { backbone: 'resnet50_dct', nclass: 3, model: residual }

/** Shapes of the state_dict of a network whose stem is left out, from those of one with a stem. */
function withoutStem(backbone: string): Map<string, { readonly shape: Shape }> {
  const { shapes } = JSON.parse(readFileSync(`test/fixtures/${backbone}.json`, 'utf8')) as {
    shapes: Record<string, number[]>
  }
  const kept = Object.entries(shapes).filter(([name]) => !/^backbone\.(conv1|bn1)\./.test(name))
  // What reads the 128 channels of the stem reads 64 coefficients.
  const reads = /^backbone\.layer1\.0\.(conv1|downsample\.0)\.weight$/
  return new Map(
    kept.map(([name, [cout = 0, cin = 0, ...kernel]]) => {
      const shape = reads.test(name) ? [cout, 64, ...kernel] : (shapes[name] ?? [])
      assert.ok(!reads.test(name) || cin === 128)
      return [name, { shape }]
    }),
  )
}

for (const [name, base, parameters] of [
  ['resnet50_dct', 'resnet50', 40.34],
  ['resnet101_dct', 'resnet101', 59.33],
] as const) {
  test(`${name}: names, order and shapes are those of a ${base} without its stem, which tell it`, () => {
    const expected = withoutStem(base)
    const store = new Store(device, name)
    const choice = chooseModel({ backbone: name, nclass: 21 })
    const model = createModel(store, choice)
    assert.equal(
      [...stateShapes(model)],
      [...expected].map(([tensor, { shape }]) => [tensor, shape]),
    )
    const count = parametersOf(model).reduce((sum, { spec }) => sum + elements(spec.shape), 0)
    assert.is((count / 1e6).toFixed(2), String(parameters))
    const { widths, geometry } = deepLabV3Plus.inferConfig(expected)
    assert.equal({ ...widths, ...geometry }, choice.config)
    store.destroy()
  })
}

test('a network without a stem reads coefficients, on whose grid its logits are', () => {
  const store = new Store(device, 'small')
  const model = createModel(store, chooseModel(small))
  assert.is(model.input, 'coefficients')
  assert.equal(Object.keys(model.stages), ['layer1', 'layer2', 'layer3', 'layer4', 'head', 'decoder'])
  assert.throws(
    () => chooseModel({ ...small, activation_checkpointing: ['stem'] }),
    /stages of resnet50_dct are layer1, layer2/,
  )
  const graph = new Graph()
  const x = graph.input('coefficients', spec([2, 9, 13, model.inputChannels]))
  tracing(graph, () => {
    const [finest] = model.features(x, { training: false })
    assert.equal(finest?.shape, [2, 9, 13, 8])
    assert.equal([model.logitSize(33), model.logitSize(50)], [9, 13])
    assert.equal(logits(model, x, { training: false }, [33, 50]).shape, [2, 33, 50, 3])
  })
  store.destroy()
})

test('weights of a network with a stem do not fit one without, and the other way round', async () => {
  const of = (choice: ModelChoice) => createModel(new Store(device, 'small'), chooseModel(choice), new Random(1))
  const [plain, dct] = [of({ nclass: 3, model: smallModel }), of(small)]
  const states = new Map([
    [plain, await stateDict(plain)],
    [dct, await stateDict(dct)],
  ])
  const known = inferModel(deepLabV3Plus, states.get(dct) ?? new Map(), undefined)
  assert.equal(known?.config, { ...dct.config, dilations: [6, 12, 18], multi_grid: [1, 1, 1] })
  const load = (into: typeof dct, from: typeof dct) => () =>
    loadWeights(into, states.get(from) ?? new Map(), 'the file')
  load(dct, dct)()
  assert.throws(
    load(dct, plain),
    /kind of resnet50 or resnet101, where the model has that of resnet50_dct or resnet101_dct/,
  )
  assert.throws(
    load(plain, dct),
    /kind of resnet50_dct or resnet101_dct, where the model has that of resnet50 or resnet101/,
  )
  assert.throws(
    () => exportOnnx(dct, states.get(dct) ?? new Map()),
    /reads DCT coefficients, which no operator of ONNX makes/,
  )
  for (const { store } of [plain, dct]) store.destroy()
})

/** Dilations of the 3x3 convolutions of layer4. */
function dilationsOf(model: ModelChoice['model'], backbone: string): unknown[] {
  const store = new Store(device, 'dilated')
  const made = createModel(store, chooseModel({ backbone, nclass: 3, model: { ...model, blocks: [1, 1, 1, 4] } }))
  const graph = new Graph()
  const x = graph.input('x', spec([1, 65, 65, made.inputChannels]))
  tracing(graph, () => made.features(x, { training: false }))
  const { nodes } = traceOf(graph, new Map())
  store.destroy()
  const convolutions = nodes.filter(({ scope, op }) => op?.name === 'conv2d' && /layer4\.\d\.conv2$/.test(scope))
  return convolutions.map(({ attrs }) => (attrs as { dilation: number }).dilation)
}

test('a multi-grid multiplies the dilations of the first blocks of layer4, the first one that of layer3', () => {
  const dilated = { replace_stride_with_dilation: [false, true, true], multi_grid: [2, 2, 4] } as const
  for (const [backbone, model] of [
    ['resnet50', smallModel],
    ['resnet50_dct', residual],
  ] as const) {
    assert.equal(dilationsOf({ ...model, ...dilated }, backbone), [4, 8, 16, 4])
    assert.equal(dilationsOf({ ...model, ...dilated, multi_grid: undefined }, backbone), [2, 4, 4, 4])
    assert.equal(dilationsOf({ ...model, multi_grid: [2, 2, 4] }, backbone), [2, 4, 8, 2])
  }
  assert.throws(() => chooseModel({ nclass: 3, model: { multi_grid: [2, 2] } }), /section 'model' .*multi_grid/)
})

test('the multi-grid of a checkpoint is what its metadata say, or none', () => {
  const { config } = chooseModel({ nclass: 3, model: { ...smallModel, multi_grid: [2, 2, 4] } })
  const store = new Store(device, 'stated')
  const shapes = new Map(
    [...stateShapes(createModel(store, { architecture: 'deeplabv3plus', config }))].map(([name, shape]) => [
      name,
      { shape },
    ]),
  )
  store.destroy()
  assert.equal(inferModel(deepLabV3Plus, shapes, config)?.config, config)
  // Files of before there was one.
  const { multi_grid, ...before } = config
  const { config: known, geometry, hasGeometry } = inferModel(deepLabV3Plus, shapes, before) ?? {}
  assert.equal(known, { ...config, multi_grid: [1, 1, 1] })
  assert.is(hasGeometry, true)
  assert.equal((geometry as { multi_grid?: unknown }).multi_grid, [1, 1, 1])
})

test('a method whose images are RGB does not train it', () => {
  const keys = { nclass: 3, crop_size: 33, batch_size: 2, epochs: 1, lr: 0.1, method: 'supervised' }
  assert.is(firstModelOf(parseConfig(keys, 'the test')).architecture, 'deeplabv3plus')
  const config = parseConfig({ ...keys, backbone: 'resnet101_dct' }, 'the test')
  assert.throws(
    () => firstModelOf(config),
    (error: unknown) =>
      error instanceof UserError &&
      error.message.startsWith("'backbone' is resnet101_dct, which reads DCT coefficients, and the method supervised"),
  )
})

test.run()
