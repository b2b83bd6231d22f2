import { BindingLimitError, type Device } from '../engine/device.js'
import { assign, read } from '../engine/graph.js'
import type { CompilationWatch } from '../engine/pipelines.js'
import { compile, type Program } from '../engine/program.js'
import { spec } from '../engine/shape.js'
import { Store } from '../engine/store.js'
import type { GPUBuffer, GPUTexture } from '../engine/webgpu-types.js'
import { normalizeImage } from '../kernels/images.js'
import { labelColors, texturePixels } from '../kernels/textures.js'
import type { SegmentationModel } from '../models/segmentation.js'
import type { Rgb } from '../train/data/classes.js'
import { UserError } from '../train/error.js'
import { classLabels } from '../train/evaluation/inference.js'
import type { OpenedSource } from './image-source.js'

/** What a model says of a picture, on the device. It is overwritten by the next call, and destroyed with the segmenter. */
export interface DeviceSegmentation {
  readonly width: number
  readonly height: number
  /** The index of the most probable class of each pixel, u32 [H, W] row by row from the top: STORAGE and COPY_SRC. */
  readonly labels: GPUBuffer
  /** The color of each pixel's class by the palette, opaque: rgba8unorm, TEXTURE_BINDING and COPY_SRC. */
  readonly overlay: GPUTexture
}

/** Larger pictures take more memory at once than a device may have: `segment` computes them in tiles. */
const mostPixels = 2 ** 22

/** Segments pictures of one size, from the device and to it. */
export class DeviceProgram {
  private constructor(
    private readonly device: Device,
    private readonly program: Program,
    /** Picture, labels and colors. */
    private readonly store: Store,
    readonly result: DeviceSegmentation,
  ) {}

  /** @throws UserError for a size that cannot be computed at once, and for a model that reads no pixels */
  static async create(
    device: Device,
    model: SegmentationModel,
    palette: readonly Rgb[],
    [height, width]: readonly [number, number],
    watch: CompilationWatch,
  ): Promise<DeviceProgram> {
    const tooLarge = `a picture of ${width}x${height} pixels is too large to be segmented on the device at once: use segment`
    if (width * height > mostPixels) throw new UserError(tooLarge)
    if (model.input === 'coefficients') {
      throw new UserError('the model reads DCT coefficients, which are made on the host: use segment')
    }
    const store = new Store(device, 'segmentation on the device')
    const image = store.declare('image', spec([1, height, width, 3], 'u8'))
    const label = store.declare('label', spec([1, height, width], 'u32'))
    const colors = Uint32Array.from(
      palette,
      ([red, green, blue]) => (red | (green << 8) | (blue << 16) | 0xff000000) >>> 0,
    )
    store.declare('colors', spec([colors.length], 'u32'), colors)
    const size = [height, width] as const
    const body = () => {
      assign(label, classLabels(model, normalizeImage(read(image)), size, size, {}).label)
      return {}
    }
    const program = await compile(device, {}, body, { label: `segmentation at ${width}x${height}`, ...watch }).catch(
      (error: unknown) => {
        store.destroy()
        throw error instanceof BindingLimitError ? new UserError(`${tooLarge} (${error.message})`) : error
      },
    )
    const { STORAGE_BINDING, TEXTURE_BINDING, COPY_SRC } = GPUTextureUsage
    const usage = STORAGE_BINDING | TEXTURE_BINDING | COPY_SRC
    const overlay = device.scoped(() =>
      device.gpu.createTexture({ label: 'overlay', size: [width, height], format: 'rgba8unorm', usage }),
    )
    return new DeviceProgram(device, program as Program, store, {
      width,
      height,
      labels: store.buffer('label'),
      overlay,
    })
  }

  /** Resolves when the device is done. */
  async run({ image, texture }: OpenedSource): Promise<DeviceSegmentation> {
    const { device, program, store, result } = this
    if (texture) await texturePixels(device, texture, store.buffer('image'))
    else store.write('image', image.data)
    program.run({})
    await labelColors(device, result.labels, store.buffer('colors'), result.overlay)
    await device.idle()
    return result
  }

  destroy(): void {
    this.program.destroy()
    this.result.overlay.destroy()
    this.store.destroy()
  }
}
