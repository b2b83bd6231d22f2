// Drivers that do not round what they store as f16: they are found, and kernels then store the same bits as elsewhere.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Device } from '#dist/engine/device.js'
import { assign, read } from '#dist/engine/graph.js'
import { replaceHalfConversions } from '#dist/engine/half-conversions.js'
import { roundHalfStores } from '#dist/engine/half-stores.js'
import type { Tensor } from '#dist/engine/ir.js'
import { findAdapter } from '#dist/engine/node.js'
import { openDevice } from '#dist/engine/open-device.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { crossEntropyMean } from '#dist/kernels/loss.js'
import { cast, castCall, relu } from '#dist/kernels/pointwise.js'
import { LossScale } from '#dist/train/trainer/loss-scale.js'
import { createState, optimizerOf, updateParameters } from '#dist/train/trainer/optimizer.js'
import { Random } from '../../cases/case.js'
import { imitate, truncatingStores } from '../support/imitated-adapter.js'
import { onDevice } from '../support/on-device.js'
import { skipUnless } from '../support/skip.js'

const { device: own } = await onDevice()
const halfTest = skipUnless(own?.traits.half === true, 'there is no adapter with shader-f16')

function rounding(): Device {
  if (!own) throw new Error('unreachable: the test is skipped without a device')
  return own
}

/** A device whose driver truncates. @param unknown the engine has not looked how it stores f16 */
async function truncating(unknown = false): Promise<Device> {
  const { adapter, summary } = await findAdapter()
  const imitated = imitate(adapter, { compiler: truncatingStores })
  if (!unknown) return openDevice(imitated, summary)
  const requiredFeatures = ['subgroups', 'shader-f16'] as GPUFeatureName[]
  return new Device(await imitated.requestDevice({ requiredFeatures }), summary)
}

halfTest('how a driver stores f16 is found when its device opens', async () => {
  const device = rounding()
  assert.equal(device.halfStores, { rounds: true, overflows: true, subnormals: true })
  const other = await truncating()
  assert.equal(other.halfStores, { rounds: false, overflows: false, subnormals: false })
  other.destroy()
})

/** Numbers around every border of f16, ties included, and at random over all exponents. */
function numbers(): Float32Array {
  const random = new Random('f16')
  const values = [0, 65504, 65519.99, 65520, 65536, 1e30, 2 ** -14, 2 ** -24, 2 ** -25, 2 ** -40, 1e-42]
  values.push(1.5 * 2 ** -24, 2 ** -25 * (1 + 2 ** -20), 2 ** -14 - 2 ** -25, 2 ** -14 - 2 ** -26, 2 ** -15)
  values.push(Number.POSITIVE_INFINITY)
  for (let i = 0; i < 64; i++) values.push(1 + (i + 0.5) * 2 ** -10, (i + 0.5) * 2 ** -24, (i + 0.49) * 2 ** -24)
  for (let i = 0; i < 4096; i++) values.push((1 + random.uniform()) * 2 ** (random.integer(50) - 30))
  const both = values.flatMap((value) => [value, -value])
  return Float32Array.from([...both, ...Array(-both.length & 3).fill(Number.NaN)])
}

/** Numbers through an f16 buffer: `one` at a time, or in packs of four. */
async function stored(device: Device, values: Float32Array, pack: 1 | 4): Promise<Uint32Array> {
  const shown = pack === 4 ? values : values.subarray(1)
  const program = await compile(device, { x: spec([shown.length]) }, ({ x }) => ({ y: cast(cast(x, 'f16'), 'f32') }), {
    optimize: false,
  })
  program.run({ x: Float32Array.from(shown) })
  const y = await program.read('y')
  program.destroy()
  return new Uint32Array(y.buffer, y.byteOffset, y.length)
}

halfTest('a truncating driver stores the nearest numbers, bit for bit as a rounding one', async () => {
  const device = rounding()
  const values = numbers()
  const [corrected, unknown] = [await truncating(), await truncating(true)]
  for (const pack of [1, 4] as const) {
    const wanted = await stored(device, values, pack)
    assert.equal(await stored(corrected, values, pack), wanted)
    assert.not.equal(await stored(unknown, values, pack), wanted, 'the driver does not truncate')
  }
  for (const each of [corrected, unknown]) each.destroy()
})

/** Steps of two convolutions in half precision from the largest loss scale, at which their gradients overflow. */
async function steps(device: Device) {
  const random = new Random('steps')
  const normal = (count: number) => new Float32Array(count).map(() => random.normal())
  const store = new Store(device, 'model')
  const weights = [[3, 3, 4, 8] as const, [1, 1, 8, 3] as const].map((shape, i) =>
    store.declare(
      `weight${i}`,
      spec(shape),
      normal(shape.reduce<number>((a, b) => a * b, 1)).map((value) => 8 * value),
    ),
  )
  const rate = store.declare('rate', spec([]), Float32Array.of(2 ** -7))
  const groups = [{ name: 'head', parameters: weights }] as const
  const optimizer = optimizerOf({})
  const states = createState(optimizer, groups)
  const lossScale = new LossScale(new Store(device, 'loss scale'))
  lossScale.restore({ scale: 2 ** 24, goodSteps: 0, skippedSteps: 0 })
  const body = ({ x, target }: Record<'x' | 'target', Tensor>) => {
    const [first, second] = weights.map(read) as [Tensor, Tensor]
    const loss = crossEntropyMean(conv2d(relu(conv2d(x, first, { padding: 1 })), second), target)
    const by = { optimizer, rates: { backbone: read(rate), head: read(rate) }, inputs: {}, lossScale }
    updateParameters(loss, [{ groups, state: states }], by)
    assign(rate, read(rate))
    return { loss }
  }
  const inputs = { x: spec([2, 6, 6, 4]), target: spec([2, 6, 6], 'u8') }
  const program = await compile(device, inputs, body, { autocast: castCall })
  const x = normal(288)
  const target = new Uint8Array(72).map(() => random.integer(3))
  for (let i = 0; i < 24; i++) program.run({ x, target })
  const values = await store.readAll(weights.map(({ name }) => name))
  const state = await lossScale.state()
  program.destroy()
  for (const each of [store, ...states]) each.destroy()
  lossScale.destroy()
  return { state, values }
}

halfTest('a loss scale that is too large backs off on a truncating driver too', async () => {
  const device = rounding()
  const [corrected, unknown] = [await truncating(), await truncating(true)]
  const wanted = await steps(device)
  assert.ok(wanted.state.skippedSteps > 2 && wanted.state.goodSteps > 2, JSON.stringify(wanted.state))
  assert.equal(await steps(corrected), wanted)
  // As the driver stores them, gradients are never infinite: the scale stays where it is, and the weights go wrong.
  const wrong = await steps(unknown)
  assert.equal(wrong.state, { scale: 2 ** 24, goodSteps: 24, skippedSteps: 0 })
  assert.not.equal(wrong.values, wanted.values)
  for (const each of [corrected, unknown]) each.destroy()
})

test('conversions to f16 are found by their types, aliases and brackets', () => {
  const source = `enable f16;
alias U = f16;
alias W = vec4<f16>;
alias T = f32;
// U(x) in a comment, and an open bracket: (
fn store(i: u32, v: f32) { y[i] = U(f(v, (a[i] + 1)) * 2); }
fn four(v: vec4f) -> W { return W(v); }
fn aliased(v: vec4f) -> W { return vec4<U>(v) + vec4<U>(); }
fn parts(v: vec4f) -> vec4h { return vec4h(f16(v.x), f16(v.y), U(0), 1h); }
fn bits(v: u32) -> vec2<f16> { return bitcast<vec2<f16>>(v) + vec2h(0.5); }`
  const text = replaceHalfConversions(source, '  return 0;')
  assert.match(text, 'y[i] = half_of_1(f32(f(v, (a[i] + 1)) * 2));')
  assert.match(text, '-> W { return half_of_4(vec4f(v)); }')
  assert.match(text, 'return half_of_4(vec4f(v)) + vec4<U>();')
  assert.match(text, 'return vec4h(half_of_1(f32(v.x)), half_of_1(f32(v.y)), U(0), 1h);')
  assert.match(text, 'return bitcast<vec2<f16>>(v) + vec2h(0.5);')
  assert.match(text, '// U(x) in a comment')
  const none = 'alias U = f32;\nfn store(i: u32, v: f32) { y[i] = U(v); }'
  assert.is(roundHalfStores(none), none)
})

test.run()
