/** Of each byte, followed by 0 to 3 zeros. */
const tables: readonly Uint32Array[] = (() => {
  const first = Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1
    return value
  })
  const further = (table: Uint32Array): Uint32Array =>
    table.map((value) => (value >>> 8) ^ (first[value & 255] as number))
  const second = further(first)
  const third = further(second)
  return [first, second, third, further(third)]
})()

/** The checksum of members of zip archives and chunks of PNG files (ISO 3309). */
export function crc32(bytes: Uint8Array): number {
  const [t0, t1, t2, t3] = tables as [Uint32Array, Uint32Array, Uint32Array, Uint32Array]
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let value = 0xffffffff
  let at = 0
  for (; at + 4 <= bytes.length; at += 4) {
    value ^= view.getUint32(at, true)
    value =
      (t3[value & 255] as number) ^
      (t2[(value >>> 8) & 255] as number) ^
      (t1[(value >>> 16) & 255] as number) ^
      (t0[value >>> 24] as number)
  }
  for (; at < bytes.length; at++) value = (value >>> 8) ^ (t0[(value ^ (bytes[at] as number)) & 255] as number)
  return (value ^ 0xffffffff) >>> 0
}
