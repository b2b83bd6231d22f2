import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Graph, tracing } from '#dist/engine/graph.js'
import { open } from '#dist/engine/node.js'
import { elements, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { architectureOf, chooseModel, createModel, inferModel } from '#dist/models/index.js'
import { dropPathRates, type NoiseSpec } from '#dist/models/layers.js'
import { mitPresets } from '#dist/models/mit.js'
import { ImageTooSmallError, logits, parametersOf, type SegmentationModel } from '#dist/models/segmentation.js'
import { stateShapes } from '#dist/models/weights.js'
import { Random } from '#dist/train/random.js'
import { checkOps } from '../golden/ops.js'
import { passes } from '../golden/report.js'
import { smallSegFormer } from '../support/small-segformer.js'

const device = await open()
test.after(() => device.destroy())

const row = architectureOf('segformer')
const modelOf = (config: object = smallSegFormer, random?: Random): SegmentationModel =>
  row.create(new Store(device, 'segformer'), { ...smallSegFormer, ...config }, random)

test('mit_b2: names, order and shapes are those of PyTorch', () => {
  const expected = JSON.parse(readFileSync('test/fixtures/mit_b2.json', 'utf8')) as {
    parameters: number
    shapes: Record<string, number[]>
  }
  const model = createModel(new Store(device, 'mit_b2'), chooseModel({ backbone: 'mit_b2', nclass: 21 }))
  assert.equal([...stateShapes(model)], Object.entries(expected.shapes))
  const count = parametersOf(model).reduce((sum, { spec }) => sum + elements(spec.shape), 0)
  assert.is(count, expected.parameters)
})

test('the presets are the sizes of the SegFormer paper', () => {
  /** Parameters of the encoders. */
  const millions = Object.keys(mitPresets).map((backbone) => {
    const model = createModel(new Store(device, backbone), chooseModel({ backbone, nclass: 19 }))
    const [encoder] = model.groups.map(({ parameters }) =>
      parameters.reduce((sum, { spec }) => sum + elements(spec.shape), 0),
    )
    return Number(((encoder ?? 0) / 1e6).toFixed(1))
  })

  assert.equal(millions, [3.3, 13.2, 24.2, 44.1, 60.8, 81.4])
})

test('passes, gradients and statistics of blocks and of a narrow network are those of PyTorch', async () => {
  const results = await checkOps(device, 'test/fixtures/segformer')
  assert.ok(results.length > 150, `${results.length} tensors`)
  assert.equal(
    results.filter((result) => !passes(result)),
    [],
  )
})

test('it says what optimizer, dropout, recomputation and decoder need to know of it', () => {
  const model = modelOf()
  const [backbone, head] = model.groups
  assert.ok(backbone?.parameters.every(({ name }) => name.startsWith('backbone.layers.')))
  assert.ok(head?.parameters.every(({ name }) => /^head\.(convs\.\d|fusion_conv|conv_seg)\./.test(name)))
  assert.equal(Object.keys(model.stages), row.stagesOf(smallSegFormer))
  const scopes = Object.values(model.stages).flat()
  const belongs = (scope: string) => scopes.some((path) => scope === path || scope.startsWith(`${path}.`))
  for (const [height, width] of [
    [29, 29],
    [33, 62],
    [64, 127],
  ] as const) {
    const graph = new Graph()
    const x = graph.input('image', spec([2, height, width, 3]))
    tracing(graph, () => {
      const features = model.features(x, { training: false })
      const shapes = model.dropoutLevels.map(({ levels: [level = 0], channels }) => [
        features[level]?.shape.at(-1),
        channels,
      ])
      assert.equal(shapes, [
        [4, 4],
        [16, 16],
      ])
      const size = [model.logitSize(height), model.logitSize(width)]
      assert.equal(model.decode(features, { training: false }).shape, [2, ...size, 3])
    })
    const outside = graph.nodes.filter(({ op, scope }) => op && !belongs(scope))
    assert.equal(outside, [])
  }
})

test('an image whose maps cannot be reduced is refused', () => {
  const graph = new Graph()
  const model = modelOf()
  const compute = (height: number, width: number, one = model) =>
    tracing(graph, () => logits(one, graph.input('image', spec([1, height, width, 3])), { training: false }))
  assert.throws(
    () => compute(28, 40),
    (error: unknown) => {
      return (
        error instanceof ImageTooSmallError && /no image of 28 x 40 pixels.* must have 29 at least/.test(error.message)
      )
    },
  )
  compute(29, 29)
  assert.is(row.smallestSide?.(smallSegFormer), 29)
  const other = { ...smallSegFormer, sr_ratios: [2, 1, 3, 1] } as const
  assert.is(row.smallestSide?.(other), 33)
  compute(33, 33, modelOf(other))
  assert.throws(() => compute(32, 33, modelOf(other)), /33 at least/)
})

test('branches are dropped at rates that rise from block to block, and channels of the head', () => {
  const rates = dropPathRates(smallSegFormer.depths, 0.1)
  assert.equal(rates, [0, 0.025, 0.05, 0.075, 0.1].map(Math.fround))
  assert.equal(dropPathRates([1], 0.1), [0])
  const asked: [string, NoiseSpec][] = []
  const graph = new Graph()
  const model = modelOf()
  const noise = (name: string, of: NoiseSpec) => {
    asked.push([name, of])
    return graph.input(name, spec(of.channels === undefined ? [of.samples] : [of.samples, of.channels]))
  }
  const x = graph.input('image', spec([2, 32, 32, 3]))
  tracing(graph, () => logits(model, x, { training: true, noise }))
  const blocks = ['layers.1.1.0', 'layers.1.1.1', 'layers.2.1.0', 'layers.3.1.0']
  const branches = blocks.flatMap((block, i) =>
    ['attn', 'ffn'].map((branch) => [`${block}.${branch}`, { samples: 2, rate: rates[i + 1] }]),
  )
  assert.equal(asked, [...branches, ['head', { samples: 2, channels: 8, rate: 0.1 }]])
})

test('initial weights are those of the SegFormer code', async () => {
  const model = modelOf({ embed_dims: [32, 32, 32, 32], num_heads: [1, 1, 1, 1], head_channels: 64 }, new Random(1))
  const deviation = async (name: string) => {
    const values = await model.store.read(name)
    return Math.sqrt([...values].reduce((sum, value) => sum + value * value, 0) / values.length)
  }
  const near = async (name: string, expected: number) => {
    const actual = await deviation(name)
    // The fewest values are 192: 5 deviations are 26 %.
    assert.ok(Math.abs(actual / expected - 1) < 0.26, `${name}: ${actual} instead of ${expected}`)
  }
  await near('backbone.layers.0.0.projection.weight', Math.sqrt(2 / (49 * 32)))
  await near('backbone.layers.0.1.0.attn.attn.in_proj_weight', 0.02)
  await near('backbone.layers.0.1.0.attn.attn.out_proj.weight', 0.02)
  await near('backbone.layers.0.1.0.attn.sr.weight', Math.sqrt(2 / (64 * 32)))
  await near('backbone.layers.0.1.0.ffn.layers.0.weight', Math.sqrt(2 / 64))
  await near('backbone.layers.0.1.0.ffn.layers.1.weight', Math.sqrt(2 / 9))
  await near('head.conv_seg.weight', 0.01)
  await near('head.convs.0.conv.weight', Math.sqrt(2 / 64))
  for (const name of ['layers.0.0.projection', 'layers.0.1.0.norm1', 'layers.0.1.0.ffn.layers.1', 'layers.0.2'])
    assert.is(await deviation(`backbone.${name}.bias`), 0)
  assert.is(await deviation('head.conv_seg.bias'), 0)
  assert.is(await deviation('backbone.layers.0.1.0.norm1.weight'), 1)
  model.store.destroy()
})

test('shapes tell widths and depths, metadata the heads', () => {
  const shapes = new Map([...stateShapes(modelOf())].map(([name, shape]) => [name, { shape }]))
  const told = inferModel(row, shapes, smallSegFormer)
  assert.equal(told?.config, smallSegFormer)
  assert.ok(told?.hasGeometry)
  const usual = { embed_dims: [8, 16, 20, 24], num_heads: [1, 2, 5, 8] }
  const other = new Map([...stateShapes(modelOf(usual))].map(([name, shape]) => [name, { shape }]))
  const inferred = inferModel(row, other, undefined)
  assert.equal(inferred?.config, { ...smallSegFormer, ...usual })
  assert.not.ok(inferred?.hasGeometry)
  assert.equal(row.inferConfig(new Map([['backbone.layer1.0.conv1.weight', { shape: [4, 4, 1, 1] }]])).widths, {})
})

test('it is chosen by its name or that of a backbone, and what does not fit is named', () => {
  const chosen = (choice: object) => chooseModel({ nclass: 19, ...choice })
  const b2 = { ...row.presets.mit_b2, nclass: 19 }
  assert.equal(chosen({ model: { architecture: 'segformer' } }), { architecture: 'segformer', config: b2 })
  assert.equal(chosen({ backbone: 'mit_b2' }), { architecture: 'segformer', config: b2 })
  assert.equal(chosen({ backbone: 'mit_b5', model: { head_channels: 768 } }).config.head_channels, 768)
  assert.throws(
    () => chosen({ backbone: 'resnet50', model: { architecture: 'segformer' } }),
    /^the model segformer has no backbone 'resnet50': choose one of mit_b0, mit_b1/,
  )
  assert.throws(
    () => chosen({ backbone: 'mit_b0', model: { num_heads: [3, 2, 5, 8] } }),
    /does not fit segformer with mit_b0: num_heads: embed_dims must be multiples of num_heads/,
  )
  assert.throws(() => chosen({ backbone: 'mit_b0', model: { planes: [1, 1, 1, 1] } }), /with mit_b0: .*planes/)
  assert.throws(
    () => chosen({ backbone: 'mit_b0', activation_checkpointing: ['layer1'] }),
    /has layer1, but the stages of mit_b0 are stage1, stage2, stage3, stage4, head$/,
  )
})

test.run()
