import type { Device } from '#dist/engine/device.js'
import { gradients } from '#dist/engine/grad.js'
import { applyOne, assign, read, type Tensor, tracedGraph } from '#dist/engine/graph.js'
import type { Choose } from '#dist/engine/lower.js'
import { defineOp, input, output } from '#dist/engine/op.js'
import { compile, type Program } from '#dist/engine/program.js'
import { byteLength, elements, type Spec, spec } from '#dist/engine/shape.js'
import { Store } from '#dist/engine/store.js'
import { add, fill, scale } from '#dist/kernels/pointwise.js'
import { type Case, Random } from '../test/cases/case.js'

export const median = (list: readonly number[]): number =>
  [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? 0

/**
 * Milliseconds of one run, measured several times: each measurement submits as many runs as take a noticeable time and
 * waits once.
 */
async function timesOf(device: Device, run: () => void): Promise<number[]> {
  const batch = async (runs: number): Promise<number> => {
    const started = performance.now()
    for (let k = 0; k < runs; k++) run()
    await device.idle()
    return (performance.now() - started) / runs
  }
  // The first use of a buffer zeroes it, and the first of a pipeline uploads it.
  await batch(1)
  const once = await batch(1)
  const runs = Math.max(1, Math.min(200, Math.ceil(60 / once)))
  const repeats = once > 1000 ? 3 : 5
  const times: number[] = []
  for (let k = 0; k < repeats; k++) times.push(await batch(runs))
  return times
}

/** What the adapter reaches in kernels that do nothing else: a limit, so the best of several measurements. */
export interface Peaks {
  /** Billions of floating-point operations per second in multiply-adds of float32; a multiply-add is two. */
  readonly gflops: number
  /** 10^9 bytes per second of a copy, read and written together. */
  readonly gbps: number
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
  const op = defineOp<undefined>('multiplyAdds', {
    shape: () => [spec([threads])],
    kernel: () => [
      {
        name: 'registers',
        dispatches: [
          {
            label: 'multiplyAdds',
            source,
            reads: [input(0)],
            writes: [output(0)],
            uniforms: [],
            grid: [threads / 64, 1, 1],
          },
        ],
      },
    ],
  })
  return applyOne(op, [x], undefined)
}

export async function measurePeaks(device: Device): Promise<Peaks> {
  const { software } = device.adapter
  const store = new Store(device, 'peaks')
  const factors = store.declare('factors', spec([2]), Float32Array.of(0.999, 0.001))
  const threads = software ? 4096 : 2 ** 20
  const rounds = software ? 2000 : 1024
  const busy = await compile(device, {}, () => ({ y: multiplyAdds(read(factors), threads, rounds) }))
  const flops = threads * rounds * unrolled * accumulators * 4 * 2
  const gflops = flops / Math.min(...(await timesOf(device, () => busy.run({})))) / 1e6
  busy.destroy()
  // Larger than the caches, within what a binding may hold.
  const limit = device.gpu.limits.maxStorageBufferBindingSize / 4
  const source = store.declare('source', spec([Math.min(limit, software ? 2 ** 24 : 2 ** 27)]))
  const target = store.declare('target', source.spec)
  const bytes = byteLength(source.spec)
  // A driver copies buffers with a kernel, a copy engine or memcpy; whichever is faster is the limit.
  const copy = () => {
    const encoder = device.gpu.createCommandEncoder({ label: 'copy' })
    encoder.copyBufferToBuffer(store.buffer(source.name), 0, store.buffer(target.name), 0, bytes)
    device.gpu.queue.submit([encoder.finish()])
  }
  const kernel = await compile(device, {}, () => ({ y: scale(read(source), 2) }))
  const times = [...(await timesOf(device, copy)), ...(await timesOf(device, () => kernel.run({})))]
  const gbps = (2 * bytes) / Math.min(...times) / 1e6
  kernel.destroy()
  store.destroy()
  return { gflops, gbps }
}

export type Pass = 'forward' | 'backward'

export interface Measurement {
  readonly op: string
  readonly shape: string
  readonly pass: Pass
  /** The kernels that were chosen among several, or the only one. */
  readonly kernel: string
  readonly milliseconds: number
  /** Floating-point operations, where these are what bounds the operator. */
  readonly flops?: number
  /** Bytes of everything that the operator is given and returns, each counted once. */
  readonly bytes: number
}

/** Passes of a case that are worth a row: a product's gradients are products, which have rows of their own. */
export const passesOf = (row: Case): Pass[] =>
  row.differentiable && row.flops === undefined ? ['forward', 'backward'] : ['forward']

/** Times one pass of a case. Its tensors live in variables, so that nothing is uploaded between the runs. */
export async function measure(device: Device, row: Case, pass: Pass): Promise<Measurement> {
  const store = new Store(device, `${row.op} ${row.name}`)
  let program: Program<Record<string, never>> | undefined
  const kernels = new Set<string>()
  const choose: Choose = (node, candidates) => {
    const [first] = candidates
    if (first) kernels.add(node.op?.name === row.op ? `* ${first.name}` : first.name)
    return first
  }
  let bytes = 0
  const count = (specs: Iterable<Spec>) => {
    for (const each of specs) bytes += byteLength(each)
  }
  try {
    for (const [name, source] of Object.entries(row.inputs)) {
      store.declare(name, source.spec, source.draw(new Random(`${row.op}/${row.name}/${name}`)))
    }
    const made = await compile(
      device,
      {},
      () => {
        const tensors = Object.fromEntries(store.all().map((variable) => [variable.name, read(variable)]))
        const outputs = row.run(tensors)
        count(Object.values(tensors))
        if (pass === 'backward') {
          const results = backward(store, row, tensors, outputs)
          count(Object.values(results.cotangent))
          count(Object.values(results.gradients))
          return results.gradients
        }
        count(Object.values(outputs))
        for (const [name, variable] of Object.entries(row.state ?? {})) {
          const value = outputs[name]
          if (value) assign(store.get(variable), value)
        }
        return row.state ? {} : outputs
      },
      { label: `${row.op} ${row.name}`, choose },
    )
    program = made
    const milliseconds = median(await timesOf(device, () => made.run({})))
    const own = [...kernels].filter((name) => name.startsWith('* ')).map((name) => name.slice(2))
    const kernel = (own.length > 0 ? own : [...kernels]).join(', ')
    const base = { op: row.op, shape: row.name, pass, kernel, milliseconds, bytes }
    return row.flops === undefined ? base : { ...base, flops: row.flops }
  } finally {
    program?.destroy()
    store.destroy()
  }
}

/** The gradients alone: of the forward pass only what they need is computed. */
function backward(
  store: Store,
  row: Case,
  tensors: Record<string, Tensor>,
  outputs: Record<string, Tensor>,
): { gradients: Record<string, Tensor>; cotangent: Record<string, Tensor> } {
  const name = row.passing?.[0] ?? Object.keys(outputs)[0] ?? ''
  const from = outputs[name]
  const targets = (row.differentiable ?? []).flatMap((target) => tensors[target] ?? [])
  if (!from) throw new Error(`${row.op} has no output '${name}'`)
  const random = new Random('cotangent')
  const data = new Float32Array(elements(from.shape)).map(() => random.uniform())
  const seed = read(store.declare('cotangent', spec(from.shape), data))
  const zero = (like: Tensor) => fill(like.shape, 0)
  const results = gradients(tracedGraph('bench'), from, targets, { seed, sum: add, zero })
  return {
    gradients: Object.fromEntries(results.map((gradient, i) => [`gradient ${i}`, gradient])),
    cotangent: { seed },
  }
}
