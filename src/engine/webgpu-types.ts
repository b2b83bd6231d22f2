// The types of WebGPU that declarations of this package name. Whoever compiles against it has them from the library `dom`,
// from `@webgpu/types`, or not at all: each is what the global of its name says there, and `unknown` where there is none.

type InstanceOf<Name extends string> =
  typeof globalThis extends Readonly<Record<Name, { readonly prototype: infer Type }>> ? Type : unknown

export type GPUAdapter = InstanceOf<'GPUAdapter'>
export type GPUBindGroup = InstanceOf<'GPUBindGroup'>
export type GPUBindGroupLayout = InstanceOf<'GPUBindGroupLayout'>
export type GPUBuffer = InstanceOf<'GPUBuffer'>
export type GPUCommandEncoder = InstanceOf<'GPUCommandEncoder'>
export type GPUComputePipeline = InstanceOf<'GPUComputePipeline'>
export type GPUDevice = InstanceOf<'GPUDevice'>
export type GPUTexture = InstanceOf<'GPUTexture'>

/** Where a compute pass writes time stamps. */
export type GPUComputePassTimestampWrites = GPUCommandEncoder extends {
  beginComputePass(descriptor?: infer Descriptor): unknown
}
  ? Descriptor extends { timestampWrites?: infer Writes }
    ? NonNullable<Writes>
    : never
  : unknown

export type GPUFeatureName = GPUAdapter extends { requestDevice(descriptor?: infer Descriptor): unknown }
  ? Descriptor extends { requiredFeatures?: Iterable<infer Name> }
    ? Name
    : never
  : unknown

/** What a device says of itself. */
export type DeviceProperties = GPUDevice extends {
  readonly adapterInfo: infer Info
  readonly features: infer Features
  readonly limits: infer Limits
}
  ? { readonly adapterInfo: Info; readonly features: Features; readonly limits: Limits }
  : unknown

/** What an adapter, or a device, says of its adapter. */
export type WithAdapterInfo = GPUAdapter extends { readonly info: infer Info } ? { readonly info: Info } : unknown

type InstanceIfAny<Name extends string> = Name extends string
  ? typeof globalThis extends Readonly<Record<Name, { readonly prototype: infer Type }>>
    ? Type
    : never
  : never

/** A texture; nothing where there are no types of WebGPU. */
export type TextureImage = InstanceIfAny<'GPUTexture'>

/** What `copyExternalImageToTexture` takes besides `ImageData`; nothing where there are no types of a page. */
export type PageImage = InstanceIfAny<
  'HTMLVideoElement' | 'VideoFrame' | 'HTMLCanvasElement' | 'OffscreenCanvas' | 'ImageBitmap' | 'HTMLImageElement'
>
