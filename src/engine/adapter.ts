import type { DeviceProperties, GPUAdapter, GPUFeatureName } from './webgpu-types.js'

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
}

/** A product that matrix units compute at once: M x K by K x N. */
export interface MatrixShape {
  readonly M: number
  readonly N: number
  readonly K: number
}

/** Units that multiply matrices of f16 and add up in f32, a subgroup at a time. */
export interface MatrixUnits {
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
  /** Absent where the adapter has none. */
  readonly matrixUnits?: MatrixUnits | undefined
  readonly maxStorageBuffers: number
  readonly maxWorkgroupStorage: number
  /** Rows of the largest texture that mirrors a tensor. */
  readonly maxMirrorRows: number
  /** Bytes of a buffer that a kernel binds at most. */
  readonly maxBinding: number
  /** Offsets of the buffers that kernels bind are multiples of so many bytes. */
  readonly storageAlignment: number
}

/** What kernels for matrix units enable. Dawn alone has the last one, which is not in WebGPU yet. */
const matrixFeatures = ['subgroups', 'shader-f16', 'chromium-experimental-subgroup-matrix'] as GPUFeatureName[]

/** The features that kernels can use, asked for where the adapter has them. */
export const usefulFeatures: readonly GPUFeatureName[] = [...matrixFeatures, 'timestamp-query']

/** How Dawn tells what its matrix units compute. */
interface MatrixConfig extends MatrixShape {
  readonly componentType: string
  readonly resultComponentType: string
}

/** The products of f16 that an adapter's matrix units add up in f32, the largest first. */
export function matrixShapesOf(adapter: GPUAdapter): MatrixShape[] {
  const { info } = adapter
  const configs: Iterable<MatrixConfig> =
    (info as { subgroupMatrixConfigs?: Iterable<MatrixConfig> }).subgroupMatrixConfigs ?? []
  return [...configs]
    .filter(({ componentType, resultComponentType }) => componentType === 'f16' && resultComponentType === 'f32')
    .map(({ M, N, K }) => ({ M, N, K }))
    .sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K)
}

/**
 * What kernels may know of an adapter whose matrix units compute `matrixShapes`.
 * @param bindingLimit bytes that they bind at most, where the adapter binds more
 */
export function traitsOf(
  device: DeviceProperties,
  software: boolean,
  matrixShapes: readonly MatrixShape[],
  bindingLimit: number,
): AdapterTraits {
  const { adapterInfo, features, limits } = device
  const { subgroupMinSize = 0, subgroupMaxSize = 0 } = adapterInfo
  const hasMatrices = matrixShapes.length > 0 && matrixFeatures.every((feature) => features.has(feature))
  const fixed = features.has('subgroups') && subgroupMinSize === subgroupMaxSize
  return {
    software,
    half: features.has('shader-f16'),
    subgroupSize: fixed ? subgroupMinSize : 0,
    matrixUnits: hasMatrices ? { shapes: matrixShapes, lanes: subgroupMaxSize } : undefined,
    maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    maxWorkgroupStorage: limits.maxComputeWorkgroupStorageSize,
    maxMirrorRows: limits.maxTextureDimension2D,
    maxBinding: Math.min(bindingLimit, limits.maxStorageBufferBindingSize),
    // Kernels load and store 16 bytes at once.
    storageAlignment: Math.max(16, limits.minStorageBufferOffsetAlignment),
  }
}

/** What an adapter says of itself. */
export function summarizeAdapter(adapter: GPUAdapter): AdapterSummary {
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info
  const software = isFallbackAdapter || /llvmpipe|lavapipe|swiftshader|software/i.test(`${device} ${description}`)
  return { vendor, architecture, device, driver: description, software }
}
