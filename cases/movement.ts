import type { Shape } from '#dist/engine/shape.js'
import { flip as flipKernel } from '#dist/kernels/flip.js'
import * as kernels from '#dist/kernels/movement.js'
import { permute as kernelOfPermute } from '#dist/kernels/permute.js'
import { take as takeKernel } from '#dist/kernels/take.js'
import { addWindows } from '#dist/kernels/windows.js'
import { body, type Family, family, integers, mapSizes, normal, type Random, type Source } from './case.js'
import * as reference from './reference/index.js'

export const concat = family(
  'concat',
  ({ shapes, axis }: { shapes: readonly Shape[]; axis: number }) => {
    const inputs: Record<string, Source> = Object.fromEntries(shapes.map((shape, i) => [`x${i}`, normal(shape)]))
    return body({
      inputs,
      run: (t) => ({ out: kernels.concat(Object.values(t), axis) }),
      reference: (v) => ({ out: reference.concat(Object.values(v), axis) }),
      differentiable: Object.keys(inputs),
      exact: true,
    })
  },
  {
    channels: {
      shapes: [
        [2, 3, 5, 7],
        [2, 3, 5, 1],
        [2, 3, 5, 17],
      ],
      axis: 3,
    },
    'aligned channels': {
      shapes: [
        [1, 5, 5, 8],
        [1, 5, 5, 4],
      ],
      axis: 3,
    },
    samples: {
      shapes: [
        [1, 3, 5, 7],
        [2, 3, 5, 7],
      ],
      axis: 0,
    },
    'aligned samples': {
      shapes: [
        [1, 4, 4, 4],
        [3, 4, 4, 4],
        [2, 4, 4, 4],
      ],
      axis: 0,
    },
    'rows of one sample': {
      shapes: [
        [1, 4, 8, 2],
        [1, 5, 8, 2],
      ],
      axis: 1,
    },
    'one tensor': { shapes: [[2, 3]], axis: 1 },
    five: { shapes: [1, 3, 5, 7, 17].map((channels) => [1, 1, 1, channels]), axis: 3 },
  },
  ({ crop, batch }) => {
    const { s4, s16 } = mapSizes(crop)
    return {
      decoder: { shapes: [48, 256].map((channels) => [batch, s4, s4, channels]), axis: 3 },
      pyramid: { shapes: Array(5).fill([batch, s16, s16, 256]), axis: 3 },
    }
  },
)

interface WindowsCase {
  readonly sums: Shape
  readonly maps: Shape
  /** Places are drawn between this, and this beyond the extent. */
  readonly outside: number
}

const windows = family(
  'addWindows',
  ({ sums, maps, outside }: WindowsCase) => {
    const [height = 0, width = 0] = sums
    const place = (random: Random) => random.integer(Math.max(height, width) + 2 * outside) - outside
    return body({
      inputs: {
        sums: normal(sums),
        maps: normal(maps),
        places: integers([maps[0] ?? 0, 2], 'u32', (random) => place(random) >>> 0),
      },
      run: (t) => ({ out: addWindows(t.sums, t.maps, t.places) }),
      reference: (v) => ({ out: reference.addWindows(v.sums, v.maps, v.places) }),
      passing: [],
      state: { out: 'sums' },
      full: ['sums'],
      terms: maps[0] ?? 1,
    })
  },
  {
    'one map': { sums: [5, 7, 3], maps: [1, 3, 2, 3], outside: 0 },
    overlapping: { sums: [9, 7, 5], maps: [8, 5, 4, 5], outside: 0 },
    'partly outside': { sums: [7, 9, 2], maps: [16, 4, 5, 2], outside: 5 },
    'larger than the sums': { sums: [2, 3, 1], maps: [4, 9, 9, 1], outside: 7 },
  },
  ({ crop, batch }) => ({
    probabilities: { sums: [crop, 3 * crop, 21], maps: [batch, crop, crop, 21], outside: 0 },
  }),
)

export const slice = family(
  'slice',
  ({ shape, axis, start, size }: { shape: Shape; axis: number; start: number; size: number }) =>
    body({
      inputs: { x: normal(shape) },
      run: (t) => ({ out: kernels.slice(t.x, axis, start, size) }),
      reference: (v) => ({ out: reference.slice(v.x, axis, start, size) }),
      differentiable: ['x'],
      exact: true,
    }),
  {
    'first samples': { shape: [3, 2, 5, 7], axis: 0, start: 0, size: 2 },
    'last sample': { shape: [3, 2, 5, 7], axis: 0, start: 2, size: 1 },
    'aligned samples': { shape: [4, 4, 4, 4], axis: 0, start: 1, size: 2 },
    'rows of one sample': { shape: [1, 9, 8, 2], axis: 1, start: 4, size: 5 },
    'middle channels': { shape: [2, 3, 5, 17], axis: 3, start: 5, size: 7 },
    'one channel': { shape: [1, 3, 5, 3], axis: 3, start: 1, size: 1 },
    all: { shape: [2, 3], axis: 1, start: 0, size: 3 },
  },
)

/** Tensors of equal extents but for the axis, each from its place on, side by side in zeros. */
const pad = family(
  'pad',
  ({ shape, axis, parts, size }: { shape: Shape; axis: number; parts: readonly [number, number][]; size: number }) => {
    const sources = parts.map(([, extent], i) => [`x${i}`, normal(shape.with(axis, extent))] as const)
    return body({
      inputs: Object.fromEntries(sources),
      run: (t) => {
        const padded = Object.values(t).map((x, i) => kernels.pad(x, axis, parts[i]?.[0] ?? 0, size))
        return { out: padded.reduce((a, b) => kernels.joinPadded(a, b) ?? b) }
      },
      reference: (v) => {
        const starts = parts.map(([start]) => start)
        return { out: reference.pad(Object.values(v), axis, starts, size) }
      },
      differentiable: sources.map(([name]) => name),
      exact: true,
    })
  },
  {
    samples: { shape: [1, 3, 5, 7], axis: 0, parts: [[1, 2]], size: 5 },
    'aligned samples': { shape: [1, 4, 4, 4], axis: 0, parts: [[1, 2]], size: 4 },
    'several samples': {
      shape: [1, 3, 5, 7],
      axis: 0,
      parts: [
        [4, 1],
        [1, 2],
      ],
      size: 6,
    },
    'several aligned samples': {
      shape: [1, 4, 4, 4],
      axis: 0,
      parts: [
        [4, 2],
        [1, 2],
      ],
      size: 6,
    },
    'nothing between': {
      shape: [1, 3, 3, 3],
      axis: 0,
      parts: [
        [2, 1],
        [0, 2],
      ],
      size: 3,
    },
    channels: {
      shape: [2, 3, 5, 1],
      axis: 3,
      parts: [
        [1, 3],
        [5, 1],
      ],
      size: 7,
    },
    rows: { shape: [2, 1, 5, 3], axis: 1, parts: [[0, 2]], size: 4 },
  },
)

export const permute = family(
  'permute',
  ({ shape, axes }: { shape: Shape; axes: readonly number[] }) =>
    body({
      inputs: { x: normal(shape) },
      run: (t) => ({ out: kernelOfPermute(t.x, axes) }),
      reference: (v) => ({ out: reference.permute(v.x, axes) }),
      differentiable: ['x'],
      exact: true,
    }),
  {
    matrix: { shape: [17, 5], axes: [1, 0] },
    matrices: { shape: [3, 70, 33], axes: [0, 2, 1] },
    'matrices, samples inside': { shape: [3, 5, 7], axes: [2, 1, 0] },
    'heads of tokens': { shape: [2, 9, 3, 8], axes: [0, 2, 1, 3] },
    'heads of odd channels': { shape: [2, 5, 3, 7], axes: [0, 2, 1, 3] },
    'channels first': { shape: [2, 3, 5, 17], axes: [0, 3, 1, 2] },
    'channels last': { shape: [2, 17, 3, 5], axes: [0, 2, 3, 1] },
    'unit axes': { shape: [1, 5, 1, 7], axes: [2, 3, 0, 1] },
    'unit axes alone': { shape: [1, 5, 1, 7], axes: [1, 0, 2, 3] },
    'five axes': { shape: [2, 3, 4, 5, 6], axes: [4, 2, 0, 3, 1] },
    'five axes, rows of four': { shape: [2, 3, 2, 5, 4], axes: [2, 0, 3, 1, 4] },
    'one element': { shape: [1, 1], axes: [1, 0] },
    same: { shape: [3, 4], axes: [0, 1] },
  },
  ({ crop, batch }) => {
    const { s4 } = mapSizes(crop)
    return { 'heads at stride 4': { shape: [batch, s4 * s4, 4, 64], axes: [0, 2, 1, 3] } }
  },
)

const split = family(
  'split',
  ({ shape, axis }: { shape: Shape; axis: number }) =>
    body({
      inputs: { x: normal(shape) },
      run: (t) => {
        const [first, second] = kernels.split(t.x, axis, 2)
        if (!first || !second) throw new Error('split gave fewer than two parts')
        return { first, second }
      },
      reference: (v) => {
        const half = (shape[axis] ?? 0) / 2
        return { first: reference.slice(v.x, axis, 0, half), second: reference.slice(v.x, axis, half, half) }
      },
      differentiable: ['x'],
      exact: true,
    }),
  { samples: { shape: [4, 2, 5, 7], axis: 0 }, channels: { shape: [2, 3, 5, 6], axis: 3 } },
)

export const flip = family(
  'flip',
  ({ shape }: { shape: Shape }) =>
    body({
      inputs: { x: normal(shape) },
      run: (t) => ({ out: flipKernel(t.x) }),
      reference: (v) => ({ out: reference.flip(v.x) }),
      differentiable: ['x'],
      exact: true,
    }),
  {
    'odd width': { shape: [2, 3, 5, 7] },
    'even width': { shape: [1, 4, 6, 1] },
    'one column': { shape: [2, 3, 1, 4] },
  },
)

export const take = family(
  'take',
  ({ shape, samples, bytes = false }: { shape: Shape; samples: number; bytes?: boolean }) =>
    body({
      inputs: {
        x: bytes ? integers(shape, 'u8', (random) => random.integer(256)) : normal(shape),
        index: integers([samples], 'u32', (random) => random.integer(shape[0] ?? 1)),
      },
      run: (t) => ({ out: takeKernel(t.x, t.index) }),
      reference: (v) => ({ out: reference.take(v.x, v.index) }),
      differentiable: [],
      passing: [],
      exact: true,
    }),
  {
    maps: { shape: [3, 2, 5, 7], samples: 3 },
    bytes: { shape: [3, 5, 5], samples: 4, bytes: true },
    scalars: { shape: [4], samples: 2 },
  },
  ({ crop, batch }) => ({ images: { shape: [batch, crop, crop, 3], samples: batch } }),
)

export const movementFamilies: Family[] = [concat, slice, pad, permute, split, flip, take, windows]
