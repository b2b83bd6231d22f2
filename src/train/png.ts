import { crc32, inflateSync } from 'node:zlib'

/** The pixels of a PNG file as they are stored. */
export interface PngPixels {
  readonly width: number
  readonly height: number
  /** 1: grey values or palette indices, 2: grey and alpha, 3: RGB, 4: RGB and alpha. */
  readonly channels: number
  /** [H, W, channels] */
  readonly samples: Uint8Array | Uint16Array
}

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex')
/** What writers of 256 MiB files need several times over; without a limit, empty chunks would cost much for little. */
const MAX_CHUNKS = 2 ** 17
/** Some writers compress a little more than the pixels need. */
const SPARE_BYTES = 2 ** 16

/** Channels and possible bit depths by colour type. */
const FORMATS: Readonly<Record<number, readonly [channels: number, depths: readonly number[]]>> = {
  0: [1, [1, 2, 4, 8, 16]],
  2: [3, [8, 16]],
  3: [1, [1, 2, 4, 8]],
  4: [2, [8, 16]],
  6: [4, [8, 16]],
}

interface Header {
  readonly width: number
  readonly height: number
  readonly bits: number
  readonly channels: number
  readonly interlaced: boolean
}

/** Pixels of the picture that are stored together, as a picture of their own. */
interface Pass {
  /** Of its first pixel, and between two of them. */
  readonly x: number
  readonly y: number
  readonly dx: number
  readonly dy: number
  readonly width: number
  readonly height: number
}

const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const

function readHeader(chunk: Buffer, maxPixels: number): Header {
  if (chunk.length !== 13) throw new Error('its header is damaged')
  const [width, height, bits] = [chunk.readUInt32BE(0), chunk.readUInt32BE(4), chunk.readUInt8(8)]
  const [channels, depths] = FORMATS[chunk.readUInt8(9)] ?? []
  if (width === 0 || height === 0) throw new Error('it has no pixels')
  if (width * height > maxPixels) throw new Error(`its ${width}x${height} pixels are more than ${maxPixels}`)
  if (channels === undefined || !depths?.includes(bits)) throw new Error('its colour type is unknown')
  const interlace = chunk.readUInt8(12)
  if (chunk.readUInt16BE(10) !== 0 || interlace > 1) throw new Error('it is stored in an unknown way')
  return { width, height, bits, channels, interlaced: interlace === 1 }
}

/** The header and the compressed data. Every checksum is verified; what is not needed for the pixels is left out. */
function readChunks(bytes: Buffer, maxPixels: number): { header: Header; data: Buffer } {
  if (!bytes.subarray(0, 8).equals(SIGNATURE)) throw new Error('it is not a PNG file')
  let header: Header | undefined
  const data: Buffer[] = []
  let at = 8
  for (let count = 0; ; count++) {
    if (count > MAX_CHUNKS) throw new Error(`it has more than ${MAX_CHUNKS} parts`)
    const end = at + 12 + (at + 12 <= bytes.length ? bytes.readUInt32BE(at) : 0)
    if (end > bytes.length) throw new Error('it ends too early: truncated?')
    const type = bytes.toString('latin1', at + 4, at + 8)
    const chunk = bytes.subarray(at + 8, end - 4)
    if (crc32(bytes.subarray(at + 4, end - 4)) !== bytes.readUInt32BE(end - 4)) {
      throw new Error(`its part ${JSON.stringify(type)} is damaged (wrong checksum)`)
    }
    if (type === 'IHDR' && !header) header = readHeader(chunk, maxPixels)
    else if (!header || type === 'IHDR') throw new Error('its header is not in its place')
    else if (type === 'IDAT') data.push(chunk)
    else if (type === 'IEND') return { header, data: Buffer.concat(data) }
    at = end
  }
}

function passesOf({ width, height, interlaced }: Header): Pass[] {
  const all = interlaced ? ADAM7 : [[0, 0, 1, 1] as const]
  return all
    .map(([x, y, dx, dy]) => {
      return { x, y, dx, dy, width: Math.ceil((width - x) / dx), height: Math.ceil((height - y) / dy) }
    })
    .filter((pass) => pass.width > 0 && pass.height > 0)
}

function paeth(left: number, above: number, corner: number): number {
  const toLeft = Math.abs(above - corner)
  const toAbove = Math.abs(left - corner)
  const toCorner = Math.abs(left + above - 2 * corner)
  if (toLeft <= toAbove && toLeft <= toCorner) return left
  return toAbove <= toCorner ? above : corner
}

/** Replaces a row of differences by the bytes they stand for. `above` is the row before, or zeros. */
function unfilter(filter: number, row: Uint8Array, above: Uint8Array, pixel: number): void {
  const at = (list: Uint8Array, i: number): number => list[i] as number
  switch (filter) {
    case 0:
      return
    case 1:
      for (let i = pixel; i < row.length; i++) row[i] = at(row, i) + at(row, i - pixel)
      return
    case 2:
      for (let i = 0; i < row.length; i++) row[i] = at(row, i) + at(above, i)
      return
    case 3:
      for (let i = 0; i < row.length; i++) {
        row[i] = at(row, i) + (((i < pixel ? 0 : at(row, i - pixel)) + at(above, i)) >> 1)
      }
      return
    case 4:
      for (let i = 0; i < Math.min(pixel, row.length); i++) row[i] = at(row, i) + at(above, i)
      for (let i = pixel; i < row.length; i++) {
        row[i] = at(row, i) + paeth(at(row, i - pixel), at(above, i), at(above, i - pixel))
      }
      return
    default:
      throw new Error('its pixels are damaged (unknown filter)')
  }
}

/** Writes the samples of a row to their places in the picture. */
function spread(row: Uint8Array, y: number, { x, dx, width }: Pass, header: Header, samples: PngPixels['samples']) {
  const { bits, channels } = header
  const first = (y * header.width + x) * channels
  if (bits === 8 && dx === 1) {
    samples.set(row, first)
    return
  }
  const mask = (1 << Math.min(bits, 8)) - 1
  for (let i = 0; i < width * channels; i++) {
    const bit = i * bits
    const byte = row[bit >> 3] as number
    const value = bits === 16 ? (byte << 8) | (row[(bit >> 3) + 1] as number) : (byte >> (8 - bits - (bit & 7))) & mask
    const pixel = Math.floor(i / channels)
    samples[first + pixel * dx * channels + (i - pixel * channels)] = value
  }
}

/**
 * Decodes a PNG file. Nothing of it is trusted: its size is checked before anything is inflated, and no more is inflated
 * than its pixels need.
 * @throws Error that says what is wrong with it
 */
export function decodePng(bytes: Buffer, maxPixels: number): PngPixels {
  const { header, data } = readChunks(bytes, maxPixels)
  const { width, height, bits, channels } = header
  const passes = passesOf(header)
  const rowBytes = (pass: Pass) => Math.ceil((pass.width * bits * channels) / 8)
  const needed = passes.reduce((sum, pass) => sum + pass.height * (1 + rowBytes(pass)), 0)
  const raw = inflateSync(data, {
    maxOutputLength: needed + SPARE_BYTES,
    chunkSize: Math.min(Math.max(needed, 64), 2 ** 20),
  })
  if (raw.length < needed) throw new Error('its pixels are not complete')
  const samples = new (bits === 16 ? Uint16Array : Uint8Array)(width * height * channels)
  let at = 0
  for (const pass of passes) {
    const length = rowBytes(pass)
    let above: Uint8Array = new Uint8Array(length)
    for (let row = 0; row < pass.height; row++) {
      const bytes = raw.subarray(at + 1, at + 1 + length)
      unfilter(raw[at] as number, bytes, above, Math.max(1, (bits * channels) / 8))
      spread(bytes, pass.y + row * pass.dy, pass, header, samples)
      above = bytes
      at += 1 + length
    }
  }
  return { width, height, channels, samples }
}
