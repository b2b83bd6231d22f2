/** Markers between 0xc0 and 0xcf that begin no frame: tables for Huffman and arithmetic coding, and a reserved one. */
const NO_FRAMES: readonly number[] = [0xc4, 0xc8, 0xcc]

/** Channels of a JPEG file as its frame header says; 0 where `bytes` are no such file, or no frame begins where it should. */
export function jpegChannels(bytes: Buffer): number {
  if (bytes.length < 2 || bytes.readUInt16BE() !== 0xffd8) return 0
  // Each segment has a marker of two bytes, then its length without them.
  for (let at = 2; at + 10 <= bytes.length && bytes[at] === 0xff; at += 2 + bytes.readUInt16BE(at + 2)) {
    const marker = bytes[at + 1] as number
    if (marker >= 0xc0 && marker <= 0xcf && !NO_FRAMES.includes(marker)) return bytes[at + 9] as number
  }
  return 0
}
