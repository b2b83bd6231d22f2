import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { dryDevice } from '#dist/engine/dry-device.js'
import { Graph, tracing } from '#dist/engine/graph.js'
import { open } from '#dist/engine/node.js'
import { elements, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { architectureOf, chooseModel, createModel, inferModel } from '#dist/models/index.js'
import { fittingSize, logits, parametersOf, type SegmentationModel } from '#dist/models/segmentation.js'
import { stateShapes } from '#dist/models/weights.js'
import { withOverrides } from '#dist/train/config/load.js'
import type { Random } from '#dist/train/random.js'
import { messageOf } from '../support/messages.js'
import { smallDinoV2 } from '../support/small-dinov2.js'

const test = suite('DINOv2')
const device = await open()
test.after(() => device.destroy())

const row = architectureOf('dpt')
const modelOf = (config: object = {}, random?: Random): SegmentationModel =>
  row.create(new Store(device, 'dpt'), { ...smallDinoV2, ...config }, random)

test('the presets have the parameters of the official models', () => {
  const counts = ['small', 'base', 'large'].map((size) => {
    const store = new Store(dryDevice(device).device, size)
    const model = createModel(store, chooseModel({ backbone: `dinov2-${size}`, nclass: 21 }))
    const sum = (shapes: Iterable<readonly number[]>) =>
      [...shapes].reduce((total, shape) => total + elements(shape), 0)
    return [sum(stateShapes(model).values()), sum(parametersOf(model).map(({ spec }) => spec.shape))]
  })
  assert.equal(counts, [
    [24795637, 24721397],
    [97528789, 97232853],
    [335579157, 334397973],
  ])
})

test('its names are those of the official code, and what nothing reads is not trained', () => {
  const model = modelOf()
  const names = [...stateShapes(model)]
  assert.equal(names.slice(0, 6), [
    ['backbone.cls_token', [1, 1, 12]],
    ['backbone.pos_embed', [1, 17, 12]],
    ['backbone.mask_token', [1, 12]],
    ['backbone.patch_embed.proj.weight', [12, 3, 14, 14]],
    ['backbone.patch_embed.proj.bias', [12]],
    ['backbone.blocks.0.norm1.weight', [12]],
  ])
  assert.equal(names.at(-1), ['head.scratch.output_conv.2.bias', [3]])
  const trained = new Set(parametersOf(model).map(({ name }) => name))
  const rest = names.flatMap(([name]) => (trained.has(name) ? [] : [name]))
  const unit = ['conv1.weight', 'conv1.bias', 'conv2.weight', 'conv2.bias']
  assert.equal(rest, ['backbone.mask_token', ...unit.map((name) => `head.scratch.refinenet4.resConfUnit1.${name}`)])
})

test('it says what dropout, recomputation and decoder need to know of it', () => {
  const model = modelOf()
  assert.equal(model.dropoutLevels, [{ levels: [0, 1, 2, 3], name: 'taps', channels: 12 }])
  assert.equal(model.stages.stage3, ['backbone.blocks.2', 'backbone.blocks.3'])
  assert.equal(Object.keys(model.stages), row.stagesOf(smallDinoV2))
  for (const [height, width] of [
    [56, 56],
    [70, 28],
  ] as const) {
    const graph = new Graph()
    const x = graph.input('image', spec([2, height, width, 3]))
    tracing(graph, () => {
      const features = model.features(x, { training: true })
      const grid = [height / 14, width / 14] as const
      assert.equal(
        features.map(({ shape }) => shape),
        Array(4).fill([2, ...grid, 12]),
      )
      assert.equal(
        [height, width].map(model.logitSize),
        grid.map((extent) => 8 * extent),
      )
      assert.equal(model.decode(features, { training: true }).shape, [2, 8 * grid[0], 8 * grid[1], 3])
    })
  }
})

test('images are resized to the nearest multiples of a patch, and their logits back', () => {
  const model = modelOf()
  assert.equal(fittingSize(model, [62, 76]), [56, 70])
  assert.equal(fittingSize(model, [77, 3]), [84, 14])
  assert.equal(fittingSize({}, [62, 76]), [62, 76])
  const graph = new Graph()
  const x = graph.input('image', spec([1, 62, 75, 3]))
  tracing(graph, () => assert.equal(logits(model, x, { training: false }).shape, [1, 62, 75, 3]))
  assert.throws(
    () => tracing(new Graph(), () => model.features(x, { training: false })),
    /multiples of 14, not 62 x 75/,
  )
})

test('a state_dict tells its widths, and heads and taps are those that its size usually has', () => {
  const shapes = new Map([...stateShapes(modelOf())].map(([name, shape]) => [name, { shape }]))
  const stated = inferModel(row, shapes, { heads: 2, taps: [0, 1, 3, 4] })
  assert.equal(stated, {
    architecture: 'dpt',
    config: smallDinoV2,
    geometry: { heads: 2, taps: [0, 1, 3, 4] },
    hasGeometry: true,
  })
  // 12 channels are no multiple of 64.
  assert.is(inferModel(row, shapes, undefined), undefined)
  const store = new Store(dryDevice(device).device, 'small')
  const large = createModel(store, chooseModel({ backbone: 'dinov2-large', nclass: 5 }))
  const found = inferModel(row, new Map([...stateShapes(large)].map(([name, shape]) => [name, { shape }])), undefined)
  assert.equal(found?.config, large.config)
})

const configOf = (...overrides: string[]) =>
  withOverrides({ nclass: 3, crop_size: 518, batch_size: 2, epochs: 1, lr: 0.01 }, overrides, 'it')

test('a configuration names it by its model or backbone, and what does not fit is said', async () => {
  const named = ['model=dinov2-small', 'backbone=dinov2-small', 'model=dpt'].map((choice) => configOf(choice))
  for (const { backbone, model } of named) assert.equal([backbone, model], ['dinov2-small', {}])
  const message = (...overrides: string[]) => messageOf(() => configOf('model=dinov2-small', ...overrides))
  assert.match(
    await message('crop_size=512'),
    /it: 'crop_size' is 512, but dinov2-small needs a multiple of 14, such as 518$/,
  )
  assert.match(
    await messageOf(() => configOf('model=dinov2-small', 'backbone=mit_b0')),
    /'backbone' is mit_b0, but 'model.backbone' is dinov2-small: leave one of them out/,
  )
  const conflict = (section: string) => messageOf(() => configOf('backbone=dinov2-small', `model=${section}`))
  assert.match(await conflict('{heads: 5}'), /dim must be a multiple of heads/)
  assert.match(await conflict('{img_size: 500}'), /img_size must be a multiple of patch/)
  assert.match(await conflict('{depth: 8}'), /taps must rise to the last block, which is 7/)
})

test.run()
