import { replaceHalfConversions } from './half-conversions.js'
import type { GPUDevice } from './webgpu-types.js'

/**
 * What a driver makes of float32 that is stored as f16. WebGPU leaves it to the driver, and Dawn asks for no rounding mode:
 * some cut off what does not fit, and make the largest number of what is too large.
 */
export interface HalfStores {
  /** To the nearest number, to the even one of two. */
  readonly rounds: boolean
  /** What is too large becomes infinite. */
  readonly overflows: boolean
  /** Numbers below 2^-14 are kept. */
  readonly subnormals: boolean
}

/** Whether stores give the bits that IEEE 754 asks for. */
export const isExact = ({ rounds, overflows, subnormals }: HalfStores): boolean => rounds && overflows && subnormals

/** Numbers that tell drivers apart, and the bits of f16 nearest to them. */
const probes = {
  rounds: [
    [1 + 2 ** -11 + 2 ** -13, 0x3c01],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [-1 - 2 ** -11 - 2 ** -13, 0xbc01],
  ],
  overflows: [
    [70000, 0x7c00],
    [65520, 0x7c00],
    [-70000, 0xfc00],
  ],
  subnormals: [[2 ** -20, 0x0010]],
} as const satisfies Record<keyof HalfStores, readonly (readonly [number, number])[]>

const values: readonly (readonly [number, number])[] = Object.values(probes).flat()

// Drivers may have an instruction of its own for two or four at a time.
const shader = `enable f16;
@group(0) @binding(0) var<storage, read> x: array<vec4f, ${values.length / 4}>;
@group(0) @binding(1) var<storage, read_write> y: array<f16, ${values.length}>;
@group(0) @binding(2) var<storage, read_write> z: array<vec4<f16>, ${values.length / 4}>;
@compute @workgroup_size(${values.length})
fn main(@builtin(local_invocation_index) i: u32) {
  y[i] = f16(x[i / 4][i % 4]);
  if (i < ${values.length / 4}) { z[i] = vec4<f16>(x[i]); }
}
`

/** What the driver stores for a few numbers; undefined where it refuses the kernel. */
export async function probeHalfStores(gpu: GPUDevice): Promise<HalfStores | undefined> {
  gpu.pushErrorScope('validation')
  const module = gpu.createShaderModule({ label: 'f16 stores', code: shader })
  const pipeline = await gpu
    .createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } })
    .catch(() => undefined)
  const invalid = await gpu.popErrorScope()
  if (!pipeline || invalid) return undefined
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage
  const bytes = 2 * values.length
  const given = gpu.createBuffer({ size: 2 * bytes, usage: STORAGE | COPY_DST })
  const scalars = gpu.createBuffer({ size: bytes, usage: STORAGE | COPY_SRC })
  const vectors = gpu.createBuffer({ size: bytes, usage: STORAGE | COPY_SRC })
  const result = gpu.createBuffer({ size: 2 * bytes, usage: MAP_READ | COPY_DST })
  gpu.queue.writeBuffer(
    given,
    0,
    Float32Array.from(values, ([value]) => value),
  )
  const entries = [given, scalars, vectors].map((buffer, binding) => ({ binding, resource: { buffer } }))
  const encoder = gpu.createCommandEncoder()
  const pass = encoder.beginComputePass()
  pass.setPipeline(pipeline)
  pass.setBindGroup(0, gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }))
  pass.dispatchWorkgroups(1)
  pass.end()
  encoder.copyBufferToBuffer(scalars, 0, result, 0, bytes)
  encoder.copyBufferToBuffer(vectors, 0, result, bytes, bytes)
  gpu.queue.submit([encoder.finish()])
  await result.mapAsync(GPUMapMode.READ)
  const stored = new Uint16Array(result.getMappedRange().slice(0))
  for (const buffer of [given, scalars, vectors, result]) buffer.destroy()
  return judge(stored)
}

/** What the bits say that were stored for the probes: one at a time, then four. */
function judge(stored: Uint16Array): HalfStores {
  const holds = (probe: keyof HalfStores) =>
    probes[probe].every(([value, bits]) => {
      const at = values.findIndex(([other]) => other === value)
      return stored[at] === bits && stored[at + values.length] === bits
    })
  return { rounds: holds('rounds'), overflows: holds('overflows'), subnormals: holds('subnormals') }
}

// The nearest number by whole arithmetic on the bits; half of the last place goes to the even one.
const nearest = `  let bits = bitcast<u32>(x);
  let sign = (bits >> 16) & 0x8000u;
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) { return sign | 0x7e00u; }
  if (size >= 0x477ff000u) { return sign | 0x7c00u; }
  if (size >= 0x38800000u) { return sign | ((size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13); }
  let shift = min(25u, 126u - (size >> 23));
  let digits = (size & 0x7fffffu) | 0x800000u;
  return sign | ((digits + (1u << (shift - 1)) - 1u + ((digits >> shift) & 1u)) >> shift);`

/** How the driver of a GPU with f16 stores it, and what kernels do about it. */
export async function lookAtHalf(gpu: GPUDevice) {
  const halfStores = await probeHalfStores(gpu)
  return { halfStores, roundStores: halfStores && !isExact(halfStores) ? roundHalfStores : undefined }
}

/** A shader that rounds what it stores as f16 itself, the result being f16 already where the driver would convert. */
export const roundHalfStores = (source: string): string => replaceHalfConversions(source, nearest)
