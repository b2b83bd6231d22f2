// Measuring kernels: how they are timed, which are left out, and that results stay what they are.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { callOf, type Measurement, type Selectable, Tuning, workOfCall } from '#dist/engine/autotune.js'
import { type Device, KernelError } from '#dist/engine/device.js'
import { applyOne, read } from '#dist/engine/graph.js'
import { defineOp, type Tensor } from '#dist/engine/ir.js'
import { setKernelSelection } from '#dist/engine/kernel-selection.js'
import { type TimedCandidate, timed, withFewerSamples } from '#dist/engine/measure-kernels.js'
import { findAdapters, open } from '#dist/engine/node.js'
import { compile } from '#dist/engine/program.js'
import { sampleOutputs } from '#dist/engine/sample-outputs.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { fillVariables } from '#dist/engine/tuning-values.js'
import { grad } from '#dist/kernels/autograd.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { cpuLanes } from '#dist/kernels/conv2d-tiles.js'
import { add, mul, sum } from '#dist/kernels/pointwise.js'
import { faultyKernels, measureUnknown, useTuning } from '#dist/train/tuning/run-tuning.js'
import { TuningCache } from '#dist/train/tuning/tuning-cache.js'
import { Random } from '../../cases/case.js'
import { skipUnless } from '../support/skip.js'
import { kernel } from '../support/tuning.js'

const folder = mkdtempSync(join(tmpdir(), 'atrous-tune-'))
const available = (await findAdapters()).length > 0
const device = available ? await open() : undefined
const deviceTest = skipUnless(available, 'there is no WebGPU adapter')
test.after(() => {
  rmSync(folder, { recursive: true })
  device?.destroy()
})

const opened = () => {
  if (!device) throw new Error('unreachable: the test is skipped without a device')
  return device
}

test('one disturbed round changes no time, and what is beyond the cutoff is not measured further', async () => {
  const calls = [0, 0, 0, 0, 0]
  const candidate =
    (index: number, time: number): TimedCandidate =>
    async () => {
      const call = 1 + (calls[index] ?? 0)
      calls[index] = call
      // The first run is a warm-up, and one of the later ones is disturbed.
      return call === 1 ? 1000 : call === 3 ? 90 : time
    }
  assert.equal(await timed([candidate(0, 10), candidate(1, 12), candidate(2, 95), undefined]), [10, 12, 95, null])
  assert.ok((calls[0] ?? 0) > 5)
  assert.is(calls[1], calls[0])
  assert.is(calls[2], 4)
  // Nothing is left to compare with.
  await timed([candidate(3, 10), candidate(4, 95)])
  assert.is(calls[3], 4)
  assert.equal(await timed([undefined, undefined]), [null, null])
})

/** Doubles a vector after much idle arithmetic. */
const source = (rounds: number) => `@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  var s = x[id.x];
  for (var k = 0u; k < ${rounds}u; k++) { s = fract(s * 1.5 + 0.25); }
  y[id.x] = 2 * x[id.x] + select(0.0, 1.0, s > 2);
}
`
const doubleOp = defineOp<undefined>('double', {
  shape: ([x = spec([])]) => [spec(x.shape)],
  kernel: () => [kernel('slow', source(20_000)), kernel('fast', source(1))],
})

deviceTest('the faster of two kernels is found, once, and computes the same', async () => {
  const device = opened()
  const cache = new TuningCache(device.adapter, assert.unreachable, join(folder, 'measured'))
  const progress: string[] = []
  const tuning = new Tuning(cache.read())
  const inputs = { x: spec([64 * 64]) }
  const body = ({ x }: { x: Tensor }) => ({ y: applyOne(doubleOp, [x], undefined) })
  const x = Float32Array.from({ length: 64 * 64 }, (_, i) => i)
  try {
    const program = async () => {
      const made = await compile(device, inputs, body)
      made.run({ x })
      const result = { kernels: made.kernels, y: await made.read('y') }
      made.destroy()
      return result
    }
    const plain = await program()
    measureUnknown(device, tuning, cache, ({ call }, done, total) => progress.push(`${done}/${total} ${call}`))
    const tuned = await program()
    assert.equal(plain.kernels, ['slow'])
    assert.equal(tuned.kernels, ['fast'])
    assert.equal(tuned.y, plain.y)
    assert.equal(tuned.y.slice(0, 3), Float32Array.of(0, 2, 4))
    assert.equal(progress, ['1/1 double(f32[4096]) '])
    assert.equal(await program(), tuned)
    // Another process reads the same.
    const later = new Tuning(cache.read())
    measureUnknown(device, later, cache, () => assert.unreachable('measured again'))
    assert.equal(await program(), tuned)
    useTuning(device, new Tuning())
    assert.equal(await program(), plain)
  } finally {
    setKernelSelection(device, undefined)
  }
})

/** More threads than any adapter starts: what the compiler passes, and the driver refuses. */
const refusedOp = defineOp<undefined>('double', {
  shape: ([x = spec([])]) => [spec(x.shape)],
  kernel: () => [
    kernel('refused', source(1).replace('@workgroup_size(64)', '@workgroup_size(1048576)')),
    kernel('able', source(1)),
  ],
})

deviceTest('a kernel that the driver refuses is left out where kernels are measured, and else named', async () => {
  const device = opened()
  const cache = new TuningCache(device.adapter, assert.unreachable, join(folder, 'refused'))
  const compiled = () => compile(device, { x: spec([64]) }, ({ x }) => ({ y: applyOne(refusedOp, [x], undefined) }))
  try {
    const failure = await compiled().catch((error: unknown) => error)
    assert.instance(failure, KernelError)
    assert.match(String(failure), /kernel refused: /)
    const seen: Measurement[] = []
    measureUnknown(device, new Tuning(), cache, (measurement) => seen.push(measurement))
    const program = await compiled()
    assert.equal(program.kernels, ['able'])
    assert.is(seen[0]?.milliseconds[0], null)
    assert.ok((seen[0]?.milliseconds[1] ?? 0) > 0)
    program.run({ x: Float32Array.from({ length: 64 }, (_, i) => i) })
    assert.equal((await program.read('y')).slice(0, 3), Float32Array.of(0, 2, 4))
    program.destroy()
  } finally {
    setKernelSelection(device, undefined)
  }
})

const wrongOp = defineOp<undefined>('double', {
  shape: ([x = spec([])]) => [spec(x.shape)],
  kernel: () => [
    kernel('wrong', source(1).replace('2 * x[id.x]', 'select(2.0, 2.01, id.x == 77) * x[id.x]')),
    kernel(
      'not a number',
      source(1).replace('2 * x[id.x]', 'select(2 * x[id.x], sqrt(-1 - abs(x[id.x])), id.x == 77)'),
    ),
    kernel('slow', source(20_000)),
    kernel('plain', source(1)),
  ],
})

deviceTest('a kernel whose results are wrong is left out, and named', async () => {
  const device = opened()
  const cache = new TuningCache(device.adapter, assert.unreachable, join(folder, 'wrong'))
  try {
    const seen: Measurement[] = []
    measureUnknown(device, new Tuning(), cache, (measurement) => seen.push(measurement))
    const program = await compile(device, { x: spec([128]) }, ({ x }) => ({ y: applyOne(wrongOp, [x], undefined) }))
    assert.equal(program.kernels, ['plain'])
    program.destroy()
    const [measurement] = seen
    assert.equal(new Set(measurement?.wrong), new Set(['wrong', 'not a number']))
    assert.equal(measurement?.milliseconds.slice(0, 2), [null, null])
    assert.match(faultyKernels(measurement as Measurement).join(), /kernels: wrong gives wrong results on this adapter/)
    // What was found is remembered.
    assert.equal(cache.read()[0]?.wrong, measurement?.wrong)
    measureUnknown(device, new Tuning(cache.read()), cache, () => assert.unreachable('measured again'))
    const again = await compile(device, { x: spec([128]) }, ({ x }) => ({ y: applyOne(wrongOp, [x], undefined) }))
    assert.equal(again.kernels, ['plain'])
    again.destroy()
  } finally {
    setKernelSelection(device, undefined)
  }
})

const losingOp = defineOp<undefined>('double', {
  shape: ([x = spec([])]) => [spec(x.shape)],
  kernel: () => [
    kernel('loses the device', source(2)),
    kernel('never ends', source(3)),
    kernel('loses its compiler', source(4)),
    kernel('able', source(1)),
  ],
})

/** A device of its own that a kernel of some shaders loses, and another one blocks. */
async function fragile(): Promise<Device> {
  const device = await open()
  const made = new Map<object, string>()
  const { gpu } = device
  const create = gpu.createComputePipelineAsync.bind(gpu)
  gpu.createComputePipelineAsync = async (descriptor) => {
    if (descriptor.label === 'loses its compiler') gpu.destroy()
    const pipeline = await create(descriptor)
    made.set(pipeline, descriptor.label ?? '')
    return pipeline
  }
  const encode = gpu.createCommandEncoder.bind(gpu)
  gpu.createCommandEncoder = (descriptor) => {
    const encoder = encode(descriptor)
    const begin = encoder.beginComputePass.bind(encoder)
    encoder.beginComputePass = (options) => {
      const pass = begin(options)
      const set = pass.setPipeline.bind(pass)
      pass.setPipeline = (pipeline) => {
        const name = made.get(pipeline)
        if (name === 'loses the device') gpu.destroy()
        if (name === 'never ends') device.read = () => new Promise(() => {})
        set(pipeline)
      }
      return pass
    }
    return encoder
  }
  return device
}

deviceTest('a kernel that loses or blocks the device is unfit, and tuning goes on with another one', async () => {
  const device = opened()
  const cache = new TuningCache(device.adapter, assert.unreachable, join(folder, 'fragile'))
  const seen: Measurement[] = []
  let devices = 0
  const reopen = () => {
    devices++
    return fragile()
  }
  try {
    measureUnknown(device, new Tuning(), cache, (measurement) => seen.push(measurement), { reopen, patience: 300 })
    const program = await compile(device, { x: spec([256]) }, ({ x }) => ({ y: applyOne(losingOp, [x], undefined) }))
    assert.equal(program.kernels, ['able'])
    program.run({ x: Float32Array.from({ length: 256 }, (_, i) => i) })
    assert.equal((await program.read('y')).slice(0, 3), Float32Array.of(0, 2, 4))
    program.destroy()
    // The first is lost as all are compiled, and one to each of the three.
    assert.is(devices, 5)
    assert.equal(new Set(seen[0]?.unfit), new Set(['loses the device', 'never ends', 'loses its compiler']))
    assert.equal(seen[0]?.milliseconds.slice(0, 3), [null, null, null])
    assert.match(faultyKernels(seen[0] as Measurement).join(), /loses the device loses or blocks this adapter/)
    // What was found is remembered.
    assert.equal(cache.read()[0]?.unfit, seen[0]?.unfit)
  } finally {
    setKernelSelection(device, undefined)
  }
})

deviceTest('values of inputs are made on the device, and results are compared in pieces', async () => {
  const device = opened()
  const store = new Store(device, 'values')
  const count = 70_000
  store.declare('single', spec([count]))
  store.declare('half', spec([count], 'f16'))
  store.declare('whole', spec([8], 'u32'))
  await fillVariables(device, store)
  const values = await store.readAll()
  const mixed = (i: number) => Math.imul(i, 0x9e3779b1) >>> 8
  assert.equal(
    values.get('single'),
    Float32Array.from({ length: count }, (_, i) => mixed(i) / 2 ** 24 - 0.5),
  )
  assert.equal(
    values.get('half'),
    Uint16Array.from({ length: count }, (_, i) => 0x3400 | (mixed(i) & 0x83ff)),
  )
  assert.equal(values.get('whole'), new Uint32Array(8))
  const program = await compile(device, {}, () => ({ y: add(read(store.get('single')), read(store.get('single'))) }))
  program.run({})
  const [sample] = await sampleOutputs(device, program, ['y'], 640)
  assert.is(sample?.length, 640 + 2 * 64)
  assert.is(sample?.[0], 2 * (mixed(0) / 2 ** 24 - 0.5))
  assert.is(sample?.at(-1), 2 * (mixed(count - 1) / 2 ** 24 - 0.5))
  assert.equal((await sampleOutputs(device, program, ['y'], count))[0], await program.read('y'))
  program.destroy()
  store.destroy()
})

deviceTest('a large call is timed for fewer samples, by kernels of the same names', async () => {
  const device = opened()
  const inputs = { x: spec([8, 16, 16, 12]), w: spec([3, 3, 12, 20]) }
  const calls: Selectable[] = []
  setKernelSelection(device, async (trace) => {
    calls.push(...(await new Tuning().calls(trace, { ...device.traits, software: false, subgroupSize: 0 })))
    return new Tuning().selectKernel
  })
  try {
    const program = await compile(device, inputs, ({ x, w }) => {
      const y = conv2d(x, w, { padding: 1 })
      const [dx = y, dw = y] = grad(sum(mul(y, y)), [x, w])
      return { y, dx, dw }
    })
    program.destroy()
  } finally {
    setKernelSelection(device, undefined)
  }
  const products = calls.filter(({ node }) => /^conv2d/.test(node.name))
  assert.is(products.length, 3)
  for (const call of products) {
    const traits = { ...device.traits, software: false, subgroupSize: 0 }
    const work = workOfCall(call.node)
    assert.is(await withFewerSamples(call, work, traits), call)
    const fewer = await withFewerSamples(call, work / 3, traits)
    assert.is(fewer.node.inputs[0]?.shape[0], 2)
    assert.is(workOfCall(fewer.node), work / 4)
    const names = ({ candidates }: Selectable) => candidates.map(({ name }) => name)
    assert.equal(new Set([...names(call), ...names(fewer)]), new Set(names(call)))
    assert.is((await withFewerSamples(call, 1, traits)).node.inputs[0]?.shape[0], 1)
  }
})

const products = skipUnless(
  device !== undefined && cpuLanes(device.traits) !== undefined,
  'this adapter has one kernel for each product',
)
products('with other kernels a convolution and its gradients are the same but for roundings', async () => {
  const device = opened()
  const inputs = { x: spec([2, 9, 11, 12]), w: spec([3, 3, 12, 20]) }
  const body = ({ x, w }: { x: Tensor; w: Tensor }) => {
    const y = conv2d(x, w, { padding: 2, dilation: 2 })
    const [dx = y, dw = y] = grad(sum(mul(y, y)), [x, w])
    return { y, dx, dw }
  }
  const random = new Random('tuned convolution')
  const data = {
    x: new Float32Array(2 * 9 * 11 * 12).map(() => random.normal()),
    w: new Float32Array(9 * 12 * 20).map(() => random.normal()),
  }
  const names = ['y', 'dx', 'dw'] as const
  const results = async () => {
    const program = await compile(device, inputs, body)
    program.run(data)
    const list = await program.readAll(names)
    program.destroy()
    return list.map((values) => [...values])
  }
  const first = await results()
  let calls = 0
  try {
    setKernelSelection(device, async (trace) => {
      const last = (await new Tuning().missing(trace, device.traits)).map(({ node, candidates }): Measurement => {
        const kernels = candidates.map(({ name, dispatches }) => ({ name, sources: dispatches.map((d) => d.source) }))
        return { call: callOf(node), kernels, milliseconds: kernels.map(() => 1), choice: kernels.at(-1)?.name ?? '' }
      })
      calls = last.length
      return new Tuning(last).selectKernel
    })
    const others = await results()
    assert.is(calls, 3)
    for (const [i, values] of first.entries()) {
      const scale = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const other = others[i] ?? []
      let worst = 0
      for (const [k, value] of values.entries()) worst = Math.max(worst, Math.abs(value - (other[k] ?? Number.NaN)))
      // Sums of up to 200 products of float32.
      assert.ok(worst <= 1e-5 * scale, `${names[i]} differs by ${worst} of ${scale}`)
    }
  } finally {
    setKernelSelection(device, undefined)
  }
})

test.run()
