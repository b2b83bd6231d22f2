import fc from 'fast-check'
import { attentionFamily } from '../../../cases/attention.js'
import { normal } from '../../../cases/case.js'
import { labelled, mean, perPixel, softmaxFamily } from '../../../cases/classification.js'
import { type ConvShape, convFamily } from '../../../cases/conv2d.js'
import { averagePool, batchNorm, batchNormEval, layerNormFamily, maxPool, resize } from '../../../cases/maps.js'
import { batchedMatmulFamily, matmulFamily } from '../../../cases/matmul.js'
import { concat, flip, permute, slice } from '../../../cases/movement.js'
import { binary, broadcastTo } from '../../../cases/pointwise.js'
import { sum, sumTo } from '../../../cases/reduce.js'
import { outputExtent } from '../../../cases/reference/index.js'
import { viewed, views } from './broadcasts.js'
import { named, type Property } from './property.js'

/** Mostly small, at times beyond the lanes of a subgroup and the sides of tiles. */
const channels = fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 1, max: 9 }) }, fc.integer({ min: 1, max: 70 }))
const extent = fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 1, max: 8 }) }, fc.integer({ min: 1, max: 33 }))
const batch = fc.integer({ min: 1, max: 3 })

const product = (shape: readonly number[]): number => shape.reduce((total, value) => total * value, 1)
/** The reference computes each case some sixty times. */
const maxElements = 6000
const maxProducts = 40_000

const map = fc.tuple(batch, extent, extent, channels).filter((shape) => product(shape) <= maxElements)
const shape = fc.array(extent, { maxLength: 4 }).filter((extents) => product(extents) <= maxElements)

/** Convolutions whose result has a place at least. */
const convolution: fc.Arbitrary<ConvShape> = fc
  .record({
    n: batch,
    map: fc.tuple(extent, extent),
    perGroup: fc.tuple(channels, channels),
    groups: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, fc.integer({ min: 2, max: 9 })),
    depthwise: fc.boolean(),
    kernel: fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 })),
    stride: fc.integer({ min: 1, max: 3 }),
    padding: fc.integer({ min: 0, max: 8 }),
    dilation: fc.oneof({ weight: 2, arbitrary: fc.constant(1) }, fc.integer({ min: 2, max: 12 })),
  })
  .map(({ perGroup: [cin, cout], depthwise, groups, ...rest }) => {
    const per = depthwise && groups > 1 ? 1 : cin
    return { ...rest, groups, c: per * groups, o: (depthwise && groups > 1 ? 1 : cout) * groups }
  })
  .filter((parameters) => {
    const {
      n,
      map: [h, w],
      c,
      o,
      kernel: [kh, kw],
      groups,
    } = parameters
    const [oh, ow] = [outputExtent(h, kh, parameters), outputExtent(w, kw, parameters)]
    const products = (n * oh * ow * kh * kw * c * o) / groups
    return oh > 0 && ow > 0 && products <= maxProducts && n * h * w * c <= maxElements
  })

const matrices = fc
  .record({ m: extent, k: channels, n: channels, transpose: fc.constantFrom('a', 'b', 'none') })
  .filter(({ m, k, n }) => m * k * n <= maxProducts)

const batches = fc
  .record({
    batch: fc.array(batch, { maxLength: 3 }),
    m: extent,
    k: channels,
    n: channels,
    transposeA: fc.boolean(),
    transposeB: fc.boolean(),
  })
  .filter(({ batch: axes, m, k, n }) => product(axes) * m * k * n <= maxProducts)

/** Of heads a few sizes, since each makes kernels of its own. */
const tokens = fc
  .record({
    n: batch,
    queries: extent,
    keys: extent,
    heads: fc.integer({ min: 1, max: 4 }),
    head: fc.constantFrom(1, 3, 4, 12),
  })
  .filter(({ n, queries, keys, heads, head }) => n * queries * keys * heads * head <= maxProducts)

const permutation = shape.chain((extents) =>
  fc.shuffledSubarray([...extents.keys()], { minLength: extents.length }).map((axes) => ({ shape: extents, axes })),
)

const pooling = fc
  .record({ x: map, kernel: fc.integer({ min: 1, max: 5 }), stride: fc.integer({ min: 1, max: 4 }), half: fc.nat(2) })
  .map(({ half, kernel, ...rest }) => ({ ...rest, kernel, padding: Math.min(half, Math.floor(kernel / 2)) }))
  .filter(
    ({ x: [, h, w], ...rest }) => Math.min(outputExtent(h, rest.kernel, rest), outputExtent(w, rest.kernel, rest)) > 0,
  )

const resizing = fc
  .record({ shape: map, to: fc.tuple(extent, extent), alignCorners: fc.boolean() })
  .filter(({ shape: [n, , , c], to }) => n * c * product(to) <= maxElements)

/** A shape, and one that broadcasts to it in a way that kernels index. */
const broadcasting = fc
  .tuple(shape, fc.constantFrom(...views), fc.boolean())
  .map(([full, view, leading]): [number[], number[]] => {
    const part = viewed(full, view)
    // The axes in front may be left out where they are 1.
    const first = part.findIndex((value) => value !== 1)
    return [full, leading ? part : part.slice(first < 0 ? part.length : first)]
  })

const concatenation = fc
  .tuple(map, fc.nat(3), fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }))
  .map(([first, axis, extents]) => ({ shapes: extents.map((size) => first.with(axis, size)), axis }))
  .filter(({ shapes }) => shapes.reduce((total, one) => total + product(one), 0) <= maxElements)

const slicing = fc.tuple(map, fc.nat(3), fc.nat(32), fc.nat(32)).map(([whole, axis, from, length]) => {
  const size = whole[axis] ?? 1
  const start = from % size
  return { shape: whole, axis, start, size: 1 + (length % (size - start)) }
})

const labels = fc
  .record({
    shape: fc.tuple(batch, extent, extent),
    classes: channels,
    words: fc.boolean(),
    ignored: fc.constantFrom(0, 0.2, 0.9),
  })
  .filter(({ shape: pixels, classes }) => product(pixels) * classes <= maxElements)

const withLabels = (row: (typeof perPixel)['row']) =>
  labels.map((parameters) => {
    const { shape: pixels, classes, words, ignored } = parameters
    const inputs = labelled(pixels, { classes, ignored, dtype: words ? 'u32' : 'u8' })
    return row(fc.stringify(parameters), inputs)
  })

/** At least this many values a channel: with two or three its gradient cancels almost totally, as the table shows. */
const minRows = 4
const statistics = map.filter(([n, h, w]) => n * h * w >= minRows).map((whole) => ({ shape: whole }))

/** Every operator that takes shapes of its own, on any of them. */
export const operators: readonly Property[] = [
  { name: 'conv2d', cases: convolution.map((parameters) => named(convFamily.row, parameters)) },
  {
    name: 'matmul',
    cases: matrices.map(({ transpose, ...sizes }) =>
      named(matmulFamily.row, { ...sizes, transposeA: transpose === 'a', transposeB: transpose === 'b' }),
    ),
  },
  { name: 'batchedMatmul', cases: batches.map((parameters) => named(batchedMatmulFamily.row, parameters)) },
  {
    name: 'attention',
    // With a key or two its gradients cancel almost totally, as the table shows.
    cases: tokens.map(({ heads, head, ...rest }) =>
      named(attentionFamily.row, { ...rest, heads, channels: heads * head, gradientScale: 1 }),
    ),
  },
  { name: 'permute', cases: permutation.map((parameters) => named(permute.row, parameters)) },
  {
    name: 'layerNorm',
    cases: map.filter(([, , , c]) => c >= minRows).map((whole) => named(layerNormFamily.row, { shape: whole })),
  },
  {
    name: 'maxPool2d',
    cases: pooling.map((parameters) =>
      maxPool.row(fc.stringify(parameters), { ...parameters, x: normal(parameters.x) }),
    ),
  },
  { name: 'globalAveragePool', cases: map.map((parameters) => named(averagePool.row, parameters)) },
  { name: 'resizeBilinear', cases: resizing.map((parameters) => named(resize.row, parameters)) },
  { name: 'batchNormTraining', cases: statistics.map((parameters) => named(batchNorm.row, parameters)) },
  { name: 'batchNormEvaluation', cases: statistics.map((parameters) => named(batchNormEval.row, parameters)) },
  {
    name: 'softmax',
    cases: map.map((parameters) => softmaxFamily.row(fc.stringify(parameters), normal(parameters, { scale: 3 }))),
  },
  { name: 'crossEntropy', cases: withLabels(perPixel.row) },
  // Where every pixel is ignored the mean is not a number, which a row of its own covers.
  { name: 'crossEntropyMean', cases: withLabels(mean.row).filter(({ name }) => name.includes('"ignored":0}')) },
  { name: 'sum', cases: shape.map((parameters) => named(sum.row, parameters)) },
  { name: 'sumTo', cases: broadcasting.map((parameters) => named(sumTo.row, parameters)) },
  { name: 'broadcastTo', cases: broadcasting.map(([to, from]) => named(broadcastTo.row, [from, to] as const)) },
  ...(['add', 'sub', 'mul', 'div'] as const).map((op) => ({
    name: op,
    cases: fc
      .tuple(broadcasting, fc.boolean())
      .map(([[full, part], swapped]) =>
        named(binary(op, {}).row, swapped ? ([part, full] as const) : ([full, part] as const)),
      ),
  })),
  { name: 'concat', cases: concatenation.map((parameters) => named(concat.row, parameters)) },
  { name: 'slice', cases: slicing.map((parameters) => named(slice.row, parameters)) },
  { name: 'flip', cases: map.map((whole) => named(flip.row, { shape: whole })) },
]
