import { elements, type Shape } from '#dist/engine/shape.js'
import * as kernels from '#dist/kernels/pointwise.js'
import {
  body,
  constant,
  type Family,
  type FamilyOf,
  family,
  floats,
  integers,
  mapSizes,
  mask,
  normal,
  type Source,
  uniform,
} from './case.js'
import * as reference from './reference/index.js'

/** Patterns of broadcasting in a space [N, H, W, C], and one long enough for several elements a thread. */
const patterns = {
  full: [
    [2, 5, 7, 3],
    [2, 5, 7, 3],
  ],
  'one element': [
    [1, 1, 1, 1],
    [1, 1, 1, 1],
  ],
  scalar: [[2, 3, 5, 7], []],
  'scalar first': [[], [3, 5]],
  channel: [[2, 3, 5, 17], [17]],
  'channel of rank 4': [
    [2, 3, 5, 17],
    [1, 1, 1, 17],
  ],
  row: [
    [2, 3, 5, 7],
    [2, 3, 5, 1],
  ],
  sample: [
    [3, 5, 4, 2],
    [3, 1, 1, 1],
  ],
  'sample of tokens': [
    [3, 9, 6],
    [3, 1, 1],
  ],
  'sample and channel': [
    [3, 5, 4, 65],
    [3, 1, 1, 65],
  ],
  'matrix rows': [
    [33, 5],
    [33, 1],
  ],
  long: [
    [1, 65, 64, 5],
    [1, 65, 64, 5],
  ],
  'long, by channel': [[2, 67, 31, 5], [5]],
} satisfies Record<string, readonly [Shape, Shape]>

type Pair = readonly [Shape, Shape]
type Binary = keyof typeof kernelOf

const sizes = ([x, y]: Pair): number => elements([...x, ...y])

const kernelOf = { add: kernels.add, sub: kernels.sub, mul: kernels.mul, div: kernels.div }
const referenceOf = { add: reference.add, sub: reference.sub, mul: reference.mul, div: reference.div }

export function binary(op: Binary, shapes: Record<string, Pair>): FamilyOf<Pair> {
  const make = ([x, y]: Pair) =>
    body({
      // Away from 0, so that quotients and their derivatives stay of one size.
      inputs: { x: normal(x), y: op === 'div' ? uniform(y, 0.5, 2) : normal(y) },
      run: (t) => ({ out: kernelOf[op](t.x, t.y) }),
      reference: (v) => ({ out: referenceOf[op](v.x, v.y) }),
      differentiable: ['x', 'y'],
      terms: sizes([x, y]),
      // The third derivative of a quotient by 0.5 is large.
      ...(op === 'div' ? { step: 1e-5 } : {}),
    })
  return family(op, make, shapes, ({ crop, batch }): Record<string, Pair> => {
    const { s4 } = mapSizes(crop)
    const map: Shape = [batch, s4, s4, 256]
    return op === 'add' ? { 'residual join': [map, map] } : op === 'mul' ? { 'by channel': [map, [256]] } : {}
  })
}

const { full, row, sample, scalar, channel } = patterns

const relu = family(
  'relu',
  (x: Source) =>
    body({
      inputs: { x },
      run: (t) => ({ out: kernels.relu(t.x) }),
      reference: (v, at) => ({ out: reference.relu(v.x, at.x) }),
      differentiable: ['x'],
      exact: true,
    }),
  {
    // The gradient at 0 and at −0 is 0.
    zeros: floats([2, 3, 5, 7], (random) => [random.normal(), 0, -0][random.integer(3)] ?? 0),
    'one pixel': normal([1, 1, 1, 65]),
    long: normal([1, 127, 33, 5]),
  },
  ({ crop, batch }) => ({ 'stride 4': normal([batch, mapSizes(crop).s4, mapSizes(crop).s4, 256]) }),
)

const scale = family(
  'scale',
  (factor: number) =>
    body({
      inputs: { x: normal([3, 5, 7]) },
      run: (t) => ({ out: kernels.scale(t.x, factor) }),
      reference: (v) => ({ out: reference.scale(v.x, factor) }),
      differentiable: ['x'],
    }),
  { 'by 0': 0, 'by 1': 1, 'by a fraction': -1 / 3, 'by a large factor': 1e20 },
)

const gelu = family(
  'gelu',
  (x: Source) =>
    body({
      inputs: { x },
      run: (t) => ({ out: kernels.gelu(t.x) }),
      reference: (v) => ({ out: reference.gelu(v.x) }),
      differentiable: ['x'],
      terms: elements(x.spec.shape),
    }),
  {
    odd: normal([2, 5, 7, 3]),
    'one element': normal([1]),
    // Both sides of where the formula changes, and where erf rounds to 1.
    wide: normal([3, 7, 65], { scale: 4 }),
    'around 0': normal([33], { scale: 0.01 }),
    'beyond erf': floats([24], (random) => (random.uniform() - 0.5) * 40),
  },
  ({ crop, batch }) => ({ 'stride 4': normal([batch, mapSizes(crop).s4 ** 2, 256]) }),
)

const where = family(
  'where',
  ({ shape, condition }: { shape: Shape; condition: Source }) =>
    body({
      inputs: { condition, yes: normal(shape), no: normal(shape) },
      run: (t) => ({ out: kernels.where(t.condition, t.yes, t.no) }),
      reference: (v) => ({ out: reference.where(v.condition, v.yes, v.no) }),
      differentiable: ['yes', 'no'],
      exact: true,
    }),
  {
    bytes: { shape: [2, 3, 5, 7], condition: mask([2, 3, 5, 7], 0.5, 255) },
    'bytes by row': { shape: [2, 3, 5, 7], condition: mask([2, 3, 5, 1], 0.5, 1) },
    'words by row': { shape: [2, 3, 5, 3], condition: mask([2, 3, 5, 1], 0.5, 7, 'u32') },
    floats: { shape: [33], condition: floats([33], (random) => random.integer(2)) },
  },
)

const whereLabels = family(
  'where on labels',
  (dtype: 'u8' | 'u32') =>
    body({
      inputs: {
        condition: mask([2, 5, 7], 0.5, 1),
        yes: integers([2, 5, 7], dtype, (random) => random.integer(256)),
        no: integers([2, 5, 7], dtype, (random) => random.integer(256)),
      },
      run: (t) => ({ out: kernels.where(t.condition, t.yes, t.no) }),
      reference: (v) => ({ out: reference.where(v.condition, v.yes, v.no) }),
      exact: true,
    }),
  { bytes: 'u8', words: 'u32' },
)

const fill = family(
  'fill',
  ({ shape, value }: { shape: Shape; value: number }) =>
    body({
      inputs: {},
      run: () => ({ out: kernels.fill(shape, value) }),
      reference: () => ({ out: reference.fill(shape, value) }),
      exact: true,
    }),
  { scalar: { shape: [], value: -2.5 }, map: { shape: [2, 3, 5, 7], value: 3 } },
)

export const broadcastTo = family(
  'broadcastTo',
  ([from, to]: Pair) =>
    body({
      inputs: { x: normal(from) },
      run: (t) => ({ out: kernels.broadcastTo(t.x, to) }),
      reference: (v) => ({ out: reference.broadcastTo(v.x, to) }),
      differentiable: ['x'],
      terms: sizes([to, []]),
    }),
  {
    'scalar to map': [[], [2, 3, 5, 7]],
    'channels to map': [[65], [2, 3, 5, 65]],
    'samples and channels to map': [
      [2, 1, 1, 33],
      [2, 7, 5, 33],
    ],
    'pixels to map': [
      [1, 3, 5, 1],
      [1, 3, 5, 17],
    ],
    'same shape': [
      [3, 5],
      [3, 5],
    ],
  },
)

const toU32 = family(
  'toU32',
  (x: Source) =>
    body({
      inputs: { x },
      run: (t) => ({ out: kernels.toU32(t.x) }),
      reference: (v) => ({ out: reference.truncate(v.x) }),
      exact: true,
    }),
  { fractions: uniform([3, 5, 7], 0, 300), bytes: integers([3, 5, 7], 'u8', (random) => random.integer(256)) },
)

const equals = family(
  'equals',
  (x: Source) =>
    body({
      inputs: { x },
      run: (t) => ({ out: kernels.equals(t.x, 255) }),
      reference: (v) => ({ out: reference.equals(v.x, 255) }),
      exact: true,
    }),
  { bytes: mask([2, 5, 7], 0.3, 255), words: mask([2, 5, 7], 0.3, 255, 'u32'), floats: constant([5], 255) },
)

const atLeast = family(
  'atLeast',
  (threshold: number) =>
    body({
      // Every other value is the threshold itself, rounded to float32.
      inputs: { x: floats([3, 5, 7], (random) => (random.integer(2) ? threshold : random.uniform())) },
      run: (t) => ({ out: kernels.atLeast(t.x, threshold) }),
      reference: (v) => ({ out: reference.atLeast(v.x, threshold) }),
      exact: true,
    }),
  { 'rounds up': 0.95, 'rounds down': 0.7, zero: 0 },
)

export const pointwiseFamilies: Family[] = [
  binary('add', { full, channel, row, sample, scalar, long: patterns.long }),
  binary('sub', { full, channel, 'scalar first': patterns['scalar first'] }),
  binary('mul', patterns),
  binary('div', { full, scalar, 'scalar first': patterns['scalar first'], channel }),
  relu,
  gelu,
  scale,
  where,
  whereLabels,
  fill,
  broadcastTo,
  toU32,
  equals,
  atLeast,
]
