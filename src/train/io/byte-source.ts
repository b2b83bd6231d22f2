/** Ends the reading of something with an error that names it. */
export type Fail = (what: string) => never

/** Bytes that are read piece by piece, so that what they claim is checked before memory is spent on it. */
export interface ByteSource {
  /** What messages call them, such as the path of a file. */
  readonly name: string
  readonly size: number
  /** `length` bytes from `position`, in a buffer that holds nothing else; fewer where they end before. */
  read(position: number, length: number): Uint8Array<ArrayBuffer>
}

/** Bytes in memory as a source. */
export const sourceOf = (bytes: Uint8Array, name: string): ByteSource => ({
  name,
  size: bytes.length,
  read: (position, length) => new Uint8Array(bytes.subarray(position, position + length)),
})

/** A source that gives all that is asked for, or fails, before memory is spent where it does not have it. */
export const demanding = (source: ByteSource, fail: Fail): ByteSource => ({
  name: source.name,
  size: source.size,
  read(position, length) {
    if (position + length > source.size) return fail('it ends too early: truncated?')
    const bytes = source.read(position, length)
    return bytes.length < length ? fail('it ended while being read') : bytes
  },
})

/** Bytes one after the other. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}
