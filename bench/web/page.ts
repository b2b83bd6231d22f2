// In a page: predictions of one network by our kernels and by onnxruntime-web, each beside the other: `measure(call)`.
import * as ortWasm from 'onnxruntime-web/wasm'
import * as ortWebgpu from 'onnxruntime-web/webgpu'
import { scene } from '#dist/demo/scenes.js'
import { open } from '#dist/engine/browser.js'
import { Segmenter } from '#dist/segmenter/index.js'
import { MEAN, STD } from '#dist/train/data/pixels.js'

export const runtimes = ['atrous on WebGPU', 'onnxruntime-web on WebGPU', 'onnxruntime-web in WebAssembly'] as const
export type Runtime = (typeof runtimes)[number]

export interface Measurement {
  /** Milliseconds of the first picture, with what is compiled for it. */
  readonly first: number
  /** Of the others, in their order. */
  readonly others: readonly number[]
  /** Largest difference of a logit from what WebAssembly computes. */
  readonly difference: number
}

const pictures = 8

type Predict = () => Promise<Float32Array>

const fetched = async (name: string): Promise<Uint8Array> =>
  new Uint8Array(await (await fetch(new URL(name, import.meta.url))).arrayBuffer())

/** [1, 3, H, W] of RGB bytes, as an ONNX of ours reads it. */
function planesOf(image: Uint8Array): Float32Array {
  const pixels = image.length / 3
  return Float32Array.from({ length: image.length }, (_, i) => {
    const channel = Math.floor(i / pixels)
    return ((image[(i % pixels) * 3 + channel] ?? 0) / 255 - (MEAN[channel] ?? 0)) / (STD[channel] ?? 1)
  })
}

async function predictBy(
  { InferenceSession, Tensor, env }: typeof ortWasm,
  provider: 'wasm' | 'webgpu',
  onnx: Uint8Array,
  image: Uint8Array,
  size: number,
): Promise<Predict> {
  // One thread, as the page has it: more need headers that a static host does not send.
  env.wasm.numThreads = 1
  const runtime = provider === 'webgpu' ? 'ort-wasm-simd-threaded.asyncify.wasm' : 'ort-wasm-simd-threaded.wasm'
  env.wasm.wasmPaths = { wasm: new URL(runtime, import.meta.url).href }
  const session = await InferenceSession.create(onnx, { executionProviders: [provider] })
  const planes = planesOf(image)
  return async () => {
    const { logits } = await session.run({ image: new Tensor('float32', planes, [1, 3, size, size]) })
    return (await logits?.getData()) as Float32Array
  }
}

async function timed(predict: Predict): Promise<{ readonly milliseconds: number; readonly logits: Float32Array }> {
  const begin = performance.now()
  const logits = await predict()
  return { milliseconds: performance.now() - begin, logits }
}

/** [classes, H, W] of [H, W, classes]. */
const asPlanes = (rows: Float32Array, classes: number): Float32Array =>
  Float32Array.from({ length: rows.length }, (_, i) => {
    const pixels = rows.length / classes
    return rows[(i % pixels) * classes + Math.floor(i / pixels)] ?? Number.NaN
  })

/** Predicts a picture of `size` × `size` pixels several times. */
async function measure(runtime: Runtime, size: number): Promise<Measurement> {
  const device = await open()
  const weights = await fetched('weights/scenes.safetensors')
  const segmenter = await Segmenter.load(device, weights)
  const { image } = scene(4, 3, size)
  const picture = { data: image, width: size, height: size }
  const onnx = await segmenter.exportOnnx()
  const reference = await predictBy(ortWasm, 'wasm', onnx, image, size)
  const ours: Predict = async () => (await segmenter.segment(picture, { scores: true })).scores ?? new Float32Array()
  const predict =
    runtime === 'atrous on WebGPU'
      ? ours
      : runtime === 'onnxruntime-web on WebGPU'
        ? await predictBy(ortWebgpu as typeof ortWasm, 'webgpu', onnx, image, size)
        : reference
  const { milliseconds: first, logits } = await timed(predict)
  const others: number[] = []
  while (others.length < pictures - 1) others.push((await timed(predict)).milliseconds)
  const expected = await reference()
  const found = predict === ours ? asPlanes(logits, segmenter.classes.length) : logits
  const difference = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - (found[i] ?? Number.NaN))), 0)
  segmenter.destroy()
  device.destroy()
  return { first, others, difference }
}

Object.assign(globalThis, { measure })
