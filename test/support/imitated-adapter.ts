import { replaceHalfConversions } from '#dist/engine/half-conversions.js'

/** How an imitated adapter differs from the real one: in WebGPU's own objects, so that the engine opens it as any other. */
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

/** WebGPU's default limits, of those that the engine reads. */
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

/** Changes an adapter in place, which must not have given a device before. */
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
  for (const [name, value] of Object.entries(changes))
    Object.defineProperty(adapter, name, { value, configurable: true })
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
  const entry = /(@compute\s+@workgroup_size\(([^)]*)\)\s*fn main\()([^{]*)\)\s*\{/.exec(source)
  if (!entry) throw new Error(`there is no entry point to turn: ${source}`)
  const [whole, begin, size = '', parameters = ''] = entry
  const builtins = [...parameters.matchAll(/@builtin\((\w+)\)\s*(\w+)\s*:\s*[\w<>]+/g)]
  const nameOf = (builtin: string) => builtins.find(([, kind]) => kind === builtin)?.[2]
  const [group, thread] = [nameOf('workgroup_id'), nameOf('global_invocation_id')]
  if (!group && !thread) return source
  const place = `(${nameOf('num_workgroups') ?? 'group_count'} - 1 - group_place)`
  const local = nameOf('local_invocation_id') ?? 'local_place'
  const extents = [...size.split(','), '1', '1'].slice(0, 3)
  const own = builtins.filter(([, kind = '']) => !['workgroup_id', 'global_invocation_id'].includes(kind))
  // A built-in value can be a parameter once.
  const taken = [
    ...own.map(([parameter]) => parameter),
    '@builtin(workgroup_id) group_place: vec3u',
    ...(nameOf('num_workgroups') ? [] : ['@builtin(num_workgroups) group_count: vec3u']),
    ...(nameOf('local_invocation_id') ? [] : ['@builtin(local_invocation_id) local_place: vec3u']),
  ]
  const lets = [
    ...(group ? [`let ${group} = ${place};`] : []),
    ...(thread ? [`let ${thread} = ${place} * vec3u(${extents.join()}) + ${local};`] : []),
  ]
  const head = `${begin}${taken.join(', ')}) {\n${lets.join('\n')}`
  return source.slice(0, entry.index) + head + source.slice(entry.index + whole.length)
}
