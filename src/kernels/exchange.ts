import { apply } from '../engine/graph.js'
import { defineOp, type Op, type Tensor } from '../engine/ir.js'
import { type Candidate, type HostCall, inputBuffer, type KernelContext, outputBuffer } from '../engine/kernel.js'
import { type Data, isFloat, type Spec, showSpec, spec } from '../engine/shape.js'
import { fill } from './pointwise.js'

/** Processes, numbered from 0 by their ranks, that run the same program on values of their own. */
export interface Exchange {
  /** Their number. */
  readonly size: number
  /** For each array the sums over the ranks, in their order, divided by `divisor`: on every rank the same bits. */
  sum(values: readonly Float32Array[], divisor: number): Promise<readonly Float32Array[]>
  /** The values of all ranks, one after the other. */
  gather(values: Float32Array): Promise<Float32Array>
}

type HostFunction = (values: readonly Float32Array[]) => Promise<readonly Data[]>

/** The one kernel of an operator that calls JavaScript. */
export function hostKernel(
  label: string,
  { inputs, outputs }: Pick<KernelContext<unknown>, 'inputs' | 'outputs'>,
  run: HostFunction,
): readonly Candidate[] {
  if (inputs.some(({ dtype }) => dtype !== 'f32')) throw new Error(`host call ${label}: it gets f32 alone`)
  const host: HostCall = {
    label,
    reads: inputs.map((_, i) => inputBuffer(i)),
    writes: outputs.map((_, i) => outputBuffer(i)),
    run: (values) => run(values as readonly Float32Array[]),
  }
  return [{ name: 'host', dispatches: [], host }]
}

interface SumAttrs {
  readonly exchange: Exchange
  readonly divisor: number
}

const sumOp: Op<SumAttrs> = defineOp<SumAttrs>('sumOverRanks', {
  callsHost: true,
  shape: (inputs) =>
    inputs.map((input): Spec => {
      if (!isFloat(input)) throw new Error(`only floats are summed over ranks, not ${showSpec(input)}`)
      return spec(input.shape)
    }),
  // A sum of every rank's values reaches the losses of all ranks: their gradients are added up likewise.
  vjp: ({ inputs, grads, attrs }) =>
    apply(
      sumOp,
      inputs.map(({ shape }, i) => grads[i] ?? fill(shape, 0)),
      attrs,
    ),
  kernel: (context) =>
    hostKernel('sum', context, (values) => context.attrs.exchange.sum(values, context.attrs.divisor)),
})

/**
 * Sums over the ranks, in their order, divided by `divisor`: the same bits on every rank. The gradient is that of the sum of
 * all ranks' losses.
 */
export const sumOverRanks = (tensors: readonly Tensor[], exchange: Exchange, divisor = 1): Tensor[] =>
  apply(sumOp, tensors, { exchange, divisor })
