import { env, InferenceSession, Tensor } from 'onnxruntime-web'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import type { DeepLabV3PlusConfig } from '#dist/models/deeplabv3plus.js'
import { createModel } from '#dist/models/index.js'
import { logits } from '#dist/models/segmentation.js'
import { loadStateDict, type StateTensor, stateShapes } from '#dist/models/weights.js'
import { exportOnnx, type OnnxOptions } from '#dist/onnx/deeplabv3plus.js'
import { Random } from '#dist/train/random.js'

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
    const length = shape.reduce((a, b) => a * b, 1)
    const fanIn = shape.slice(1).reduce((a, b) => a * b, 1)
    const positive = /running_var$/.test(name) || (shape.length === 1 && /weight$/.test(name))
    const value = () => (positive ? 0.5 + random.uniform(0, 1) : random.normal() * Math.sqrt(2 / fanIn))
    if (shape.length === 0) state.set(name, { dtype: 'I64', shape, data: BigInt64Array.of(4n) })
    else state.set(name, { dtype: 'F32', shape, data: Float32Array.from({ length }, value) })
  }
  return state
}

/** A model with weights, and the session of its export. */
async function exported(config: DeepLabV3PlusConfig, options: OnnxOptions = {}) {
  const store = new Store(device, 'exported')
  const model = createModel(store, { architecture: 'deeplabv3plus', config })
  const state = weightsFor(stateShapes(model))
  loadStateDict(model, state)
  const session = await InferenceSession.create(Buffer.concat(exportOnnx(config, state, options)))
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
    const results = await session.run({ image: new Tensor('float32', nchw, [n, 3, height, width]) })
    assert.equal(results.logits?.dims, [n, config.nclass, height, width])
    const actual = results.logits?.data as Float32Array
    let difference = 0
    let largest = 0
    for (const [i, value] of expected.entries()) {
      const k = i % config.nclass
      const pixel = Math.floor(i / config.nclass)
      const [image, place] = [Math.floor(pixel / pixels), pixel % pixels]
      difference = Math.max(
        difference,
        Math.abs(value - (actual[(image * config.nclass + k) * pixels + place] ?? Number.NaN)),
      )
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
  assert.ok(difference <= 2e-5 * largest, `${what}: ${difference} of ${largest}`)
}

test('onnxruntime computes our logits, for one or more images of any size', async () => {
  const { compare, close } = await exported(narrow)
  within(await compare(1, 65, 65), '1 x 65 x 65')
  within(await compare(2, 33, 58), '2 x 33 x 58')
  within(await compare(1, 5, 7), '1 x 5 x 7')
  await close()
})

test('dilated layers, deeper blocks and an equal number of channels', async () => {
  const { compare, close } = await exported({
    ...narrow,
    stem: [4, 4, 8],
    planes: [4, 4, 4, 4],
    blocks: [1, 2, 1, 3],
    replace_stride_with_dilation: [false, true, true],
  })
  within(await compare(1, 41, 50), '1 x 41 x 50')
  await close()
})

test('a fixed size is stated in the file', async () => {
  const { session, compare, close } = await exported(narrow, { size: [33, 47] })
  const [input] = session.inputMetadata
  const [output] = session.outputMetadata
  assert.ok(input?.isTensor && output?.isTensor)
  assert.equal([input.name, ...input.shape], ['image', 1, 3, 33, 47])
  assert.equal([output.name, ...output.shape], ['logits', 1, 3, 33, 47])
  within(await compare(1, 33, 47), '33 x 47')
  await close()
})

test('weights that are not those of the model are named', () => {
  const store = new Store(device, 'wrong')
  const state = weightsFor(stateShapes(createModel(store, { architecture: 'deeplabv3plus', config: narrow })))
  store.destroy()
  const changed = (change: (copy: Map<string, StateTensor>) => void) => {
    const copy = new Map(state)
    change(copy)
    return () => exportOnnx(narrow, copy)
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
