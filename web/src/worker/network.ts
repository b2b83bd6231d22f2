import { type Device, DeviceLostError } from '#dist/engine/device.js'
import { elements } from '#dist/engine/shape.js'
import { Segmenter } from '#dist/segmenter/index.js'
import { describeCheckpoint, type LoadedModel } from '#dist/train/checkpoint/loaded-model.js'
import { parseCheckpoint } from '#dist/train/checkpoint/parse.js'
import { sourceOf } from '#dist/train/io/byte-source.js'
import type { LearnOptions, Model, OnnxFile, Picture, Runtime, Segmentation, Size } from '../protocol.js'
import { log, tell } from './host.js'
import type { DeviceKeeper } from './machine.js'
import { onnxOfFile } from './onnx.js'
import { decide } from './scores.js'
import type { WasmPredictor } from './wasm.js'

/** The network of a file of weights, and what predicts with it. */
export class Network {
  private readonly loaded: LoadedModel
  private gpu: { readonly device: Device; readonly segmenter: Segmenter } | undefined
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

  onnx(size: Size): OnnxFile {
    return onnxOfFile(this.loaded, size)
  }

  async segment(keeper: DeviceKeeper, picture: Picture, out: Size, runtime: Runtime): Promise<Segmentation> {
    if (runtime === 'wasm') {
      const { decided, milliseconds } = await (await this.onWasm(picture)).run(picture, out)
      return { ...decided, milliseconds, runtime }
    }
    try {
      return await this.onGpu(keeper, picture, out)
    } catch (error) {
      if (!(error instanceof DeviceLostError)) throw error
      return this.onGpu(keeper, picture, out)
    }
  }

  /** What predicts pictures of a size; the one of before where it takes that, too. */
  private async onWasm({ width, height }: Size): Promise<WasmPredictor> {
    const known = await this.wasm
    if (known?.takes({ width, height })) return known
    await known?.destroy()
    this.wasm = import('./wasm.js').then(({ WasmPredictor }) => WasmPredictor.create(this.onnx({ width, height })))
    // A network without a counterpart is tried again for another picture.
    this.wasm.catch(() => {
      this.wasm = undefined
    })
    return this.wasm
  }

  /** The network on the device of now: after a loss the weights of the file go to another one. */
  private async segmenter(keeper: DeviceKeeper): Promise<Segmenter> {
    const device = await keeper.device()
    if (this.gpu?.device !== device) {
      this.gpu?.segmenter.destroy()
      this.gpu = { device, segmenter: await Segmenter.load(device, new File([this.bytes], this.name)) }
    }
    return this.gpu.segmenter
  }

  /**
   * Trains on from the weights of now, on what was painted. The network itself stays as it is.
   * @returns the new weights as a file
   */
  async learn(keeper: DeviceKeeper, options: LearnOptions, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const { corrections, unlabeled, method, head, steps, learningRate } = options
    for (let attempt = 1; ; attempt++) {
      const segmenter = await Segmenter.load(await keeper.device(), new File([this.bytes], this.name), { signal })
      try {
        const samples = corrections.map(({ picture, labels }) => ({ image: picture, labels }))
        let computed = 0
        await segmenter.fineTune(samples, {
          head,
          steps,
          learningRate,
          method,
          unlabeled,
          signal,
          onProgress: ({ compiled, kernels, features, step, loss }) => {
            if (features && features.computed > computed) {
              computed = features.computed
              tell('features', { done: computed, all: features.crops })
            } else if (step === 0) tell('compiling', { what: method, done: compiled, all: kernels })
            else tell('learning', { step, steps, loss })
          },
        })
        return new Uint8Array(await segmenter.toBytes())
      } catch (error) {
        // Of what was lost there is no copy: the training begins again, from the weights before it.
        if (!(error instanceof DeviceLostError) || attempt > 1) throw error
        log(`${error.message}; learning begins again on another device`)
      } finally {
        segmenter.destroy()
      }
    }
  }

  private async onGpu(keeper: DeviceKeeper, picture: Picture, out: Size): Promise<Segmentation> {
    const segmenter = await this.segmenter(keeper)
    const { width } = picture
    const begin = performance.now()
    const { scores } = await segmenter.segment(picture, {
      scores: true,
      onProgress: ({ compiled, kernels }) =>
        tell('compiling', { what: 'the prediction', done: compiled, all: kernels }),
    })
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
    gpu?.segmenter.destroy()
    await wasm?.then((predictor) => predictor.destroy()).catch(() => undefined)
  }
}
