import type { Device } from './device.js'
import type { Program } from './program.js'
import { byteLength, type Data, dataBytes, elements } from './shape.js'
import { typedArray } from './store.js'

/** Pieces of a result that is too large to be read whole. */
const samplePieces = 64

/** Values of outputs after the last run: where there are more than `most`, as many in pieces that are spread over all. */
export async function sampleOutputs(
  device: Device,
  program: Pick<Program, 'output'>,
  names: readonly string[],
  most: number,
): Promise<Data[]> {
  const pieces = names.map((name) => {
    const { spec, address } = program.output(name)
    const size = dataBytes({ ...spec, shape: [1] })
    const count = elements(spec.shape)
    // Whole words, whatever the type.
    const each = Math.ceil(most / samplePieces / 4) * 4
    if (count <= samplePieces * each) return { spec, ranges: [{ ...address, bytes: byteLength(spec) }] }
    const starts = Array.from({ length: samplePieces }, (_, i) => {
      return Math.floor((i * (count - each)) / (samplePieces - 1) / 4) * 4
    })
    return {
      spec,
      ranges: starts.map((start) => ({ ...address, offset: address.offset + start * size, bytes: each * size })),
    }
  })
  const copies = await device.read(pieces.flatMap(({ ranges }) => ranges))
  return pieces.map(({ spec, ranges }) => {
    const own = copies.splice(0, ranges.length).map((copy) => new Uint8Array(copy))
    const joined = new Uint8Array(own.reduce((sum, { length }) => sum + length, 0))
    let end = 0
    for (const part of own) {
      joined.set(part, end)
      end += part.length
    }
    const size = dataBytes({ ...spec, shape: [1] })
    return typedArray(joined.buffer, { ...spec, shape: [joined.length / size] })
  })
}
