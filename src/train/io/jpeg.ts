/** What the header of a JPEG file says. */
export interface JpegHeader {
  readonly width: number
  readonly height: number
  /** Of the file: 1 grey, 3 colours, 4 CMYK. */
  readonly channels: number
  /** Whether it is of the kind that cameras write, of which all decoders make the same bytes, and its pixels stand upright. */
  readonly isPlain: boolean
}

const START_OF_IMAGE = 0xffd8
const BASELINE = 0xc0
const START_OF_SCAN = 0xda
/** Holds the EXIF data, or other things. */
const APPLICATION_1 = 0xe1
/** Markers between 0xc0 and 0xcf that begin no frame: tables for Huffman and arithmetic coding, and a reserved one. */
const NO_FRAMES: readonly number[] = [0xc4, 0xc8, 0xcc]

/** Horizontal and vertical sampling of the channels of plain files: grey, 4:4:4, 4:2:2 and 4:2:0. */
const PLAIN_SAMPLINGS: ReadonlySet<string> = new Set(['11', '11 11 11', '21 11 11', '22 11 11'])

/** Bytes of an EXIF segment's beginning; the directory's places count from behind it. */
const EXIF_SIGNATURE = Buffer.from('Exif\0\0', 'latin1')
const ORIENTATION = 0x112
const UINT16 = 3

/** EXIF orientation of the data of a segment; 1 where it says none, 0 where it is not understood. */
function orientationOf(data: Buffer): number {
  const tiff = data.subarray(EXIF_SIGNATURE.length)
  if (!data.subarray(0, EXIF_SIGNATURE.length).equals(EXIF_SIGNATURE) || tiff.length < 8) return 0
  const order = tiff.toString('latin1', 0, 2)
  if (order !== 'II' && order !== 'MM') return 0
  const uint16 = (at: number) => (order === 'II' ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at))
  const uint32 = (at: number) => (order === 'II' ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at))
  const directory = uint32(4)
  if (uint16(2) !== 42 || directory + 2 > tiff.length) return 0
  const entries = Array.from({ length: uint16(directory) }, (_, i) => directory + 2 + 12 * i)
  if (directory + 2 + 12 * entries.length > tiff.length) return 0
  const [found, ...others] = entries.filter((at) => uint16(at) === ORIENTATION)
  if (found === undefined) return 1
  return others.length === 0 && uint16(found + 2) === UINT16 && uint32(found + 4) === 1 ? uint16(found + 8) : 0
}

/** What a JPEG file says of itself up to its first scan; undefined where `bytes` are no such file, or damaged so far. */
export function jpegHeader(bytes: Buffer): JpegHeader | undefined {
  if (bytes.length < 2 || bytes.readUInt16BE() !== START_OF_IMAGE) return undefined
  let frame: JpegHeader | undefined
  const orientations: number[] = []
  // Each segment has a marker of two bytes, then its length without them.
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; at += 2 + bytes.readUInt16BE(at + 2)) {
    const marker = bytes[at + 1] as number
    const data = bytes.subarray(at + 4, at + 2 + bytes.readUInt16BE(at + 2))
    if (marker >= 0xc0 && marker <= 0xcf && !NO_FRAMES.includes(marker)) {
      if (frame || data.length < 6) return undefined
      const channels = data.readUInt8(5)
      if (data.length !== 6 + 3 * channels) return undefined
      const samplings = Array.from({ length: channels }, (_, i) => data.readUInt8(7 + 3 * i).toString(16))
      const [height, width] = [data.readUInt16BE(1), data.readUInt16BE(3)]
      const isUsual = marker === BASELINE && data.readUInt8() === 8 && PLAIN_SAMPLINGS.has(samplings.join(' '))
      frame = { width, height, channels, isPlain: isUsual && width > 0 && height > 0 }
    } else if (marker === APPLICATION_1 && data.toString('latin1', 0, 4) === 'Exif') {
      orientations.push(orientationOf(data))
    } else if (marker === START_OF_SCAN) {
      const isUpright = orientations.length === 0 || (orientations.length === 1 && orientations[0] === 1)
      // One scan of all channels: the work of decoding is bounded by the sides.
      const isWhole = data[0] === frame?.channels
      return frame && { ...frame, isPlain: frame.isPlain && isUpright && isWhole }
    }
  }
  return undefined
}
