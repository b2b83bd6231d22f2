import { crc32 } from 'node:zlib'
import { PNG } from 'pngjs'
import { sharp } from './decoders.js'
import { rowsOf } from './png-rows.js'

/** The pixels of a PNG file as they are stored, without alpha. */
export interface PngPixels {
  readonly width: number
  readonly height: number
  /** 1: grey values or palette indices, 3: RGB. */
  readonly channels: 1 | 3
  /** [H, W, channels] */
  readonly samples: Uint8Array | Uint16Array
  /** Colours 0xRRGGBB by index, where the samples are indices of a palette. */
  readonly palette?: readonly number[]
}

/** What a PNG file begins with. */
export const PNG_SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex')
/** What writers of 256 MiB files need several times over; without a limit, empty chunks would cost much for little. */
const maxChunks = 2 ** 17
const PALETTE = 3
const GREY = 0

/** Samples per pixel as stored, without alpha, and possible bit depths, by colour type. */
const FORMATS: Readonly<Record<number, readonly [stored: number, channels: 1 | 3, depths: readonly number[]]>> = {
  [GREY]: [1, 1, [1, 2, 4, 8, 16]],
  2: [3, 3, [8, 16]],
  [PALETTE]: [1, 1, [1, 2, 4, 8]],
  4: [2, 1, [8, 16]],
  6: [4, 3, [8, 16]],
}

interface Header {
  readonly width: number
  readonly height: number
  readonly bits: number
  readonly channels: 1 | 3
  /** Whether its rows are stored one after the other, a byte for each sample, without alpha. */
  readonly isPlain: boolean
  /** More bytes of compressed pixels than these have something to hide. */
  readonly maxBytes: number
}

function readHeader(data: Buffer, maxPixels: number): Header {
  if (data.length !== 13) throw new Error('its header is damaged')
  const [width, height, bits] = [data.readUInt32BE(0), data.readUInt32BE(4), data.readUInt8(8)]
  const [stored, channels, depths] = FORMATS[data.readUInt8(9)] ?? []
  if (width === 0 || height === 0) throw new Error('it has no pixels')
  if (width * height > maxPixels) throw new Error(`its ${width}x${height} pixels are more than ${maxPixels}`)
  if (stored === undefined || !channels || !depths?.includes(bits)) throw new Error('its colour type is unknown')
  // Interlaced images have about twice as many rows, each with a byte for its filter and another for its last bits.
  const inflated = (width * height * stored * bits) / 8 + 4 * height + 64
  const isPlain = bits === 8 && stored === channels && data.readUInt8(12) === 0
  return { width, height, bits, channels, isPlain, maxBytes: 1.125 * inflated + 2 ** 16 }
}

/** A part of a PNG file: its length, type, data and checksum. */
export function chunkOf(type: string, data: Uint8Array): Buffer {
  const chunk = Buffer.alloc(12 + data.length)
  chunk.writeUInt32BE(data.length)
  chunk.write(type, 4, 'latin1')
  chunk.set(data, 8)
  chunk.writeUInt32BE(crc32(chunk.subarray(4, -4)), chunk.length - 4)
  return chunk
}

/** Colours 0xRRGGBB of a palette's bytes. */
const colorsOf = (bytes: Buffer): number[] =>
  Array.from({ length: Math.floor(bytes.length / 3) }, (_, i) => bytes.readUIntBE(3 * i, 3))

/** A PNG file of nothing but pixels. */
interface BarePng {
  readonly header: Header
  /** Its parts, and the data of those that hold the pixels. */
  readonly parts: readonly Buffer[]
  readonly compressed: readonly Buffer[]
  readonly palette: readonly number[] | undefined
}

/** The same pixels without any part that is not needed for them, and the palette apart: its indices become greys. */
function onlyPixels(bytes: Buffer, maxPixels: number): BarePng {
  if (!bytes.subarray(0, 8).equals(PNG_SIGNATURE)) throw new Error('it is not a PNG file')
  const parts: Buffer[] = [PNG_SIGNATURE]
  let header: Header | undefined
  let isIndexed = false
  let palette: readonly number[] | undefined
  const compressed: Buffer[] = []
  let compressedBytes = 0
  let at = 8
  for (let count = 0; ; count++) {
    if (count > maxChunks) throw new Error(`it has more than ${maxChunks} parts`)
    const end = at + 12 + (at + 12 <= bytes.length ? bytes.readUInt32BE(at) : 0)
    if (end > bytes.length) throw new Error('it ends too early: truncated?')
    const chunk = bytes.subarray(at, end)
    const type = chunk.toString('latin1', 4, 8)
    if (crc32(chunk.subarray(4, -4)) !== chunk.readUInt32BE(chunk.length - 4)) {
      throw new Error(`its part ${JSON.stringify(type)} is damaged (wrong checksum)`)
    }
    if (type === 'IHDR' && !header) {
      const data = Buffer.from(chunk.subarray(8, -4))
      header = readHeader(data, maxPixels)
      isIndexed = data[9] === PALETTE
      if (isIndexed) data[9] = GREY
      parts.push(chunkOf('IHDR', data))
    } else if (!header || type === 'IHDR') {
      throw new Error('its header is not in its place')
    } else if (type === 'IDAT') {
      compressedBytes += chunk.length - 12
      if (compressedBytes > header.maxBytes) throw new Error('it has more data than its pixels need')
      parts.push(chunk)
      compressed.push(chunk.subarray(8, -4))
    } else if (type === 'PLTE' && isIndexed) {
      palette ??= colorsOf(chunk.subarray(8, -4))
    } else if (type === 'IEND') {
      return { header, parts: [...parts, chunk], compressed, palette }
    }
    at = end
  }
}

/**
 * Decodes a PNG file for its stored values: of a palette the indices, beside their colours; of few bits the small numbers,
 * which `sharp` alone would turn into colours. Nothing of the file is trusted: its size is checked before anything is inflated, and nothing
 * but its pixels is decoded.
 * @throws Error that says what is wrong with it
 */
export async function decodePng(bytes: Buffer, maxPixels: number): Promise<PngPixels> {
  const { header, parts, compressed, palette } = onlyPixels(bytes, maxPixels)
  const { bits, channels } = header
  const rows = header.isPlain ? rowsOf(Buffer.concat(compressed), header.width, header.height, channels) : undefined
  if (rows) return { width: header.width, height: header.height, channels, samples: rows, ...(palette && { palette }) }
  // Everything else, and what is wrong with damaged files.
  const [grey, depth] = bits === 16 ? (['grey16', 'ushort'] as const) : (['b-w', 'uchar'] as const)
  const colors = bits === 16 ? 'rgb16' : 'srgb'
  const { data, info } = await sharp(Buffer.concat(parts), { limitInputPixels: maxPixels, failOn: 'error' })
    .removeAlpha()
    .toColourspace(channels === 1 ? grey : colors)
    .raw({ depth })
    .toBuffer({ resolveWithObject: true })
    .catch((error: unknown) => {
      throw new Error(`its pixels are damaged or not complete (${error instanceof Error ? error.message : error})`)
    })
  const { width, height } = info
  if (bits === 16) {
    const { buffer, byteOffset, length } = data
    return { width, height, channels, samples: new Uint16Array(buffer, byteOffset, length / 2) }
  }
  // Values of few bits come spread over 0 to 255.
  if (bits < 8) for (let i = 0; i < data.length; i++) data[i] = (data[i] as number) >> (8 - bits)
  return { width, height, channels, samples: data, ...(palette && { palette }) }
}

/** 8-bit pixels that become a PNG file. */
export interface PngInput {
  readonly width: number
  readonly height: number
  /** [H, W], or [H, W, 3] */
  readonly data: Uint8Array
}

/** By what the pixels are: `quick` for any of them, `small` where there are few colours and every byte counts. */
const compressions = {
  quick: { filterType: 4 },
  small: { filterType: 0, deflateLevel: 9, deflateStrategy: 0 },
} as const

/** Writes a grey (one channel) or RGB PNG; most of the work is done on another thread. */
export function encodePng(
  { width, height, data }: PngInput,
  channels: 1 | 3,
  compression: keyof typeof compressions = 'quick',
): Promise<Buffer> {
  const colorType = channels === 1 ? 0 : 2
  const png = new PNG({ colorType, inputColorType: colorType, inputHasAlpha: false, ...compressions[compression] })
  Object.assign(png, { width, height, data: Buffer.from(data.buffer, data.byteOffset, data.byteLength) })
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    png.pack().on('data', (part: Buffer) => parts.push(part))
    png.on('end', () => resolve(Buffer.concat(parts))).on('error', reject)
  })
}
