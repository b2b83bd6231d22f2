import fc from 'fast-check'
import type { Tensor } from '#dist/engine/ir.js'
import { elements } from '#dist/engine/shape.js'
import { conv2d } from '#dist/kernels/conv2d.js'
import { matmul } from '#dist/kernels/matmul.js'
import * as kernels from '#dist/kernels/pointwise.js'
import { sumTo } from '#dist/kernels/pointwise.js'
import { softmax } from '#dist/kernels/softmax.js'
import { body, type Case, type Source, uniform } from '../../../cases/case.js'
import * as reference from '../../../cases/reference/index.js'
import { viewed, views } from './broadcasts.js'
import type { Property } from './property.js'

type Shape = readonly number[]
type View = (typeof views)[number]

/** The operators of a graph, for tensors and for the reference. Every one keeps values within -1 ... 1. */
interface Algebra<T> {
  readonly half: (x: T) => T
  readonly add: (x: T, y: T) => T
  readonly sub: (x: T, y: T) => T
  readonly mul: (x: T, y: T) => T
  readonly relu: (x: T) => T
  readonly where: (condition: T, yes: T, no: T) => T
  /** The mean over what broadcasting `shape` would stretch. */
  readonly meanTo: (x: T, shape: Shape, count: number) => T
  readonly softmax: (x: T) => T
  readonly broadcast: (x: T, shape: Shape) => T
  readonly conv2d: (x: T, w: T) => T
  readonly matmul: (a: T, b: T) => T
}

const tensors: Algebra<Tensor> = {
  half: (x) => kernels.scale(x, 0.5),
  add: kernels.add,
  sub: kernels.sub,
  mul: kernels.mul,
  relu: kernels.relu,
  where: kernels.where,
  meanTo: (x, shape, count) => kernels.scale(sumTo(x, shape), 1 / count),
  softmax,
  broadcast: kernels.broadcastTo,
  conv2d: (x, w) => conv2d(x, w, { padding: 1 }),
  matmul: (a, b) => matmul(a, b),
}

const doubles: Algebra<reference.Values> = {
  half: (x) => reference.scale(x, 0.5),
  add: reference.add,
  sub: reference.sub,
  mul: reference.mul,
  relu: (x) => reference.relu(x),
  where: reference.where,
  meanTo: (x, shape, count) => reference.scale(reference.sumTo(x, shape), 1 / count),
  softmax: reference.softmax,
  broadcast: reference.broadcastTo,
  conv2d: (x, w) => reference.conv2d(x, w, { padding: 1 }),
  matmul: reference.matmul,
}

/** `again`: the step before once more, which fusion need not compute twice. */
const operations = ['add', 'sub', 'mul', 'relu', 'where', 'mean', 'softmax', 'again'] as const

interface Graph {
  /** Shape that all operands broadcast to. */
  readonly space: Shape
  readonly inputs: readonly View[]
  readonly steps: readonly { readonly op: (typeof operations)[number]; readonly operands: readonly number[] }[]
  /** A value beside the last that is returned, so that it must be stored. */
  readonly kept: number
}

/** The values of a graph: its inputs, then a result for each step. */
function evaluate<T extends { readonly shape: Shape }>(algebra: Algebra<T>, graph: Graph, inputs: readonly T[]): T[] {
  const values = [...inputs]
  const [first] = inputs
  let before: () => T = () => algebra.relu(first as T)
  for (const { op, operands } of graph.steps) {
    const [x, y, z] = operands.map((index) => values[index % values.length]) as [T, T, T]
    const step = op === 'again' ? before : () => stepOf(algebra, op, [x, y, z], first as T)
    before = step
    values.push(step())
  }
  return values
}

function stepOf<T extends { readonly shape: Shape }>(
  algebra: Algebra<T>,
  op: Exclude<(typeof operations)[number], 'again'>,
  [x, y, z]: readonly [T, T, T],
  first: T,
): T {
  switch (op) {
    case 'add':
    case 'sub':
      return algebra.half(algebra[op](x, y))
    case 'mean':
      return algebra.meanTo(x, x.shape.with(-1, 1), x.shape.at(-1) ?? 1)
    case 'where':
      // A condition that is computed could round to either side of 0.
      return algebra.where(first, y, z)
    case 'mul':
      return algebra.mul(x, y)
    default:
      return algebra[op](x)
  }
}

function outputs<T extends { readonly shape: Shape }>(algebra: Algebra<T>, graph: Graph, inputs: readonly T[]) {
  const values = evaluate(algebra, graph, inputs)
  const last = algebra.broadcast(values.at(-1) as T, graph.space)
  return { last, kept: values[graph.kept % values.length] as T }
}

/** Roundings of one step, for values up to 1, and as many of its operands' as there are. */
const toleranceOf = (steps: number): number => 2 ** -23 * 16 * (steps + 1)

function graphCase(graph: Graph): Case {
  const sources = graph.inputs.map((view, i) => [`x${i}`, uniform(viewed(graph.space, view), -1, 1)] as const)
  const inputs: Record<string, Source> = Object.fromEntries(sources)
  return {
    ...body({
      inputs,
      run: (t) => outputs(tensors, graph, Object.values(t)),
      reference: (v) => outputs(doubles, graph, Object.values(v)),
      tolerance: toleranceOf(graph.steps.length),
      halfRoundings: 4 * (graph.steps.length + 1),
    }),
    op: 'graph',
    name: fc.stringify(graph),
  }
}

const extent = fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 1, max: 6 }) }, fc.integer({ min: 1, max: 40 }))
const space = fc.array(extent, { minLength: 1, maxLength: 4 }).filter((s) => elements(s) <= 4000)
const view = fc.constantFrom(...views)
const steps = fc.array(
  fc.record({
    op: fc.oneof(fc.constantFrom(...operations), fc.constant('again' as const)),
    operands: fc.tuple(fc.nat(20), fc.nat(20), fc.nat(20)),
  }),
  { minLength: 1, maxLength: 10 },
)

const graphs: fc.Arbitrary<Graph> = fc.record({
  space,
  inputs: fc.array(view, { minLength: 1, maxLength: 4 }),
  steps,
  kept: fc.nat(20),
})

interface Epilogue {
  readonly product: 'conv2d' | 'matmul'
  /** N, H, W; or the rows of a matrix. */
  readonly pixels: readonly [number, number, number]
  readonly c: number
  readonly o: number
  readonly chain: readonly { readonly op: 'add' | 'sub' | 'mul' | 'relu'; readonly view: View }[]
}

/** A chain of formulas behind a product, each with an operand per element, row, sample, channel, or of one value. */
function epilogueCase(epilogue: Epilogue): Case {
  const { product, pixels, c, o, chain } = epilogue
  const isConv = product === 'conv2d'
  const rows = isConv ? pixels : [elements(pixels)]
  const operands = chain.map(({ view }, i) => [`operand${i}`, uniform(viewed([...rows, o], view), -1, 1)] as const)
  const terms = isConv ? 9 * c : c
  const compute = <T>(algebra: Algebra<T>, values: readonly T[]) => {
    const [x, w, ...rest] = values as [T, T, ...T[]]
    let y = algebra[product](x, w)
    for (const [i, { op }] of chain.entries()) y = op === 'relu' ? algebra.relu(y) : algebra[op](y, rest[i] as T)
    return { y }
  }
  const bound = 1 / Math.sqrt(terms)
  return {
    ...body({
      inputs: {
        x: uniform([...rows, c], -1, 1),
        w: uniform([...(isConv ? [3, 3] : []), c, o], -bound, bound),
        ...Object.fromEntries(operands),
      } as Record<string, Source>,
      run: (t) => compute(tensors, Object.values(t)),
      reference: (v) => compute(doubles, Object.values(v)),
      terms,
    }),
    op: `${product} and its epilogue`,
    name: fc.stringify(epilogue),
  }
}

const small = fc.integer({ min: 1, max: 7 })
const channels = fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 1, max: 12 }) }, fc.integer({ min: 1, max: 40 }))
const epilogues: fc.Arbitrary<Epilogue> = fc
  .record({
    product: fc.constantFrom('conv2d' as const, 'matmul' as const),
    pixels: fc.tuple(small, small, small),
    c: channels,
    o: channels,
    chain: fc.array(
      fc.record({ op: fc.constantFrom('add' as const, 'sub' as const, 'mul' as const, 'relu' as const), view }),
      {
        minLength: 1,
        maxLength: 5,
      },
    ),
  })
  .filter(({ pixels: [n, h, w], c, o }) => n * h * w * 9 * c * o <= 200_000)

/** Whole graphs: what fusion, sharing of buffers and epilogues make of them is what the operators say. */
export const compositions: readonly Property[] = [
  { name: 'graph', cases: graphs.map(graphCase) },
  { name: 'epilogue', cases: epilogues.map(epilogueCase) },
]
