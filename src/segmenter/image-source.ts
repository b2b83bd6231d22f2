import type { Device } from '../engine/device.js'
import { spec } from '../engine/shape.js'
import { Store } from '../engine/store.js'
import type { GPUTexture, PageImage, TextureImage } from '../engine/webgpu-types.js'
import { texturePixels } from '../kernels/textures.js'
import type { Image } from '../train/data/pixels.js'
import { UserError } from '../train/error.js'
import { type Picture, rgbOf } from './picture.js'

/**
 * What is segmented: pixels; a texture of the segmenter's device, rgba8unorm or bgra8unorm, with TEXTURE_BINDING among its
 * usages, which must not change until the call is done; or what a page's `copyExternalImageToTexture` takes (a video,
 * VideoFrame, canvas, OffscreenCanvas, ImageBitmap or image element), as it is when the call is made. Alpha is dropped.
 */
export type ImageSource = Picture | TextureImage | PageImage

/** A size in pixels, as different sources name it. */
interface PageSize {
  readonly videoWidth?: number
  readonly videoHeight?: number
  readonly displayWidth?: number
  readonly displayHeight?: number
  readonly naturalWidth?: number
  readonly naturalHeight?: number
  readonly width?: number
  readonly height?: number
}

const isTexture = (source: object): source is GPUTexture => 'createView' in source

/** A picture whose pixels are on the host as RGB, or one that is a texture, and what ends its use. */
export type OpenedSource = (
  | { readonly image: Image; readonly texture?: undefined }
  | { readonly image?: undefined; readonly texture: GPUTexture }
) & { close(): void }

/**
 * What there is of a source; that of a page may be closed or drawn anew afterwards.
 * @throws UserError for data of another length, a texture of another kind, and what is no picture
 */
export function openSource(device: Device, source: ImageSource): OpenedSource {
  const close = () => {}
  if (typeof source !== 'object' || source === null)
    throw new UserError(`a picture was expected, not ${String(source)}`)
  if ('data' in source) return { image: rgbOf(source), close }
  if (isTexture(source)) {
    checkTexture(source)
    return { texture: source, close }
  }
  const texture = textureOf(device, source)
  return { texture, close: () => texture.destroy() }
}

/** The pixels of a texture, read back as RGB. */
export async function pixelsOf(device: Device, texture: GPUTexture): Promise<Image> {
  const { width, height } = texture
  const store = new Store(device, 'pixels of a texture')
  const { name } = store.declare('image', spec([height, width, 3], 'u8'))
  try {
    await texturePixels(device, texture, store.buffer(name))
    return { data: (await store.read(name)) as Uint8Array, width, height }
  } finally {
    store.destroy()
  }
}

function checkTexture({ format, usage, dimension, depthOrArrayLayers, sampleCount }: GPUTexture): void {
  const isBytes = format === 'rgba8unorm' || format === 'bgra8unorm'
  if (!isBytes || dimension !== '2d' || depthOrArrayLayers !== 1 || sampleCount !== 1) {
    throw new UserError(
      `a texture ${format} (${dimension}, ${depthOrArrayLayers} layers, ${sampleCount} samples) is no picture: expected is one ` +
        'layer of rgba8unorm or bgra8unorm',
    )
  }
  if ((usage & GPUTextureUsage.TEXTURE_BINDING) === 0) {
    throw new UserError('a texture that is to be segmented needs TEXTURE_BINDING among its usages')
  }
}

/** What a page shows, copied to the device as sRGB bytes whose colors are not multiplied by alpha. */
function textureOf(device: Device, source: PageImage): GPUTexture {
  const size: PageSize = source
  const width = size.videoWidth ?? size.displayWidth ?? size.naturalWidth ?? size.width ?? 0
  const height = size.videoHeight ?? size.displayHeight ?? size.naturalHeight ?? size.height ?? 0
  if (!(width > 0 && height > 0)) {
    throw new UserError(
      'this picture has no pixels: give one that is loaded (a video that plays), with its width and height',
    )
  }
  const { TEXTURE_BINDING, COPY_DST, RENDER_ATTACHMENT } = GPUTextureUsage
  const usage = TEXTURE_BINDING | COPY_DST | RENDER_ATTACHMENT
  device.alive()
  return device.scoped(() => {
    const texture = device.gpu.createTexture({ label: 'picture', size: [width, height], format: 'rgba8unorm', usage })
    device.gpu.queue.copyExternalImageToTexture({ source }, { texture }, [width, height])
    return texture
  })
}
