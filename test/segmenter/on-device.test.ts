// Pictures that are textures, and predictions that stay on the device.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '#dist/engine/device.js'
import { shareDevice } from '#dist/engine/open-device.js'
import { type DeviceSegmentation, type Picture, Segmenter } from '#dist/segmenter/index.js'
import { contentsOf } from '#dist/train/checkpoint/contents.js'
import { UserError } from '#dist/train/error.js'
import { joinBytes } from '#dist/train/io/byte-source.js'
import { safetensorsParts } from '#dist/train/io/safetensors-format.js'
import { Random } from '#dist/train/random.js'
import { onDevice } from '../support/on-device.js'
import { variedModel } from '../support/varied-model.js'

const { device: opened, deviceTest } = await onDevice()
const palette = [1, 2, 3, 4, 5, 6].map((k) => [10 * k, 255 - k, 40 * k] as const)
let checkpoint = new Uint8Array()
if (opened) {
  const model = variedModel(opened, palette.length)
  const { tensors, metadata } = await contentsOf(model, { class_names: [...'abcdef'], palette })
  checkpoint = joinBytes(safetensorsParts(tensors, metadata))
  model.store.destroy()
}

/** Patches of colours, RGBA, of any opacity. */
function picture(width: number, height: number, seed: number): Picture {
  const random = new Random(seed)
  const colors = Array.from({ length: 64 }, () => [0, 1, 2, 3].map(() => random.integer(0, 256)))
  const at = (i: number) => colors[(Math.floor((i % width) / 9) + 5 * Math.floor(i / width / 7)) % 64] ?? []
  return { data: Uint8Array.from(Array.from({ length: width * height }, (_, i) => at(i)).flat()), width, height }
}

function textureOf(
  { gpu }: Device,
  { data, width, height }: Picture,
  format: GPUTextureFormat = 'rgba8unorm',
): GPUTexture {
  const usage = GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST
  const texture = gpu.createTexture({ size: [width, height], format, usage })
  const order = format === 'bgra8unorm' ? [2, 1, 0, 3] : [0, 1, 2, 3]
  const bytes = Uint8Array.from(data, (_, i) => data[i - (i % 4) + (order[i % 4] ?? 0)] ?? 0)
  gpu.queue.writeTexture({ texture }, bytes, { bytesPerRow: 4 * width }, [width, height])
  return texture
}

async function labelsOf(device: Device, { labels, width, height }: DeviceSegmentation): Promise<Uint8Array> {
  const [bytes = new ArrayBuffer(0)] = await device.read([{ buffer: labels, bytes: 4 * width * height }])
  return Uint8Array.from(new Uint32Array(bytes))
}

/** RGBA bytes, [H, W, 4]. */
async function bytesOf(device: Device, texture: GPUTexture): Promise<Uint8Array> {
  const { width, height } = texture
  const bytesPerRow = Math.ceil((4 * width) / 256) * 256
  const buffer = device.storage('copy', bytesPerRow * height)
  const encoder = device.gpu.createCommandEncoder()
  encoder.copyTextureToBuffer({ texture }, { buffer, bytesPerRow }, [width, height])
  device.gpu.queue.submit([encoder.finish()])
  const [bytes = new ArrayBuffer(0)] = await device.read([{ buffer, bytes: bytesPerRow * height }])
  buffer.destroy()
  return joinBytes(Array.from({ length: height }, (_, y) => new Uint8Array(bytes, y * bytesPerRow, 4 * width)))
}

deviceTest('textures are segmented as the pixels in them', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  for (const [width, height, format] of [
    [64, 48, 'rgba8unorm'],
    [47, 45, 'bgra8unorm'],
  ] as const) {
    const pixels = picture(width, height, width)
    const texture = textureOf(device, pixels, format)
    const expected = await segmenter.segment(pixels, { scores: true })
    assert.ok(new Set(expected.labels).size > 1)
    assert.equal(await segmenter.segment(texture, { scores: true }), expected)
    for (const source of [texture, pixels]) {
      const found = await segmenter.segmentOnDevice(source)
      assert.equal([found.width, found.height], [width, height])
      assert.equal(await labelsOf(device, found), expected.labels)
      const colors = [...expected.labels].flatMap((label) => [...(palette[label] ?? []), 255])
      assert.equal(await bytesOf(device, found.overlay), Uint8Array.from(colors))
    }
    texture.destroy()
  }
  segmenter.destroy()
})

deviceTest('pictures of one size share what they are computed with, and see the weights of now', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  const [first, second] = [picture(33, 40, 1), picture(33, 40, 2)]
  let kernels = 0
  const options = { onProgress: () => void kernels++ }
  const before = await segmenter.segmentOnDevice(first, options)
  const labels = await labelsOf(device, before)
  assert.ok(kernels > 0)
  kernels = 0
  const after = await segmenter.segmentOnDevice(second, options)
  assert.is(kernels, 0)
  assert.is(after.labels, before.labels)
  assert.not.equal(await labelsOf(device, after), labels)
  const truth = { image: first, labels: labels.map((label) => (label + 1) % 6) }
  await segmenter.fineTune([truth], { steps: 5, learningRate: 0.05, cropSize: 33 })
  const tuned = await labelsOf(device, await segmenter.segmentOnDevice(first))
  assert.equal(tuned, (await segmenter.segment(first)).labels)
  assert.not.equal(tuned, labels)
  segmenter.destroy()
})

deviceTest('refuses in one line what cannot be segmented on the device', async (device) => {
  const segmenter = await Segmenter.load(device, checkpoint)
  const { gpu } = device
  const size = [8, 8]
  const usage = GPUTextureUsage.TEXTURE_BINDING
  const cases: [RegExp, unknown][] = [
    [/rgba16float .* expected is one layer of rgba8unorm/, gpu.createTexture({ size, format: 'rgba16float', usage })],
    [/2 layers/, gpu.createTexture({ size: [8, 8, 2], format: 'rgba8unorm', usage })],
    [/TEXTURE_BINDING/, gpu.createTexture({ size, format: 'rgba8unorm', usage: GPUTextureUsage.COPY_DST })],
    [/has no pixels: give one that is loaded/, { videoWidth: 0, videoHeight: 0 }],
    [/a picture was expected, not undefined/, undefined],
    [/2x2 pixels has 10 bytes/, { data: new Uint8Array(10), width: 2, height: 2 }],
    [
      /4096x1025 pixels is too large .* use segment/,
      { data: new Uint8Array(4096 * 1025 * 3), width: 4096, height: 1025 },
    ],
  ]
  for (const [pattern, source] of cases) {
    const error = await segmenter.segmentOnDevice(source as Picture).catch((error: unknown) => error)
    assert.instance(error, UserError, String(pattern))
    assert.match((error as Error).message, pattern)
  }
  segmenter.destroy()
  const late = await segmenter.segmentOnDevice(picture(8, 8, 1)).catch((error: Error) => error.message)
  assert.match(String(late), /was destroyed/)
})

deviceTest('on a device that is shared, the owner hears nothing of a texture of another device', async (device) => {
  const gpu = (await device.reopen?.())?.gpu
  if (!gpu) return
  const heard: unknown[] = []
  gpu.addEventListener('uncapturederror', (event) => heard.push(event))
  const shared = shareDevice(gpu)
  const segmenter = await Segmenter.load(shared, checkpoint)
  const foreign = textureOf(device, picture(33, 33, 1))
  const error = await segmenter.segmentOnDevice(foreign).catch((error: Error) => error)
  assert.match(String(error), /^ValidationError: .*/)
  assert.is(heard.length, 0)
  const own = textureOf(shared, picture(33, 33, 1))
  const { labels } = await segmenter.segment(own)
  assert.equal(await labelsOf(shared, await segmenter.segmentOnDevice(own)), labels)
  segmenter.destroy()
  gpu.destroy()
})

test.run()
