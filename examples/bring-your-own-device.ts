// A program that has a WebGPU device of its own multiplies matrices on it. Run: node build/examples/bring-your-own-device.js
import { compile, matmul, shareDevice, spec, usefulFeatures } from 'atrous'
import { create, globals } from 'webgpu'

const dawn = create([])
// Dawn's object has to live as long as what comes of it.
Object.assign(globalThis, globals, { dawn })
const adapter = await dawn.requestAdapter()
if (!adapter) throw new Error('there is no WebGPU adapter')
const { maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage } = adapter.limits
const gpu = await adapter.requestDevice({
  requiredFeatures: usefulFeatures.filter((feature) => adapter.features.has(feature)),
  requiredLimits: { maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage },
})
gpu.addEventListener('uncapturederror', ({ error }) => console.log(`my own mistake: ${error.message.split('\n')[0]}`))

const device = shareDevice(gpu)
const program = await compile(device, { a: spec([2, 3]), b: spec([3, 2]) }, ({ a, b }) => ({ product: matmul(a, b) }))
program.run({ a: Float32Array.of(1, 2, 3, 4, 5, 6), b: Float32Array.of(1, 0, 0, 1, 1, 1) })
console.log(`product: ${(await program.read('product')).join(' ')}`)
program.destroy()
device.destroy()

// The device is still there, and its errors are those of its owner.
gpu.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE })
await gpu.queue.onSubmittedWorkDone()
gpu.destroy()
