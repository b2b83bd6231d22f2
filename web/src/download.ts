import { crc32 } from '#dist/train/io/crc32.js'
import { make } from './dom.js'
import type { Size } from './protocol.js'

/** Hands bytes to the visitor as a file. */
export function download(name: string, bytes: BlobPart, type = 'application/octet-stream'): void {
  const url = URL.createObjectURL(new Blob([bytes], { type }))
  make('a', { href: url, download: name }).click()
  // The browser reads it after the click.
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

/** A chunk of a PNG: length, type, data, checksum. */
function chunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 + data.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, data.length)
  bytes.set(new TextEncoder().encode(type), 4)
  bytes.set(data, 8)
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)))
  return bytes
}

/** Classes [H, W] as an 8-bit grey PNG, as `predict` writes its masks: a canvas would make four channels of them. */
export async function maskPng(labels: Uint8Array, { width, height }: Size): Promise<Blob> {
  const rows = new Uint8Array((width + 1) * height)
  for (let row = 0; row < height; row++) {
    rows.set(labels.subarray(row * width, (row + 1) * width), row * (width + 1) + 1)
  }
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream('deflate'))
  const header = new Uint8Array(13)
  const view = new DataView(header.buffer)
  view.setUint32(0, width)
  view.setUint32(4, height)
  header[8] = 8
  const start = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)
  const data = new Uint8Array(await new Response(packed).arrayBuffer())
  const parts = [start, chunk('IHDR', header), chunk('IDAT', data), chunk('IEND', new Uint8Array())]
  return new Blob(parts, { type: 'image/png' })
}
