import { env, InferenceSession, Tensor as OrtTensor } from 'onnxruntime-web'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import * as e from '#dist/engine/expr.js'
import { read, scoped } from '#dist/engine/graph.js'
import type { Tensor } from '#dist/engine/ir.js'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { elements, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { attention } from '#dist/kernels/attention.js'
import { batchedMatmul } from '#dist/kernels/batched-matmul.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { flip } from '#dist/kernels/flip.js'
import { layerNorm } from '#dist/kernels/layernorm.js'
import { matmul } from '#dist/kernels/matmul.js'
import { concat, slice } from '#dist/kernels/movement.js'
import { permute } from '#dist/kernels/permute.js'
import { add, div, gelu, mul, pointwise, scale, sub, sumTo, toU32 } from '#dist/kernels/pointwise.js'
import { resizeBilinear } from '#dist/kernels/resize.js'
import { softmax } from '#dist/kernels/softmax.js'
import type { DeepLabV3PlusConfig } from '#dist/models/deeplabv3plus.js'
import { createModel } from '#dist/models/index.js'
import { conv, Declarations } from '#dist/models/layers.js'
import { logits, type ModelConfig, type SegmentationModel } from '#dist/models/segmentation.js'
import { loadStateDict, type StateTensor, stateShapes } from '#dist/models/weights.js'
import { exportOnnx, type OnnxOptions } from '#dist/onnx/export.js'
import { Random } from '#dist/train/random.js'
import { smallDinoV2 } from '../support/small-dinov2.js'
import { smallSegFormer } from '../support/small-segformer.js'
import { smallXception } from '../support/small-xception.js'

const test = suite('onnx')
env.wasm.numThreads = 1
const device = await open()
test.after(() => device.destroy())

const narrow: DeepLabV3PlusConfig = {
  stem: [4, 6, 8],
  planes: [4, 5, 6, 8],
  blocks: [2, 1, 2, 2],
  expansion: 2,
  replace_stride_with_dilation: [false, false, true],
  dilations: [2, 3, 5],
  reduce_channels: 4,
  aspp_channels: 10,
  fuse_channels: 12,
  nclass: 3,
}

/** Weights and running statistics with which the maps keep their scale. */
function weightsFor(shapes: ReadonlyMap<string, readonly number[]>): Map<string, StateTensor> {
  const random = new Random(5)
  const state = new Map<string, StateTensor>()
  for (const [name, shape] of shapes) {
    const length = elements(shape)
    const fanIn = elements(shape.slice(1))
    const positive = /running_var$/.test(name) || (shape.length === 1 && /weight$/.test(name))
    const value = () => (positive ? 0.5 + random.uniform(0, 1) : random.normal() * Math.sqrt(2 / fanIn))
    if (shape.length === 0) state.set(name, { dtype: 'I64', shape, data: BigInt64Array.of(4n) })
    else state.set(name, { dtype: 'F32', shape, data: Float32Array.from({ length }, value) })
  }
  return state
}

const deepLab = (config: ModelConfig) => (store: Store) => createModel(store, { architecture: 'deeplabv3plus', config })

/** A model with weights, and the session of its export. */
async function exported(create: (store: Store) => SegmentationModel, options: OnnxOptions = {}) {
  const store = new Store(device, 'exported')
  const model = create(store)
  const { nclass } = model.config
  const state = weightsFor(stateShapes(model))
  loadStateDict(model, state)
  const session = await InferenceSession.create(Buffer.concat(exportOnnx(model, state, options)))
  /** Largest difference of the logits for random images, and their largest value. */
  const compare = async (n: number, height: number, width: number) => {
    const random = new Random(n * height + width)
    const ours = Float32Array.from({ length: n * height * width * 3 }, () => random.normal())
    const program = await compile(device, { image: spec([n, height, width, 3]) }, ({ image }) => ({
      logits: logits(model, image, { training: false }),
    }))
    program.run({ image: ours })
    const expected = await program.read('logits')
    program.destroy()
    const nchw = new Float32Array(ours.length)
    const pixels = height * width
    for (const [i, value] of ours.entries()) {
      const [image, rest] = [Math.floor(i / (3 * pixels)), i % (3 * pixels)]
      nchw[(image * 3 + (rest % 3)) * pixels + Math.floor(rest / 3)] = value
    }
    const results = await session.run({ image: new OrtTensor('float32', nchw, [n, 3, height, width]) })
    assert.equal(results.logits?.dims, [n, nclass, height, width])
    const actual = results.logits?.data as Float32Array
    let difference = 0
    let largest = 0
    for (const [i, value] of expected.entries()) {
      const k = i % nclass
      const pixel = Math.floor(i / nclass)
      const [image, place] = [Math.floor(pixel / pixels), pixel % pixels]
      difference = Math.max(difference, Math.abs(value - (actual[(image * nclass + k) * pixels + place] ?? Number.NaN)))
      largest = Math.max(largest, Math.abs(value))
    }
    return { difference, largest }
  }
  const close = async () => {
    await session.release()
    store.destroy()
  }
  return { session, compare, close }
}

const within = ({ difference, largest }: { difference: number; largest: number }, what: string) => {
  assert.ok(largest > 0.1, `${what}: the logits vanish`)
  assert.ok(difference <= 4e-6 * largest, `${what}: ${difference} of ${largest}`)
}

test('onnxruntime computes our logits, for one or more images of any size', async () => {
  const { compare, close } = await exported(deepLab(narrow))
  within(await compare(1, 65, 65), '1 x 65 x 65')
  within(await compare(2, 33, 58), '2 x 33 x 58')
  within(await compare(1, 5, 7), '1 x 5 x 7')
  await close()
})

test('dilated layers, deeper blocks and an equal number of channels', async () => {
  const { compare, close } = await exported(
    deepLab({
      ...narrow,
      stem: [4, 4, 8],
      planes: [4, 4, 4, 4],
      blocks: [1, 2, 1, 3],
      replace_stride_with_dilation: [false, true, true],
    }),
  )
  within(await compare(1, 41, 50), '1 x 41 x 50')
  await close()
})

test('an Xception, whose convolutions are depthwise', async () => {
  for (const output_stride of [16, 8]) {
    const { compare, close } = await exported(deepLab({ ...smallXception, output_stride }))
    within(await compare(1, 65, 65), '1 x 65 x 65')
    within(await compare(2, 34, 57), '2 x 34 x 57')
    await close()
  }
})

test('a SegFormer', async () => {
  const segFormer = (store: Store) => createModel(store, { architecture: 'segformer', config: smallSegFormer })
  const { compare, close } = await exported(segFormer)
  within(await compare(1, 65, 65), '1 x 65 x 65')
  within(await compare(2, 34, 57), '2 x 34 x 57')
  await close()
  const fixed = await exported(segFormer, { size: [29, 47] })
  within(await fixed.compare(1, 29, 47), '29 x 47')
  await fixed.close()
})

test('a DINOv2 with a DPT head, for one size', async () => {
  const dpt = (store: Store) => createModel(store, { architecture: 'dpt', config: smallDinoV2 })
  // The size of the position table, another one, and one that is resized to multiples of a patch.
  for (const [height, width] of [
    [56, 56],
    [42, 84],
    [50, 71],
  ] as const) {
    const { compare, close } = await exported(dpt, { size: [height, width] })
    within(await compare(1, height, width), `${height} x ${width}`)
    await close()
  }
  const model = dpt(new Store(device, 'any size'))
  const export_ = () => exportOnnx(model, weightsFor(stateShapes(model)))
  assert.throws(export_, /follows from .* the image.*: export it for one size$/)
})

test('a fixed size is stated in the file', async () => {
  const { session, compare, close } = await exported(deepLab(narrow), { size: [33, 47] })
  const [input] = session.inputMetadata
  const [output] = session.outputMetadata
  assert.ok(input?.isTensor && output?.isTensor)
  assert.equal([input.name, ...input.shape], ['image', 1, 3, 33, 47])
  assert.equal([output.name, ...output.shape], ['logits', 1, 3, 33, 47])
  within(await compare(1, 33, 47), '33 x 47')
  await close()
})

/**
 * What DeepLabV3+ has nothing of: tokens that are reshaped from a map and back, layer norm, a gate of comparisons, a
 * product, softmax, a slice, and a map that is enlarged by a factor.
 */
function tokens(store: Store, change: (x: Tensor) => Tensor = (x) => x): SegmentationModel {
  const at = new Declarations(store, undefined)
  const patches = conv(at.at('patches'), 3, 6, { kernel: 3, stride: 2, bias: true })
  const weight = at.at('mix').parameter('weight', [6, 5])
  const gain = at.at('norm').parameter('weight', [6])
  const classifier = conv(at.at('classifier'), 9, 4, { bias: true })
  const normalize = (x: Tensor): Tensor => {
    const [rows = 0, channels = 0] = x.shape
    const mean = (y: Tensor) => sumTo(scale(y, 1 / channels), [rows, 1])
    const centred = sub(x, mean(x))
    const deviation = pointwise(
      'deviation',
      [e.sqrt(e.add(e.input(0), e.constant(1e-5)))],
      [mean(mul(centred, centred))],
    )
    return mul(div(centred, deviation), read(gain))
  }
  return {
    architecture: 'tokens',
    config: { nclass: 4 },
    store,
    inputChannels: 3,
    groups: [{ name: 'head', parameters: at.parameters }],
    batchesTracked: new Map(),
    dropoutLevels: [],
    stages: {},
    features: (x, mode) => [change(patches(x, mode))],
    decode([x], mode) {
      if (!x) throw new Error('there is one map')
      const [n = 0, height = 0, width = 0] = x.shape
      const rows = normalize(x.reshape(n * height * width, 6))
      const gate = e.where(
        e.greaterEqual(e.input(0), e.constant(0.5)),
        e.exp(e.input(0)),
        e.max(e.input(0), e.constant(-1)),
      )
      const mixed = softmax(matmul(pointwise('gate', [gate], [rows]), read(weight)))
      const map = concat([x, mixed.reshape(n, height, width, 5)], 3)
      const larger = resizeBilinear(slice(map, 3, 1, 9), [2 * height, 2 * width])
      return classifier(add(larger, sumTo(larger, [n, 1, 1, 9])), mode)
    },
    logitSize: (extent) => 2 * Math.ceil(extent / 2),
  }
}

test('a model of other operators is exported by its trace', async () => {
  const { compare, close } = await exported(tokens)
  within(await compare(1, 33, 47), '1 x 33 x 47')
  within(await compare(3, 20, 9), '3 x 20 x 9')
  await close()
  const fixed = await exported(tokens, { size: [21, 34] })
  within(await fixed.compare(1, 21, 34), '21 x 34')
  await fixed.close()
})

test('an operator without counterpart, and what depends on the size in another way, is named', () => {
  const refuses = (change: (x: Tensor) => Tensor, pattern: RegExp, options: OnnxOptions = {}) => {
    const model = tokens(new Store(device, 'refused'), (x) => scoped('backbone.block', () => change(x)))
    assert.throws(() => exportOnnx(model, weightsFor(stateShapes(model)), options), pattern)
  }
  refuses(flip, /^backbone\.block: flip has no counterpart in ONNX yet$/)
  refuses((x) => scale(toU32(x), 1), /^backbone\.block: toU32 has no counterpart in ONNX yet$/)
  const byHeight = (x: Tensor) => scale(x, 1 / (x.shape[1] ?? 1))
  refuses(byHeight, /^backbone\.block\/scale: its constants follow from the size of the image/)
  const cropped = (x: Tensor) => slice(x, 1, 0, (x.shape[1] ?? 0) - 1)
  refuses(cropped, /^backbone\.block\/slice: what is cut out follows from the size/)
  const shifted = (x: Tensor) => resizeBilinear(x, [(x.shape[1] ?? 0) + 1, x.shape[2] ?? 0])
  refuses(shifted, /^backbone\.block\/resizeBilinear: its size follows from that of the image/)
  // For one size all of them are constants, but for what has no counterpart at all.
  for (const change of [byHeight, cropped, shifted]) {
    const model = tokens(new Store(device, 'fixed'), change)
    assert.ok(exportOnnx(model, weightsFor(stateShapes(model)), { size: [33, 47] }).length > 0)
  }
})

/** The model of tokens, with parameters of its own that a change of the map reads. */
const withParameters =
  (change: (at: Declarations) => (x: Tensor) => Tensor) =>
  (store: Store): SegmentationModel => {
    const at = new Declarations(store, undefined, 'changed')
    const model = tokens(store, change(at))
    return { ...model, groups: [...model.groups, { name: 'head', parameters: at.parameters }] }
  }

/** The rows of a map: its pixels, or parts of them. */
const asRows = (x: Tensor, columns: number): Tensor => x.reshape(elements(x.shape) / columns, columns)

async function exportsRight(change: (at: Declarations) => (x: Tensor) => Tensor): Promise<void> {
  const { compare, close } = await exported(withParameters(change))
  within(await compare(2, 33, 20), '2 x 33 x 20')
  await close()
}

test('what is added to a convolution under another shape is no bias of it', async () => {
  await exportsRight((at) => {
    const [weight, bias] = [at.parameter('weight', [1, 1, 6, 6]), at.parameter('bias', [6])]
    const mix = at.parameter('mix', [6, 6])
    return (x) => {
      const rows = add(asRows(conv2d(x, read(weight)), 6), read(bias))
      return matmul(rows, read(mix)).reshape(...x.shape)
    }
  })
  await exportsRight((at) => {
    const [weight, bias] = [at.parameter('weight', [1, 1, 6, 6]), at.parameter('bias', [3])]
    return (x) => add(asRows(conv2d(x, read(weight)), 3), read(bias)).reshape(...x.shape)
  })
})

test('one number that is added to a convolution is no bias of it', () =>
  exportsRight((at) => {
    const [weight, bias] = [at.parameter('weight', [1, 1, 6, 6]), at.parameter('bias', [1])]
    return (x) => add(conv2d(x, read(weight)), read(bias))
  }))

test('a sum of what was divided under another shape', () =>
  exportsRight(() => (x) => {
    const [n = 0, height = 0, width = 0] = x.shape
    const parts = asRows(scale(x, 1 / 3), 3)
    const means = sumTo(parts, [parts.shape[0] ?? 0, 1]).reshape(n, height, width, 2)
    return add(x, concat([means, means, means], 3))
  }))

test('what transformers are made of', async () => {
  await exportsRight((at) => {
    const norm = { weight: at.parameter('norm.weight', [6]), bias: at.parameter('norm.bias', [6]) }
    const [wide, bias, narrow] = [
      at.parameter('wide.weight', [12, 6]),
      at.parameter('wide.bias', [12]),
      at.parameter('narrow.weight', [12, 6]),
    ]
    return (x) => {
      const [n = 0, height = 0, width = 0] = x.shape
      const tokens = x.reshape(n, height * width, 6)
      const normed = layerNorm(tokens, { weight: read(norm.weight), bias: read(norm.bias) }, { eps: 1e-6 })
      const half = resizeBilinear(x, [7, 9], { alignCorners: false }).reshape(n, 63, 6)
      const attended = add(tokens, attention(normed, half, half, { heads: 2, scale: 0.7 }))
      const rows = attended.reshape(n * height * width, 6)
      const hidden = gelu(add(matmul(rows, read(wide), { transposeB: true }), read(bias)))
      return add(attended, matmul(hidden, read(narrow)).reshape(n, height * width, 6)).reshape(...x.shape)
    }
  })
})

test('layer norm of a map, products in batches, and permuted axes', async () => {
  await exportsRight((at) => {
    const norm = { weight: at.parameter('norm.weight', [6]), bias: at.parameter('norm.bias', [6]) }
    return (x) => {
      const [n = 0, height = 0, width = 0] = x.shape
      const normed = layerNorm(x, { weight: read(norm.weight), bias: read(norm.bias) })
      const tokens = normed.reshape(n, height * width, 6)
      const fewer = resizeBilinear(x, [5, 3], { alignCorners: false }).reshape(n, 15, 6)
      const products = softmax(batchedMatmul(tokens, fewer, { transposeB: true }))
      const turned = permute(fewer, [0, 2, 1])
      const mixed = batchedMatmul(products, turned, { transposeB: true })
      const mixing = batchedMatmul(fewer, turned, { transposeA: true, transposeB: true })
      return add(x, batchedMatmul(mixed, scale(mixing, 0.1), { transposeB: true }).reshape(...x.shape))
    }
  })
})

test('weights of a convolution that something else reads have no counterpart', () => {
  const refuses = (change: (at: Declarations) => (x: Tensor) => Tensor, pattern: RegExp) => {
    const model = withParameters(change)(new Store(device, 'refused'))
    assert.throws(() => exportOnnx(model, weightsFor(stateShapes(model))), pattern)
  }
  const read4 = /^changed\.weight: weights of four axes outside of a convolution have no counterpart in ONNX yet$/
  refuses((at) => {
    const weight = at.parameter('weight', [1, 1, 1, 6])
    return (x) => mul(x, read(weight))
  }, read4)
  refuses((at) => {
    const weight = at.parameter('weight', [1, 1, 6, 6])
    return (x) => matmul(asRows(conv2d(x, read(weight)), 6), read(weight).reshape(6, 6)).reshape(...x.shape)
  }, read4)
  refuses((at) => {
    const weight = at.parameter('weight', [6, 1, 1, 6])
    return (x) => conv2d(x, read(weight).reshape(1, 1, 6, 6))
  }, /conv2d: its weights are no parameter$/)
})

test('infinite constants that differ between sizes are told apart', () => {
  const bounded = (x: Tensor) => {
    const bound = (x.shape[1] ?? 0) > 600 ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY
    return scoped('bound', () => pointwise('bounded', [e.max(e.input(0), e.constant(bound))], [x]))
  }
  const model = tokens(new Store(device, 'bounded'), bounded)
  assert.throws(
    () => exportOnnx(model, weightsFor(stateShapes(model))),
    /^bound\/bounded: its constants follow from the size of the image/,
  )
})

test('weights that are not those of the model are named', () => {
  const store = new Store(device, 'wrong')
  const model = createModel(store, { architecture: 'deeplabv3plus', config: narrow })
  const state = weightsFor(stateShapes(model))
  const changed = (change: (copy: Map<string, StateTensor>) => void) => {
    const copy = new Map(state)
    change(copy)
    return () => exportOnnx(model, copy)
  }
  const tensor: StateTensor = { dtype: 'F32', shape: [7], data: new Float32Array(7) }
  assert.throws(
    changed((copy) => copy.delete('head.b2.1.bias')),
    /missing: head\.b2\.1\.bias/,
  )
  assert.throws(
    changed((copy) => copy.set('fuse.1.bias', tensor)),
    /fuse\.1\.bias \[7\] instead of \[12\]/,
  )
  assert.throws(
    changed((copy) => copy.set('ema.decay', tensor)),
    /unexpected: ema\.decay/,
  )
})

test.run()
