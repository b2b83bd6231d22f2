// What reads a product's result, in the dispatches of the product: see `SummingAccess`.
import { type Reading, type RowSums, rowSumsAccessOf } from '../engine/ir.js'
import {
  type Candidate,
  type Dispatch,
  inputBuffer,
  type KernelContext,
  type Operand,
  outputBuffer,
  temporaryBuffer,
} from '../engine/kernel.js'
import { type Spec, spec } from '../engine/shape.js'
import type { TargetSums } from './slice-sums.js'

/** Sums of a channel that find room where the rows of the smallest matrices do. */
const mostSums = 8

/** A call that reads a product's result and sums its rows. */
export interface Reader {
  /** Puts all that it does behind a product. */
  after(candidate: Candidate): Candidate
  /** What a product of tiles with so many rows delivers of the sums, and the rest; undefined where it has no such sums. */
  readonly fused: { readonly target: TargetSums; complete(candidate: Candidate, rows: number): Candidate } | undefined
}

/** Index, in a call that computes both, of an input of the reader's. */
const inputOf = ({ at, first }: Reading, index: number): number => first + index - (index > at ? 1 : 0)

/** What the reader updates in place, in a call that computes both. */
export const inplaceOf = (reading: Reading | undefined): ReadonlyMap<number, number> => {
  const own = reading?.op.inplace?.(reading.attrs as never) ?? []
  return new Map([...own].map(([output, input]) => [output + 1, reading ? inputOf(reading, input) : input]))
}

/** The context of a product alone, and what reads its result. */
export async function readerOf<A extends { readonly reading?: Reading }>(
  context: KernelContext<A>,
): Promise<{ context: KernelContext<A>; reader?: Reader }> {
  const { inputs, outputs, attrs, adapter } = context
  const { reading } = attrs
  const [result] = outputs
  if (!reading || !result) return { context }
  const others = inputs.slice(reading.first)
  const called: KernelContext<never> = {
    inputs: [...others.slice(0, reading.at), result, ...others.slice(reading.at)],
    outputs: outputs.slice(1),
    attrs: reading.attrs as never,
    adapter,
  }
  /** An operand of the reader's, as one of both calls together. */
  const place = ({ role, index, ...rest }: Operand, temporaries: number): Operand => {
    if (role === 'output') return { ...rest, role, index: index + 1 }
    if (role === 'temporary') return { ...rest, role, index: index + temporaries }
    return index === reading.at ? { ...rest, ...outputBuffer(0) } : { ...rest, ...inputBuffer(inputOf(reading, index)) }
  }
  const placed = (dispatch: Dispatch, temporaries: number): Dispatch => ({
    ...dispatch,
    reads: dispatch.reads.map((operand) => place(operand, temporaries)),
    writes: dispatch.writes.map((operand) => place(operand, temporaries)),
  })
  const [next] = await reading.op.kernel(called)
  if (!next) throw new Error(`${reading.op.name}: no kernel for this adapter`)
  const after = (candidate: Candidate): Candidate => {
    const { temporaries = [], dispatches } = candidate
    return {
      ...candidate,
      temporaries: [...temporaries, ...(next.temporaries ?? [])],
      dispatches: [...dispatches, ...next.dispatches.map((dispatch) => placed(dispatch, temporaries.length))],
    }
  }
  const sums = (await rowSumsAccessOf(reading.op))?.of(called, reading.at)
  const fused =
    sums && sums.terms.length <= mostSums
      ? {
          target: targetOf(sums, called.inputs, (index) => place(inputBuffer(index), 0)),
          complete: (candidate: Candidate, rows: number) => completed(candidate, sums, result, rows, placed),
        }
      : undefined
  return {
    context: { ...context, inputs: inputs.slice(0, reading.first), outputs: [result] },
    reader: { after, fused },
  }
}

const targetOf = (
  { terms, kept, operands }: RowSums,
  inputs: readonly Spec[],
  place: (index: number) => Operand,
): TargetSums => ({
  terms,
  kept,
  operands: operands.map((index) => inputs[index] ?? spec([])),
  reads: operands.map(place),
  buffer: temporaryBuffer(0),
})

/** A product that keeps the sums of tiles, with what makes the reader's outputs of these. */
function completed(
  { dispatches, ...candidate }: Candidate,
  sums: RowSums,
  { shape }: Spec,
  rows: number,
  placed: (dispatch: Dispatch, temporaries: number) => Dispatch,
): Candidate {
  const channels = shape.at(-1) ?? 1
  const parts = Math.ceil(shape.slice(0, -1).reduce((a, b) => a * b, 1) / rows)
  const last = sums.finish(temporaryBuffer(0), parts, rows)
  return {
    ...candidate,
    temporaries: [spec([sums.kept.length, parts, channels])],
    dispatches: [...dispatches, placed(last, 0)],
  }
}
