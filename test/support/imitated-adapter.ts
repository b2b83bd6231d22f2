import { replaceHalfConversions } from '#dist/engine/half-conversions.js'

/** What an adapter is made to differ in, below WebGPU: the engine opens it as any other. */
export interface Imitation {
  /** It does not say that it runs on the CPU, so that it gets the kernels of GPUs. */
  readonly gpu?: boolean
  /** It has the limits that every adapter has. */
  readonly defaultLimits?: boolean
  /** Features that it does not have. */
  readonly without?: readonly string[]
  /** What its driver makes of a shader before it compiles it. */
  readonly compiler?: (source: string) => string
}

/** What WebGPU promises of every adapter, of what is asked for here. */
const defaultLimits: Readonly<Record<string, number>> = {
  maxTextureDimension2D: 8192,
  maxStorageBuffersPerShaderStage: 8,
  maxStorageTexturesPerShaderStage: 4,
  maxStorageBufferBindingSize: 2 ** 27,
  maxBufferSize: 2 ** 28,
  minStorageBufferOffsetAlignment: 256,
  minUniformBufferOffsetAlignment: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupSizeY: 256,
  maxComputeWorkgroupSizeZ: 64,
  maxComputeWorkgroupsPerDimension: 65535,
}

/** Changes an adapter that no device was opened of. */
export function imitate(adapter: GPUAdapter, { gpu, without = [], compiler, ...imitation }: Imitation): GPUAdapter {
  const { info, features, limits } = adapter
  const has = new Set([...features].filter((feature) => !without.includes(feature)))
  const requestDevice = adapter.requestDevice.bind(adapter)
  const changes = {
    features: has,
    limits: imitation.defaultLimits ? defaultLimits : limits,
    info: gpu ? { ...infoOf(info), device: 'imitated', description: 'GPU', isFallbackAdapter: false } : info,
    requestDevice: async (descriptor: GPUDeviceDescriptor = {}) => {
      const requiredLimits = imitation.defaultLimits ? {} : descriptor.requiredLimits
      const device = await requestDevice({ ...descriptor, ...(requiredLimits && { requiredLimits }) })
      const createShaderModule = device.createShaderModule.bind(device)
      if (compiler) {
        device.createShaderModule = (each) => createShaderModule({ ...each, code: compiler(each.code) })
      }
      return device
    },
  }
  for (const [name, value] of Object.entries(changes)) Object.defineProperty(adapter, name, { value })
  return adapter
}

/** Its properties lie on the prototype. */
function infoOf(info: GPUAdapterInfo): Record<string, unknown> {
  const found: Record<string, unknown> = {}
  for (const name in info) found[name] = info[name as keyof GPUAdapterInfo]
  return found
}

/** A driver that cuts off what f16 cannot hold, makes 65504 of what is too large, and 0 of what is below 2^-14. */
export const truncatingStores = (source: string): string =>
  replaceHalfConversions(
    source,
    `  let bits = bitcast<u32>(x);
  let sign = (bits >> 16) & 0x8000u;
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) { return sign | 0x7e00u; }
  if (size == 0x7f800000u) { return sign | 0x7c00u; }
  if (size < 0x38800000u) { return sign; }
  return sign | min(0x7bffu, (size - 0x38000000u) >> 13);`,
  )

/**
 * A driver that starts the workgroups of a dispatch in the opposite order: each finds itself where the last, the last but
 * one and so on would be.
 */
export function workgroupsBackwards(source: string): string {
  const group = '(group_count - 1 - group_place)'
  const size = /@workgroup_size\(([^)]*)\)/.exec(source)?.[1]
  const [x = '1', y = '1', z = '1'] = (size ?? '').split(',').map((extent) => extent.trim())
  const entry = /(@compute[^{]*fn main\()([^{]*)\)\s*\{/.exec(source)
  if (!entry) return source
  const lets: string[] = []
  const parameters = (entry[2] ?? '')
    .replace(/@builtin\(workgroup_id\)\s*(\w+)\s*:\s*vec3(?:u|<u32>),?/g, (_, name) => {
      lets.push(`let ${name} = ${group};`)
      return ''
    })
    .replace(/@builtin\(global_invocation_id\)\s*(\w+)\s*:\s*vec3(?:u|<u32>),?/g, (_, name) => {
      lets.push(`let ${name} = ${group} * vec3u(${x}, ${y}, ${z}) + local_place;`)
      return ''
    })
  if (lets.length === 0) return source
  const added = [
    '@builtin(num_workgroups) group_count: vec3u',
    '@builtin(workgroup_id) group_place: vec3u',
    ...(lets.some((line) => line.includes('local_place')) ? ['@builtin(local_invocation_id) local_place: vec3u'] : []),
  ]
  const own = parameters.trim().replace(/,$/, '')
  // A built-in value may be a parameter once.
  const clashes = /num_workgroups/.test(own) || (/local_invocation_id\b/.test(own) && added.length > 2)
  if (clashes) throw new Error(`the entry point takes what turning its workgroups takes: ${entry[0]}`)
  const head = `${entry[1]}${[...added, own].filter((part) => part !== '').join(', ')}) {\n${lets.join('\n')}`
  return source.slice(0, entry.index) + head + source.slice(entry.index + entry[0].length)
}
