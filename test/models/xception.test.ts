import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Graph, tracing } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { open } from '#dist/engine/node.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import type { ConvAttrs } from '#dist/kernels/conv2d.js'
import { architectureOf, chooseModel, createModel } from '#dist/models/index.js'
import type { ModelConfig, SegmentationModel } from '#dist/models/segmentation.js'
import { stateShapes } from '#dist/models/weights.js'
import { Random } from '#dist/train/random.js'
import { checkForward } from '../golden/forward.js'
import { passes } from '../golden/report.js'
import { smallXception } from '../support/small-xception.js'

const device = await open()
test.after(() => device.destroy())

const modelOf = (config: ModelConfig, random?: Random): SegmentationModel =>
  createModel(new Store(device, 'xception'), { architecture: 'deeplabv3plus', config }, random)

/** The trace of a model's features, of an image of even and odd extents. */
function traced(model: SegmentationModel) {
  const graph = new Graph()
  const image = graph.input('image', spec([1, 62, 33, 3]))
  const features = tracing(graph, () => model.features(image, { training: true }))
  return { graph, features }
}

test('passes, gradients and statistics of a narrow Xception are those of PyTorch', async () => {
  const results = await checkForward(device, 'test/fixtures/coco')
  assert.ok(results.length > 200, `${results.length} tensors`)
  assert.equal(
    results.filter((result) => !passes(result)),
    [],
  )
})

test('features have the strides that are asked for, and the later blocks the dilation', () => {
  for (const [output_stride, dilation, size] of [
    [16, 1, [4, 3]],
    [8, 2, [8, 5]],
  ] as const) {
    const model = modelOf({ ...smallXception, output_stride })
    const { graph, features } = traced(model)
    const shapes = features.map(({ shape }: Tensor) => shape)
    assert.equal(shapes, [
      [1, 16, 9, 8],
      [1, ...size, 16],
    ])
    const depthwise = graph.nodes.filter(({ op, scope }) => op && scope.endsWith('.depthwise'))
    assert.is(depthwise.length, 3 * 6 + 3)
    for (const { scope, attrs } of depthwise) {
      const { dilation: own, padding } = attrs as ConvAttrs
      const expected = /block[123]\./.test(scope) ? 1 : dilation
      assert.equal([own, padding], [expected, expected], scope)
    }
  }
})

test('a block whose input has its width and size has no projection', () => {
  const projected = (config: ModelConfig) => [...stateShapes(modelOf(config)).keys()].filter((n) => /skip\.w/.test(n))
  const blocks = (numbers: readonly number[]) => numbers.map((n) => `backbone.block${n}.skip.weight`)
  assert.equal(projected(smallXception), blocks([1, 2, 3, 20]))
  const narrow = { ...smallXception, exit: [9, 12, 14, 16] } as const
  assert.equal(projected(narrow), blocks([1, 2, 3]))
  assert.equal(projected({ ...narrow, entry: [6, 9, 9], output_stride: 8 }), blocks([1, 2]))
})

test('batch norms of the backbone have a momentum of their own', () => {
  const momenta = (backbone_bn_momentum: number) => {
    const model = modelOf({ ...smallXception, backbone_bn_momentum })
    const graph = new Graph()
    const image = graph.input('image', spec([2, 33, 33, 3]))
    tracing(graph, () => model.decode(model.features(image, { training: true }), { training: true }))
    const statistics = graph.nodes.filter(({ op }) => op?.name === 'batchNormStatistics')
    const of = (isBackbone: boolean) =>
      new Set(
        statistics.flatMap(({ scope, attrs }) =>
          scope.startsWith('backbone.') === isBackbone ? [(attrs as { momentum: number }).momentum] : [],
        ),
      )
    return [[...of(true)], [...of(false)]]
  }
  assert.equal(momenta(0.0003), [[0.0003], [0.1]])
  assert.equal(momenta(0.25), [[0.25], [0.1]])
})

test('initial weights of depthwise convolutions vary by their window and all channels', async () => {
  const model = modelOf({ ...smallXception, conv2: 256 }, new Random(1))
  const weight = await model.store.read('backbone.block1.sepconv1.depthwise.weight')
  assert.is(weight.length, 9 * 256)
  const variance = [...weight].reduce((sum, value) => sum + value * value, 0) / weight.length
  // Normal, 2 / (9 * 256); 5 deviations of the variance of 2304 values are 15 %.
  assert.ok(Math.abs(variance / (2 / (9 * 256)) - 1) < 0.15)
  model.store.destroy()
})

test('its stages are those of its layers', () => {
  const row = architectureOf('deeplabv3plus')
  const model = modelOf(smallXception)
  const own = row.stagesOf(smallXception)
  assert.equal(Object.keys(model.stages), own)
  assert.ok(own.every((stage) => row.stages.includes(stage)))
  const { graph } = traced(model)
  const scopes = Object.values(model.stages).flat()
  const belongs = (scope: string) => scopes.some((path) => scope === path || scope.startsWith(`${path}.`))
  const outside = graph.nodes.filter(({ op, scope }) => op && !belongs(scope))
  assert.equal(outside, [])
})

test('sections and stages of another backbone are refused', () => {
  const choose = (backbone: string, model: object, activation_checkpointing: string[] = []) =>
    chooseModel({ backbone, nclass: 3, model, activation_checkpointing })
  assert.throws(() => choose('xception', { stem: [4, 4, 8] }), /does not fit .* with xception: .*"stem"$/)
  assert.throws(() => choose('resnet50', { entry: [4, 4, 8] }), /does not fit .* with resnet50: .*"entry"$/)
  assert.throws(() => choose('xception', { output_stride: 32 }), /with xception: output_stride: /)
  assert.throws(() => choose('xception', { middle_blocks: 17 }), /with xception: middle_blocks: /)
  assert.throws(
    () => choose('xception', {}, ['head', 'layer1']),
    /'activation_checkpointing' has layer1, but the stages of xception are stem, entry, middle, exit, head, decoder$/,
  )
  const given = { backbone: 'xception', nclass: 3, replace_stride_with_dilation: [false, true, true] }
  assert.is(Object.hasOwn(chooseModel(given).config, 'replace_stride_with_dilation'), false)
})

test.run()
