import { type Device, DeviceLostError } from '#dist/engine/device.js'
import { applyOne, read } from '#dist/engine/graph.js'
import { defineOp, type Tensor } from '#dist/engine/ir.js'
import { inputBuffer, outputBuffer } from '#dist/engine/kernel.js'
import type { SelectKernel } from '#dist/engine/kernel-selection.js'
import { compile } from '#dist/engine/program.js'
import { byteLength, elements, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { fillVariables } from '#dist/engine/tuning-values.js'
import { matmul } from '#dist/kernels/matmul.js'
import { timesOf } from './timing.js'

/** What the adapter reaches when it does nothing else: limits, so each is the best of several measurements. */
export interface Peaks {
  /** Billions of floating-point operations per second in multiply-adds of float32; a multiply-add is two. */
  readonly gflops: number
  /** 10^9 bytes per second of copying, read and written together: the faster of the two ways that follow. */
  readonly gbps: number
  /** The same by `copyBufferToBuffer`, which a driver does with a kernel, a copy engine or memcpy. */
  readonly bufferCopy: number
  /** The same by the fastest of a few kernels. */
  readonly kernelCopy: number
  /** As `gflops`, of a large product of matrices of f16 by the fastest kernel there is, where it was asked for. */
  readonly halfProduct?: number
}

/** An operator without attributes that is one dispatch of `source`, reading its one input. */
function kernelOf(name: string, shape: readonly number[], source: string, groups: readonly [number, number]) {
  return defineOp<undefined>(name, {
    shape: () => [spec(shape)],
    kernel: () => [
      {
        name,
        dispatches: [
          {
            label: name,
            source,
            reads: [inputBuffer(0)],
            writes: [outputBuffer(0)],
            uniforms: [],
            grid: [...groups, 1],
          },
        ],
      },
    ],
  })
}

const accumulators = 4
const unrolled = 4

/** Multiply-adds in registers: as many independent chains as a thread holds without spilling. */
function multiplyAdds(x: Tensor, threads: number, rounds: number): Tensor {
  const chains = Array.from({ length: accumulators }, (_, i) => `s${i}`)
  const step = chains.map((name) => `${name} = fma(${name}, a, b);`).join(' ')
  const source = `@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let a = vec4f(x[0]);
  let b = vec4f(x[1]);
  ${chains.map((name, i) => `var ${name} = vec4f(f32(id.x) + ${i}f);`).join(' ')}
  for (var k = 0u; k < ${rounds}u; k++) { ${Array(unrolled).fill(step).join(' ')} }
  y[id.x] = dot(${chains.join(' + ')}, vec4f(1));
}
`
  return applyOne(kernelOf('multiplyAdds', [threads], source, [threads / 64, 1]), [x], undefined)
}

interface CopyKernel {
  /** Threads of a workgroup, and vec4f that each of them copies. */
  readonly threads: number
  readonly each: number
  /** Those of one thread lie side by side; otherwise those of neighbouring threads do. */
  readonly blocked: boolean
}

/** The first two are the fastest of 50 on lavapipe, the others are usual on GPUs. */
const copyKernels: readonly CopyKernel[] = [
  { threads: 8, each: 64, blocked: false },
  { threads: 256, each: 256, blocked: true },
  { threads: 256, each: 1, blocked: false },
  { threads: 256, each: 4, blocked: false },
]

function copied(x: Tensor, { threads, each, blocked }: CopyKernel): Tensor {
  const groups = elements(x.shape) / (4 * threads * each)
  const columns = Math.min(groups, 2 ** 15)
  const at = blocked ? `(group * ${threads}u + thread) * ${each}u + k` : `(group * ${each}u + k) * ${threads}u + thread`
  const source = `@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
  let group = id.x + id.y * ${columns}u;
  for (var k = 0u; k < ${each}u; k++) {
    let at = ${at};
    y[at] = x[at];
  }
}
`
  return applyOne(kernelOf('copy', x.shape, source, [columns, groups / columns]), [x], undefined)
}

async function multiplyAddPeak(device: Device, store: Store): Promise<number> {
  const { software } = device.adapter
  const factors = store.declare('factors', spec([2]), Float32Array.of(0.999, 0.001))
  const threads = software ? 4096 : 2 ** 20
  const rounds = software ? 2000 : 1024
  const busy = await compile(device, {}, () => ({ y: multiplyAdds(read(factors), threads, rounds) }))
  const flops = threads * rounds * unrolled * accumulators * 4 * 2
  const times = await timesOf(device, () => busy.run({}))
  busy.destroy()
  return flops / Math.min(...times) / 1e6
}

/** Bandwidth of copying, in 10^9 bytes per second: see `Peaks`. */
export async function copyPeaks(device: Device, store: Store): Promise<{ bufferCopy: number; kernelCopy: number }> {
  // Larger than the caches, within what a binding may hold.
  const limit = 2 ** Math.floor(Math.log2(device.gpu.limits.maxStorageBufferBindingSize / 4))
  const source = store.declare('source', spec([Math.min(limit, device.adapter.software ? 2 ** 24 : 2 ** 27)]))
  const target = store.declare('target', source.spec)
  const bytes = byteLength(source.spec)
  const rate = (times: readonly number[]) => (2 * bytes) / Math.min(...times) / 1e6
  const buffers = await timesOf(device, () => {
    const encoder = device.gpu.createCommandEncoder({ label: 'copy' })
    encoder.copyBufferToBuffer(store.buffer(source.name), 0, store.buffer(target.name), 0, bytes)
    device.gpu.queue.submit([encoder.finish()])
  })
  const kernels: number[] = []
  for (const kernel of copyKernels) {
    const program = await compile(device, {}, () => ({ y: copied(read(source), kernel) }))
    kernels.push(rate(await timesOf(device, () => program.run({}))))
    program.destroy()
  }
  return { bufferCopy: rate(buffers), kernelCopy: Math.max(...kernels) }
}

async function halfProductPeak(device: Device): Promise<number> {
  const rates: number[] = []
  await eachHalfProduct(device, device.adapter.software ? 256 : 4096, (_, rate) => rates.push(rate))
  return Math.max(...rates)
}

/**
 * Times every kernel of a product of two square matrices of f16.
 * @param size rows and columns of each
 * @param onRate called with the name of a kernel and its GFLOP/s, or why there are none
 */
export async function eachHalfProduct(
  device: Device,
  size: number,
  onRate: (kernel: string, gflops: number, failure?: string) => void,
): Promise<void> {
  const store = new Store(device, 'product')
  const a = store.declare('a', spec([size, size], 'f16'))
  const b = store.declare('b', spec([size, size], 'f16'))
  await fillVariables(device, store)
  for (let k = 0, kernels = 1; k < kernels; k++) {
    let kernel = ''
    const selectKernel: SelectKernel = (_, candidates) => {
      kernels = candidates.length
      kernel = candidates[k]?.name ?? ''
      return candidates[k]
    }
    try {
      const product = await compile(device, {}, () => ({ y: matmul(read(a), read(b)) }), { selectKernel })
      const times = await timesOf(device, () => product.run({}))
      product.destroy()
      onRate(kernel, (2 * size ** 3) / Math.min(...times) / 1e6)
    } catch (error) {
      if (error instanceof DeviceLostError) throw error
      onRate(kernel, 0, error instanceof Error ? error.message : String(error))
    }
  }
  store.destroy()
}

/**
 * Measures the limits of the adapter.
 * @param half also that of products in half precision
 */
export async function measurePeaks(device: Device, half: boolean): Promise<Peaks> {
  const store = new Store(device, 'peaks')
  try {
    const gflops = await multiplyAddPeak(device, store)
    const copies = await copyPeaks(device, store)
    const halfProduct = half ? { halfProduct: await halfProductPeak(device) } : {}
    return { gflops, gbps: Math.max(copies.bufferCopy, copies.kernelCopy), ...copies, ...halfProduct }
  } finally {
    store.destroy()
  }
}
