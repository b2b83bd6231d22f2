/** Bytes that are looked at to tell what a file is. */
export const START_BYTES = 512

type Kind = readonly [what: string, test: (text: string, bytes: Uint8Array) => boolean]

const begins =
  (...starts: readonly string[]) =>
  (text: string): boolean =>
    starts.some((start) => text.startsWith(start))

const isText = (bytes: Uint8Array): boolean => {
  const printable = (byte: number) => byte >= 32 || byte === 9 || byte === 10 || byte === 13
  return bytes.length > 0 && bytes.every(printable)
}

/** A message begins with its field 1, the version of the format, and the next field is one of the following ones. */
const isOnnx = (_text: string, bytes: Uint8Array): boolean => {
  const [first, version = 0, second = 0] = bytes
  return first === 0x08 && version > 0 && version < 64 && [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42].includes(second)
}

/** A safetensors file: a header of less than 4 GiB, of which the first 8 bytes are the length: they may look like anything. */
export const isSafetensors = (bytes: Uint8Array): boolean =>
  bytes[8] === 0x7b && bytes.subarray(4, 8).every((byte) => byte === 0)

/** Kinds of files that are given where weights are expected. The text has a character for each byte. */
const kinds: readonly Kind[] = [
  ['a pointer of Git LFS in place of the file: run git lfs pull', begins('version https://git-lfs.')],
  ['a web page, such as the one in front of a download', (text) => /^\s*<(!doctype|html|head|\?xml)/i.test(text)],
  ['an ONNX file: take the checkpoint from which it was exported', isOnnx],
  ['a TensorFlow Lite file', (text) => text.startsWith('TFL3', 4)],
  ['an HDF5 file, as Keras writes: weights of PyTorch are read', begins('\x89HDF')],
  ['an array of NumPy: weights of PyTorch are read', begins('\x93NUMPY')],
  ['a GGUF file', begins('GGUF')],
  ['an image', begins('\x89PNG', '\xff\xd8\xff', 'GIF8', 'BM', 'II*\0', 'MM\0*')],
  ['an image', (text) => text.startsWith('RIFF') && text.startsWith('WEBP', 8)],
  ['a PDF document', begins('%PDF')],
  ['a compressed archive: unpack it', begins('\x1f\x8b', 'BZh', '\xfd7zXZ', '7z\xbc\xaf', 'Rar!', '\x28\xb5\x2f\xfd')],
  ['a tar archive: unpack it', (text) => text.startsWith('ustar', 257)],
  ['a pickle of Python that torch.save did not write', (_text, [a, b = 0]) => a === 0x80 && b >= 3 && b <= 5],
  ['the index of weights in several files', (text) => /^\s*\{[\s\S]*"(weight_map|metadata)"/.test(text)],
  ['a text', (_text, bytes) => isText(bytes)],
]

/**
 * What a file is that holds no weights, as far as its start tells; undefined where it may hold some.
 * @param start its first bytes, at most `START_BYTES`
 */
export function otherKind(start: Uint8Array): string | undefined {
  if (start.length === 0) return 'empty'
  if (isSafetensors(start)) return undefined
  const text = String.fromCharCode(...start.subarray(0, START_BYTES))
  return kinds.find(([, test]) => test(text, start))?.[0]
}
