import { type Device, DeviceLostError } from '#dist/engine/device.js'
import { elements } from '#dist/engine/shape.js'
import type { SegmentationModel } from '#dist/models/segmentation.js'
import { describeCheckpoint, type LoadedModel, openModel } from '#dist/train/checkpoint/loaded-model.js'
import { parseCheckpoint } from '#dist/train/checkpoint/parse.js'
import { Evaluator } from '#dist/train/evaluation/evaluator.js'
import { sourceOf } from '#dist/train/io/byte-source.js'
import type { Model, Picture, Runtime, Segmentation, Size } from '../protocol.js'
import type { DeviceKeeper } from './machine.js'
import { onnxOf } from './onnx.js'
import { decide } from './scores.js'
import type { WasmPredictor } from './wasm.js'

/** On the GPU. */
interface GpuPredictor {
  readonly device: Device
  readonly model: SegmentationModel
  readonly evaluator: Evaluator
}

/** The network of a file of weights, and what predicts with it. */
export class Network {
  private readonly loaded: LoadedModel
  private gpu: Promise<GpuPredictor> | undefined
  private wasm: Promise<WasmPredictor> | undefined

  /** @throws UserError that names the file and what is wrong with it */
  constructor(
    readonly name: string,
    readonly bytes: Uint8Array<ArrayBuffer>,
  ) {
    this.loaded = describeCheckpoint(parseCheckpoint(sourceOf(bytes, name)), name)
  }

  describe(changes: number): Model {
    const { architecture, classNames, palette, checkpoint } = this.loaded
    const { note } = checkpoint
    return {
      name: this.name,
      bytes: this.bytes.length,
      architecture,
      parameters: [...checkpoint.tensors.values()].reduce((sum, { shape }) => sum + elements(shape), 0),
      classes: classNames,
      palette,
      ...(note === undefined ? {} : { note }),
      changes,
    }
  }

  onnx(): Uint8Array<ArrayBuffer> {
    return onnxOf(this.loaded)
  }

  async segment(keeper: DeviceKeeper, picture: Picture, out: Size, runtime: Runtime): Promise<Segmentation> {
    if (runtime === 'wasm') {
      this.wasm ??= import('./wasm.js').then(({ WasmPredictor }) => WasmPredictor.create(this.onnx()))
      const { decided, milliseconds } = await (await this.wasm).run(picture, out)
      return { ...decided, milliseconds, runtime }
    }
    try {
      return await this.onGpu(keeper, picture, out)
    } catch (error) {
      if (!(error instanceof DeviceLostError)) throw error
      // The weights are those of the file: they go to the next device.
      this.gpu = undefined
      return this.onGpu(keeper, picture, out)
    }
  }

  private async onGpu(keeper: DeviceKeeper, picture: Picture, out: Size): Promise<Segmentation> {
    this.gpu ??= keeper.device().then((device) => {
      const model = openModel(device, this.loaded)
      return { device, model, evaluator: new Evaluator(device, model, { mode: 'original', scores: true }) }
    })
    const { evaluator } = await this.gpu
    const { width, height } = picture
    const begin = performance.now()
    const { scores } = await evaluator.predict({ width, height, data: rgbOf(picture) })
    const milliseconds = performance.now() - begin
    if (!scores) throw new Error('unreachable: scores were asked for')
    const classes = this.loaded.classNames.length
    const strides = { row: width * classes, column: classes, class: 1 }
    return { ...decide(scores, picture, classes, strides, out), milliseconds, runtime: 'webgpu' }
  }

  /** Frees what predicts. */
  async destroy(): Promise<void> {
    const { gpu, wasm } = this
    this.gpu = undefined
    this.wasm = undefined
    await gpu
      ?.then(({ model, evaluator }) => {
        evaluator.destroy()
        model.store.destroy()
      })
      .catch(() => undefined)
    await wasm?.then((predictor) => predictor.destroy()).catch(() => undefined)
  }
}

/** Pixels [H, W, 3] of RGBA ones. */
export function rgbOf({ data, width, height }: Picture): Uint8Array<ArrayBuffer> {
  const rgb = new Uint8Array(width * height * 3)
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = data[from] ?? 0
    rgb[to + 1] = data[from + 1] ?? 0
    rgb[to + 2] = data[from + 2] ?? 0
  }
  return rgb
}
