/** Marks at the beginning of texts that are not UTF-8: what some editors, and `>` of some shells, write. */
const marks = [
  { encoding: 'utf-16le', bytes: [0xff, 0xfe] },
  { encoding: 'utf-16be', bytes: [0xfe, 0xff] },
] as const

/**
 * A text of UTF-8, or of UTF-16 where it begins with a byte order mark, which is taken off.
 * @throws Error that says what is wrong with bytes that are no text
 */
export function decodeText(bytes: Uint8Array): string {
  const mark = marks.find((one) => one.bytes.every((byte, i) => bytes[i] === byte))
  if (!mark && bytes.includes(0)) throw new Error('it holds zero bytes: save it as UTF-8 text')
  return new TextDecoder(mark?.encoding ?? 'utf-8').decode(bytes)
}
