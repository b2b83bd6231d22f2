// In a page: the labels of a picture as pixels, canvas and image, by `segment` and on the device. `segmentAll(seed, size)`.
import { scene } from '#dist/demo/scenes.js'
import { open } from '#dist/engine/browser.js'
import { Segmenter } from '#dist/segmenter/index.js'

/** What of a page this takes. */
interface Page {
  readonly ImageData: new (data: Uint8ClampedArray, width: number) => object
  readonly OffscreenCanvas: new (
    width: number,
    height: number,
  ) => { getContext(kind: '2d'): { putImageData(image: object, x: number, y: number): void } }
  createImageBitmap(canvas: object): Promise<{ close(): void }>
}

async function segmentAll(seed: number, size: number): Promise<Record<string, number[]>> {
  const { ImageData, OffscreenCanvas, createImageBitmap } = globalThis as unknown as Page
  const rgb = scene(seed, 1, size).image
  const data = Uint8ClampedArray.from({ length: 4 * size * size }, (_, i) =>
    i % 4 === 3 ? 255 : (rgb[3 * Math.floor(i / 4) + (i % 4)] ?? 0),
  )
  const canvas = new OffscreenCanvas(size, size)
  canvas.getContext('2d').putImageData(new ImageData(data, size), 0, 0)
  const bitmap = await createImageBitmap(canvas)

  const device = await open()
  const weights = await (await fetch('/weights/scenes.safetensors')).arrayBuffer()
  const segmenter = await Segmenter.load(device, weights)
  const pixels = await segmenter.segment({ data, width: size, height: size })
  const ofCanvas = await segmenter.segment(canvas as never)
  // It is taken when the call is made.
  const left = segmenter.segmentOnDevice(bitmap as never)
  bitmap.close()
  const { labels } = await left
  const [onDevice = new ArrayBuffer(0)] = await device.read([{ buffer: labels, bytes: 4 * size * size }])
  segmenter.destroy()
  device.destroy()
  return { pixels: [...pixels.labels], canvas: [...ofCanvas.labels], device: [...new Uint32Array(onDevice)] }
}

Object.assign(globalThis, { segmentAll })
