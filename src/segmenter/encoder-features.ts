import type { Device } from '../engine/device.js'
import { assign, read } from '../engine/graph.js'
import type { CompilationWatch } from '../engine/pipelines.js'
import { compile, type Program } from '../engine/program.js'
import { byteLength, type Data, type Spec, spec, withSamples } from '../engine/shape.js'
import { Store, upload } from '../engine/store.js'
import { normalizeImage } from '../kernels/images.js'
import type { SegmentationModel } from '../models/segmentation.js'

/** What is kept on the device, at most; features of further crops wait on the host for the steps that read them. */
const mostDeviceBytes = 2 ** 30

export interface FeatureOptions {
  /** Side of the crops, in pixels. */
  readonly size: number
  /** Crops of a step. */
  readonly batchSize: number
  /** What features may take on the device, besides those of a batch. Default: 2^30. */
  readonly deviceBytes?: number | undefined
}

/**
 * The feature maps that a model's encoder gives of crops, as in evaluation, in float32. They are computed once; whoever
 * trains `model` then computes the rest of it alone.
 */
export class EncoderFeatures {
  /** The model, whose features are those of the crops that were loaded last, whatever it is given. */
  readonly model: SegmentationModel
  /** Of each crop: on the device, or on the host. */
  private readonly kept: (Store | ReadonlyMap<string, Data>)[] = []
  /** Those of a step's crops side by side. */
  private readonly batch: Store

  private constructor(
    model: SegmentationModel,
    private readonly program: Program<{ image: Spec }>,
    /** What the program gives: the maps of a crop. */
    private readonly one: Store,
    private readonly options: FeatureOptions,
  ) {
    this.batch = new Store(one.device, 'features of a batch')
    const maps = one.all().map(({ name, spec }) => this.batch.declare(name, withSamples(spec, options.batchSize)))
    this.model = { ...model, features: () => maps.map(read) }
  }

  /**
   * Compiles the encoder.
   * @throws Error that names the operator or the kernel that cannot run
   */
  static async create(
    device: Device,
    model: SegmentationModel,
    options: FeatureOptions,
    watch: CompilationWatch = {},
  ): Promise<EncoderFeatures> {
    const { size } = options
    const one = new Store(device, 'features of a crop')
    const inputs = { image: spec([1, size, size, 3], 'u8') }
    const program = await compile(
      device,
      inputs,
      ({ image }) => {
        const maps = model.features(normalizeImage(image), { training: false })
        for (const [level, map] of maps.entries()) assign(one.declare(`map ${level}`, spec(map.shape)), map)
        return {}
      },
      { label: `features at ${size}x${size}`, ...watch },
    )
    return new EncoderFeatures(model, program, one, options)
  }

  /** What the features of the crops so far take. */
  get bytes(): number {
    return this.kept.length * this.one.bytes()
  }

  /**
   * Computes the features of one more crop, and keeps them.
   * @param image RGB, [size, size, 3]
   */
  async add(image: Uint8Array): Promise<void> {
    const { program, one, kept } = this
    program.run({ image })
    const { deviceBytes = mostDeviceBytes } = this.options
    if (this.bytes + one.bytes() > deviceBytes) kept.push(await one.readAll())
    else {
      kept.push(one.snapshot(`features of crop ${kept.length}`))
      await one.device.idle()
    }
  }

  /** Frees what computes features: there are no more crops. */
  finish(): void {
    this.program.destroy()
  }

  /**
   * What the next step learns from.
   * @param places of as many crops as it has, in the order of `add`
   */
  load(places: readonly number[]): void {
    const { kept, batch } = this
    const { device } = batch
    device.alive()
    device.scoped(() => {
      const encoder = device.gpu.createCommandEncoder({ label: batch.label })
      for (const { name, spec } of this.one.all()) {
        const to = batch.buffer(name)
        for (const [position, place] of places.entries()) {
          const maps = kept[place]
          const offset = position * byteLength(spec)
          if (maps instanceof Store) encoder.copyBufferToBuffer(maps.buffer(name), 0, to, offset, byteLength(spec))
          else upload(device, to, spec, maps?.get(name) ?? new Float32Array(), `${name} of crop ${place}`, offset)
        }
      }
      device.gpu.queue.submit([encoder.finish()])
    })
  }

  destroy(): void {
    this.finish()
    for (const maps of this.kept) if (maps instanceof Store) maps.destroy()
    this.one.destroy()
    this.batch.destroy()
  }
}
