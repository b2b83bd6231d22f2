import * as ort from 'onnxruntime-web/wasm'
import { MEAN, STD } from '#dist/train/data/pixels.js'
import type { OnnxFile, Picture, Size } from '../protocol.js'
import { type Decided, decide } from './scores.js'

// One thread: more need headers that a static host does not send.
ort.env.wasm.numThreads = 1
ort.env.wasm.wasmPaths = { wasm: new URL('./ort-wasm-simd-threaded.wasm', import.meta.url).href }

/** Predictions by onnxruntime-web in WebAssembly, for where there is no GPU. */
export class WasmPredictor {
  private constructor(
    private readonly session: ort.InferenceSession,
    private readonly size: Size | undefined,
  ) {}

  static async create({ bytes, size }: OnnxFile): Promise<WasmPredictor> {
    return new WasmPredictor(await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] }), size)
  }

  /** Whether it computes pictures of a size. */
  takes({ width, height }: Size): boolean {
    return !this.size || (this.size.width === width && this.size.height === height)
  }

  /** Logits of a picture, and the milliseconds that the network took. */
  async run(picture: Picture, out: Size): Promise<{ readonly decided: Decided; readonly milliseconds: number }> {
    const { width, height } = picture
    const begin = performance.now()
    const image = new ort.Tensor('float32', normalized(picture), [1, 3, height, width])
    const { logits } = await this.session.run({ image })
    const milliseconds = performance.now() - begin
    if (!logits) throw new Error('unreachable: the network has no output logits')
    const classes = logits.dims[1] ?? 0
    const strides = { row: width, column: 1, class: width * height }
    return { decided: decide(logits.data as Float32Array, picture, classes, strides, out), milliseconds }
  }

  async destroy(): Promise<void> {
    await this.session.release()
  }
}

/** RGBA bytes as the planes that an ONNX of ours reads. */
function normalized({ data, width, height }: Picture): Float32Array {
  const pixels = width * height
  const planes = new Float32Array(3 * pixels)
  for (let c = 0; c < 3; c++) {
    const [middle, spread] = [MEAN[c] ?? 0, STD[c] ?? 1]
    for (let i = 0; i < pixels; i++) planes[c * pixels + i] = ((data[4 * i + c] ?? 0) / 255 - middle) / spread
  }
  return planes
}
