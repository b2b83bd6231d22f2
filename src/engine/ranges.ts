import type { Node, Part } from './ir.js'
import { dataBytes, elements, type Shape, type Spec } from './shape.js'

/** Bytes of a tensor that follow one another. */
export interface ByteRange {
  readonly offset: number
  readonly bytes: number
}

/** The bytes of a part in the larger tensor; undefined where others lie between them. */
function rangeOf({ axis, start, shape }: Part, { shape: own, dtype }: Spec): ByteRange | undefined {
  const bytesOf = (extents: Shape) => dataBytes({ shape: extents, dtype })
  if (elements(shape.slice(0, axis)) !== 1) return undefined
  return { offset: start * bytesOf(shape.slice(axis + 1)), bytes: bytesOf(own) }
}

/**
 * Where in its first input a node's one output begins, in bytes; undefined where it must be copied out of it.
 *
 * @param alignment offsets of bindings are multiples of so many bytes
 */
export function viewOffset({ op, attrs, inputs, outputs }: Node, alignment: number): number | undefined {
  const [input] = inputs
  const [output] = outputs
  if (!op?.partOfInput || !input || !output || input.dtype !== output.dtype) return undefined
  const range = rangeOf(op.partOfInput({ inputs, outputs, attrs: attrs as never }), output)
  return range && range.offset % alignment === 0 ? range.offset : undefined
}

/** A tensor that is others one after the other, with zeros between them. */
export interface Joined {
  /** Where each input begins. */
  readonly offsets: readonly number[]
  readonly zeros: readonly ByteRange[]
}

/** How a node's one output is its inputs one after the other; undefined where they must be copied together. */
export function joinedInputs({ op, attrs, inputs, outputs }: Node, alignment: number): Joined | undefined {
  const [output] = outputs
  if (!op?.concat || !output || inputs.some(({ dtype }) => dtype !== output.dtype)) return undefined
  const parts = op.concat.parts({ inputs, outputs, attrs: attrs as never })
  const ranges = inputs.map((input, i) => parts[i] && rangeOf(parts[i], input))
  const offsets = ranges.flatMap((range) => (range && range.offset % alignment === 0 ? range.offset : []))
  if (offsets.length < inputs.length) return undefined
  const zeros = gapsBetween(
    ranges.flatMap((range) => range ?? []),
    dataBytes(output),
  )
  // What is cleared are whole words.
  return zeros.every(({ offset, bytes }) => offset % 4 === 0 && bytes % 4 === 0) ? { offsets, zeros } : undefined
}

/** What ranges leave of so many bytes. */
function gapsBetween(ranges: readonly ByteRange[], total: number): ByteRange[] {
  const gaps: ByteRange[] = []
  let end = 0
  for (const { offset, bytes } of [...ranges, { offset: total, bytes: 0 }].sort((a, b) => a.offset - b.offset)) {
    if (offset > end) gaps.push({ offset: end, bytes: offset - end })
    end = offset + bytes
  }
  return gaps
}
