// A device that its owner works with as well, one that was destroyed, and an adapter that is asked twice.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { summarizeAdapter } from '#dist/engine/adapter.js'
import { type Device, DeviceLostError, ValidationError } from '#dist/engine/device.js'
import { NoAdapterError } from '#dist/engine/error.js'
import { read } from '#dist/engine/graph.js'
import { findAdapter, open } from '#dist/engine/node.js'
import { openDevice, shareDevice } from '#dist/engine/open-device.js'
import { compile } from '#dist/engine/program.js'
import { spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { fillVariables } from '#dist/engine/tuning-values.js'
import { type Exchange, sumOverRanks } from '#dist/kernels/exchange.js'
import { matmul } from '#dist/kernels/matmul.js'
import { add } from '#dist/kernels/pointwise.js'
import { onDevice } from '../support/on-device.js'

const { deviceTest } = await onDevice()

const product = (device: Device) =>
  compile(device, { a: spec([2, 2]), b: spec([2, 2]) }, ({ a, b }) => ({ c: matmul(a, b) }))
const inputs = { a: Float32Array.of(1, 2, 3, 4), b: Float32Array.of(1, 0, 0, 2) }
const thrown = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  )

const oneRank: Exchange = { size: 1, sum: async (values) => values, gather: async (values) => values }

/** A buffer that WebGPU forbids. */
const forbidden = (gpu: GPUDevice) =>
  gpu.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE })

deviceTest('on a shared device the errors of the owner are the owner’s, and ours are ours', async () => {
  const { adapter } = await findAdapter()
  const gpu = await adapter.requestDevice()
  const seen: string[] = []
  gpu.addEventListener('uncapturederror', (event) => {
    event.preventDefault()
    seen.push(event.error.message)
  })
  const device = shareDevice(gpu)
  const program = await product(device)
  forbidden(gpu)
  program.run(inputs)
  assert.equal(await program.read('c'), Float32Array.of(1, 4, 3, 8))
  assert.is(seen.length, 1)
  device.scoped(() => forbidden(gpu))
  const ours = await thrown(device.idle())
  assert.instance(ours, ValidationError)
  assert.is(seen.length, 1)
  program.run(inputs)
  await device.idle()
  program.destroy()
  device.destroy()
  assert.instance(await thrown(program.read('c')), DeviceLostError)
  // The owner goes on.
  const buffer = gpu.createBuffer({ size: 4, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST })
  gpu.queue.writeBuffer(buffer, 0, Uint32Array.of(7))
  await buffer.mapAsync(GPUMapMode.READ)
  assert.is(new Uint32Array(buffer.getMappedRange())[0], 7)
  gpu.destroy()
})

deviceTest('on a shared device what host calls, tuning and other stores do wrong is ours as well', async (other) => {
  const { adapter } = await findAdapter()
  const gpu = await adapter.requestDevice()
  const seen: string[] = []
  gpu.addEventListener('uncapturederror', ({ error }) => seen.push(error.message))
  const device = shareDevice(gpu)
  const storeOn = (owner: Device) => {
    const store = new Store(owner, 'store')
    return [store, store.declare('x', spec([4]))] as const
  }
  const [store, x] = storeOn(device)
  const host = await compile(device, {}, () => ({ y: sumOverRanks([read(x)], oneRank)[0] ?? read(x) }))
  const plain = await compile(device, {}, () => ({ y: add(read(x), read(x)) }))
  const [foreign] = storeOn(other)
  const wrong = [
    async () => plain.run({}, { stores: new Map([[store, foreign]]) }),
    async () => host.runAsync({}),
    () => fillVariables(device, store),
  ]
  for (const [i, body] of wrong.entries()) {
    if (i === 1) store.buffer('x').destroy()
    const error = await thrown(body().then(() => device.idle()))
    assert.instance(error, ValidationError, `${i}`)
    await thrown(device.idle())
    assert.equal(seen, [], `${i}`)
  }
  gpu.destroy()
})

deviceTest('what is asked of a device that was destroyed says so', async () => {
  const device = await open()
  const program = await product(device)
  const store = new Store(device, 'store')
  store.declare('x', spec([2]), Float32Array.of(1, 2))
  program.run(inputs)
  const reading = thrown(program.read('c'))
  device.destroy()
  const uses = [
    async () => reading,
    async () => program.run(inputs),
    async () => store.write('x', Float32Array.of(3, 4)),
    () => store.read('x'),
    () => device.idle(),
    () => product(device),
  ]
  for (const [i, use] of uses.entries()) {
    const error = (await thrown(use())) ?? (await use())
    assert.instance(error, DeviceLostError, `use ${i}`)
    assert.match((error as Error).message, /was destroyed: open another one/)
  }
  device.destroy()
})

deviceTest('an adapter that gave a device says so when it is asked again', async () => {
  const { adapter } = await findAdapter()
  const first = await openDevice(adapter, summarizeAdapter(adapter))
  const error = await thrown(openDevice(adapter, summarizeAdapter(adapter)))
  first.destroy()
  assert.instance(error, NoAdapterError)
  assert.match((error as Error).message, /gave one already, and an adapter gives one only/)
})

test.run()
