// How batches are divided: ranges of samples, and samples put together.
import {
  type Arrangement,
  type Call,
  type DivideAccess,
  type Division,
  defineOp,
  type Op,
  type RowsCall,
} from '../engine/ir.js'
import { type Shape, type Spec, spec, withSamples } from '../engine/shape.js'
import type { JoinAttrs, RangeAttrs } from './arrangement-kernels.js'
import { viewIn } from './views.js'

/** Some samples of a tensor of any type, without gradient. */
const rangeOp = defineOp<RangeAttrs>('range', {
  precision: 'same',
  shape: ([x = spec([])], { size }) => [withSamples(x, size)],
  kernel: async (context) => [(await import('./arrangement-kernels.js')).rangeKernel(context)],
  partOfInput: ({ inputs: [x = spec([])], attrs: { start } }) => ({ axis: 0, start, shape: x.shape }),
})

/** Samples side by side, and zeros where there is none, without gradient. */
const joinOp = defineOp<JoinAttrs>('join', {
  precision: 'same',
  shape: (_, { output }) => [output],
  kernel: async (context) => [(await import('./arrangement-kernels.js')).joinKernel(context)],
  concat: {
    parts: ({ outputs: [y = spec([])], attrs: { starts } }) =>
      starts.map((start) => ({ axis: 0, start, shape: y.shape })),
    copy: () => undefined,
  },
})

/** The sum of two tensors of one shape, without gradient. */
const addOp = defineOp<undefined>('add', {
  shape: ([x = spec([])]) => [x],
  kernel: async (context) => [(await import('./add-kernel.js')).addKernel(context)],
})

export const arrangement: Arrangement = {
  range: (input, start, size) => {
    return { op: rangeOp as Op, name: 'range', attrs: { start, size }, outputs: [withSamples(input, size)] }
  },
  join: (starts, output) => ({ op: joinOp as Op, name: 'join', attrs: { starts, output }, outputs: [output] }),
  add: (output) => ({ op: addOp as Op, name: 'add', attrs: undefined, outputs: [output] }),
}

export type Use = Division['inputs'][number]

/** How operands that broadcast to a space are divided with it; undefined where one of them is laid out otherwise. */
export function usesIn(space: Shape, operands: readonly Spec[]): Use[] | undefined {
  const uses = operands.map(({ shape }): Use | undefined => {
    const view = viewIn(space, shape)
    if (view === 'scalar' || view === 'channel') return 'whole'
    return shape.length === space.length && shape[0] === space[0] ? 'divided' : undefined
  })
  return uses.includes(undefined) ? undefined : uses.map((use) => use ?? 'whole')
}

/** A call that computes each sample of its outputs from those of its inputs that are divided. */
export const joinedDivision = <A>(
  { outputs, attrs }: Pick<Call<A>, 'outputs' | 'attrs'>,
  inputs: readonly Use[],
  attrsFor: (attrs: A, samples: number) => A = (attrs) => attrs,
): Division => ({
  samples: outputs[0]?.shape[0] ?? 1,
  inputs,
  outputs: outputs.map(() => 'joined'),
  piece: (samples) => ({
    attrs: attrsFor(attrs, samples),
    outputs: outputs.map((output) => withSamples(output, samples)),
  }),
})

/** An operator that computes each sample of its outputs from that of each input. */
export const bySample = <A>(attrsFor?: (attrs: A, samples: number) => A): DivideAccess<A> => ({
  arrangement,
  division: (call) =>
    joinedDivision(
      call,
      call.inputs.map(() => 'divided'),
      attrsFor,
    ),
})

/** [N, H, …] as [N · H, 1, …]: rows of images as images of one row. */
export const rowsOf = ([samples = 1, rows = 1, ...rest]: Shape): Shape => [samples * rows, 1, ...rest]

/**
 * A call that computes each row of images from those of its inputs, as one for images of one row; undefined where what is
 * divided by samples has no rows.
 * @param division of the call by samples
 * @param attrs those of the call for images of one row
 */
export function callByRows<A>(
  { inputs, outputs }: Pick<Call<A>, 'inputs' | 'outputs'>,
  division: Division | undefined,
  attrs: A,
): [RowsCall] | undefined {
  if (!division) return undefined
  const dividedInputs = inputs.filter((_, i) => division.inputs[i] === 'divided')
  const isJoined = (k: number) => !division.last && division.outputs[k] === 'joined'
  const all = [...dividedInputs, ...outputs.filter((_, k) => isJoined(k))].map(({ shape }) => shape)
  const [[samples, rows] = []] = all
  if (!all.every((shape) => shape.length > 2 && shape[0] === samples && shape[1] === rows)) return undefined
  return [
    {
      attrs,
      inputs: inputs.map(({ shape }, i) => (division.inputs[i] === 'divided' ? rowsOf(shape) : shape)),
      outputs: outputs.map(({ shape, dtype }, k) => spec(isJoined(k) ? rowsOf(shape) : shape, dtype)),
    },
  ]
}

/** An operator that computes each row of the images of its outputs from that of each input. */
export const byRow = <A>(): DivideAccess<A> => {
  const access = bySample<A>()
  return { ...access, rows: (call) => callByRows(call, access.division(call), call.attrs) }
}
