import type { DeviceProperties, GPUAdapter, GPUFeatureName, WithAdapterInfo } from './webgpu-types.js'

/** The interfaces to drivers through which adapters are opened, under Dawn's names. */
export type Backend = 'vulkan' | 'd3d12' | 'metal'

export const backendNames: Readonly<Record<Backend, string>> = {
  vulkan: 'Vulkan',
  d3d12: 'Direct3D 12',
  metal: 'Metal',
}

/** What an adapter says of itself. */
export interface AdapterSummary {
  readonly vendor: string
  readonly architecture: string
  /** The marketing name of the adapter. */
  readonly device: string
  /** The driver's name and version. */
  readonly driver: string
  /** Runs on the CPU: lavapipe, SwiftShader and the like. */
  readonly software: boolean
  /** The interface to the driver, where that is known: a browser does not say. */
  readonly backend?: Backend
}

/** A product that matrix units compute at once: M x K by K x N. */
export interface MatrixShape {
  readonly M: number
  readonly N: number
  readonly K: number
}

/** A product that an adapter's matrix units compute, with the types of its factors and of what they add up. */
export interface MatrixConfig extends MatrixShape {
  readonly factors: string
  readonly sums: string
}

/** Units that multiply matrices of f16, or of f32, and add up in f32, a subgroup at a time. */
export interface MatrixUnits {
  /** What they multiply. */
  readonly factors: 'f16' | 'f32'
  /** The largest first. */
  readonly shapes: readonly MatrixShape[]
  /** Lanes of the largest subgroups. */
  readonly lanes: number
}

/** What a kernel may know of the adapter it will run on. */
export interface AdapterTraits {
  /** A driver that runs on the CPU, such as lavapipe or SwiftShader. */
  readonly software: boolean
  /** Kernels may read and write f16. */
  readonly half: boolean
  /** Lanes of a subgroup where the adapter has subgroups of one fixed size, else 0. */
  readonly subgroupSize: number
  /**
   * Powers of two from the smallest to the largest size of subgroups that a kernel may ask for by `@subgroup_size`; none
   * where the device cannot be asked.
   */
  readonly subgroupSizes: readonly number[]
  /** All that matrix units compute; none where the device lacks what kernels for them enable. */
  readonly matrixConfigs: readonly MatrixConfig[]
  /** Absent where the adapter has none. */
  readonly matrixUnits?: MatrixUnits | undefined
  readonly maxStorageBuffers: number
  readonly maxWorkgroupStorage: number
  /** Rows of the largest texture that mirrors a tensor; 0 where kernels had better read none. */
  readonly maxMirrorRows: number
  /** Bytes of a buffer that a kernel binds at most. */
  readonly maxBinding: number
  /** Offsets of the buffers that kernels bind are multiples of so many bytes. */
  readonly storageAlignment: number
}

/** What kernels for matrix units enable. Dawn alone has the last one, which is not in WebGPU yet. */
const matrixFeatures = ['subgroups', 'shader-f16', 'chromium-experimental-subgroup-matrix'] as GPUFeatureName[]

const sizeControl = 'subgroup-size-control' as GPUFeatureName

/** The features that kernels can use, asked for where the adapter has them. */
export const usefulFeatures: readonly GPUFeatureName[] = [...matrixFeatures, sizeControl, 'timestamp-query']

/** Those of them that WebGPU has, and drivers are tested with. */
export const standardFeatures: readonly GPUFeatureName[] = ['subgroups', 'shader-f16', 'timestamp-query']

/** How Dawn tells what its matrix units compute. */
interface DawnMatrixConfig extends MatrixShape {
  readonly componentType: string
  readonly resultComponentType: string
}

/** All products that an adapter's matrix units compute, the largest first. */
export function matrixConfigsOf(adapter: WithAdapterInfo): MatrixConfig[] {
  const { info } = adapter
  const { subgroupMatrixConfigs: configs = [] } = info as { subgroupMatrixConfigs?: Iterable<DawnMatrixConfig> }
  return [...configs]
    .map(({ componentType: factors, resultComponentType: sums, M, N, K }) => ({ factors, sums, M, N, K }))
    .sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K)
}

/** The products of such factors that matrix units add up in f32. */
const shapesOf = (configs: readonly MatrixConfig[], type: 'f16' | 'f32'): MatrixShape[] =>
  configs.filter(({ factors, sums }) => factors === type && sums === 'f32').map(({ M, N, K }) => ({ M, N, K }))

/** The units that kernels use: those for f16, or else for f32, as Apple has them. */
function unitsOf(configs: readonly MatrixConfig[], lanes: number): MatrixUnits | undefined {
  const units = (['f16', 'f32'] as const).map((factors) => ({ factors, shapes: shapesOf(configs, factors), lanes }))
  return units.find(({ shapes }) => shapes.length > 0)
}

/** The products that kernels may use, by the features of an adapter or a device. */
const usable = (
  features: { has(name: GPUFeatureName): boolean },
  configs: readonly MatrixConfig[],
): readonly MatrixConfig[] => (matrixFeatures.every((feature) => features.has(feature)) ? configs : [])

/** The shapes of an adapter's matrix units for f16 that kernels can use. */
export const usableMatrixShapes = (adapter: GPUAdapter): MatrixShape[] =>
  shapesOf(usable(adapter.features, matrixConfigsOf(adapter)), 'f16')

/** What is known of an adapter beside its device. */
export interface KnownOfAdapter {
  readonly software: boolean
  readonly canReadTextures: boolean
  /** What its matrix units compute. */
  readonly matrixConfigs: readonly MatrixConfig[]
  /** Bytes that kernels bind at most, where the adapter binds more. */
  readonly bindingLimit: number
}

/** What kernels may know of a device. */
export function traitsOf(device: DeviceProperties, known: KnownOfAdapter): AdapterTraits {
  const { adapterInfo, features, limits } = device
  const { subgroupMinSize = 0, subgroupMaxSize = 0 } = adapterInfo
  const matrixConfigs = usable(features, known.matrixConfigs)
  const hasSubgroups = features.has('subgroups')
  return {
    software: known.software,
    half: features.has('shader-f16'),
    subgroupSize: hasSubgroups && subgroupMinSize === subgroupMaxSize ? subgroupMinSize : 0,
    subgroupSizes: hasSubgroups && features.has(sizeControl) ? doublings(subgroupMinSize, subgroupMaxSize) : [],
    matrixConfigs,
    matrixUnits: unitsOf(matrixConfigs, subgroupMaxSize),
    maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    maxWorkgroupStorage: limits.maxComputeWorkgroupStorageSize,
    maxMirrorRows: known.canReadTextures ? limits.maxTextureDimension2D : 0,
    maxBinding: Math.min(known.bindingLimit, limits.maxStorageBufferBindingSize),
    // Kernels load and store 16 bytes at once.
    storageAlignment: Math.max(16, limits.minStorageBufferOffsetAlignment),
  }
}

/** A size, and what it becomes by doubling, up to the largest. */
function doublings(least: number, largest: number): number[] {
  const sizes: number[] = []
  for (let size = least; size > 0 && size <= largest; size *= 2) sizes.push(size)
  return sizes
}

/** What an adapter says of itself. */
export function summarizeAdapter(adapter: WithAdapterInfo): AdapterSummary {
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info
  const software = isFallbackAdapter || /llvmpipe|lavapipe|swiftshader|software/i.test(`${device} ${description}`)
  return { vendor, architecture, device, driver: description, software }
}

/** Whether kernels may read tensors as textures: SwiftShader compiles one that does for over a minute. */
export const canReadTextures = ({ architecture, device, driver }: AdapterSummary): boolean =>
  !/swiftshader/i.test(`${architecture} ${device} ${driver}`)

/** An adapter on one line: its name, driver and backend. */
export const showAdapter = ({ device, driver, backend }: AdapterSummary): string =>
  `${device || 'without a name'} (${[driver, ...(backend ? [backendNames[backend]] : [])].join('; ')})`
