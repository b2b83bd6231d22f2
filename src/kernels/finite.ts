import { constant } from '../engine/expr.js'
import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { type Candidate, ceilDiv, inputBuffer, type KernelContext, outputBuffer } from '../engine/kernel.js'
import { withExtensions } from '../engine/shader.js'
import { elements, isFloat } from '../engine/shape.js'
import { arrangement } from './arrangement.js'
import { pointwise } from './pointwise.js'

interface CountAttrs {
  /** The counter of each tensor. */
  readonly counters: readonly number[]
}

/**
 * Adds to counters (input 0, u32 [n]) how many elements of the tensors behind it are NaN or infinite. It looks at the bits:
 * compilers may assume that numbers are finite. The largest number of f16, 65504, counts as infinite: some drivers store it
 * for all that is larger.
 */
export const countNonFinite = defineOp<CountAttrs>('countNonFinite', {
  shape: ([counts, ...values]) => {
    if (counts?.dtype !== 'u32') throw new Error('the counters are not u32')
    if (!values.every(isFloat)) throw new Error('only f32 and f16 elements can be NaN or infinite')
    return [counts]
  },
  precision: 'wide',
  inplace: () => new Map([[0, 0]]),
  kernel: (context) => [countKernel(context)],
  divide: {
    arrangement,
    // Tensors may differ in their first axes.
    division: ({ inputs: [, value, ...others], outputs, attrs }) =>
      value && others.length === 0
        ? {
            samples: value.shape[0] ?? 1,
            inputs: ['whole', 'divided'],
            outputs: ['updated'],
            piece: () => ({ attrs, outputs }),
          }
        : undefined,
  },
})

/**
 * How many elements of each tensor are NaN or infinite: u32 [tensors].
 * @param maxBuffers storage buffers that a kernel may bind, one of which holds the counters: every adapter binds 8
 */
export function nonFiniteCounts(tensors: readonly Tensor[], maxBuffers = 8): Tensor {
  const perDispatch = maxBuffers - 1
  let counts = pointwise('zero', [constant(0)], [], { space: [tensors.length], dtypes: ['u32'] })
  for (let first = 0; first < tensors.length; first += perDispatch) {
    const group = tensors.slice(first, first + perDispatch)
    counts = applyOne(countNonFinite, [counts, ...group], { counters: group.map((_, i) => first + i) })
  }
  return counts
}

const threads = 64

/** All threads walk one tensor after the other. */
function countKernel({ inputs, attrs, adapter }: KernelContext<CountAttrs>): Candidate {
  const sizes = inputs.slice(1).map(({ shape }) => elements(shape))
  // On a CPU driver few threads occupy the cores; on a GPU as many as hide the latency of memory.
  const most = adapter.software ? 32 : 1024
  const groups = Math.max(1, Math.min(most, ceilDiv(Math.max(0, ...sizes), threads * 16)))
  const fields = sizes.map((_, i) => `size${i}: u32, counter${i}: u32`)
  const isHalf = (i: number) => inputs[i + 1]?.dtype === 'f16'
  const bindings = sizes.map(
    (_, i) => `@group(0) @binding(${i + 1}) var<storage, read> x${i}: array<${isHalf(i) ? 'f16' : 'u32'}>;`,
  )
  const bitsOf = (i: number, at: string) => `${isHalf(i) ? `bitcast<u32>(f32(x${i}[${at}]))` : `x${i}[${at}]`} & bits`
  const limitOf = (i: number) => (isHalf(i) ? 'largest_half' : 'infinity')
  // Without their sign, the bits of what is not finite are the largest; elements are counted only where there are such.
  const counting = sizes.map(
    (_, i) => `{
let size = u.size${i};
var most = 0u;
var i = first;
for (; i + 3u * stride < size; i += 4u * stride) {
  let a = max(${bitsOf(i, 'i')}, ${bitsOf(i, 'i + stride')});
  let b = max(${bitsOf(i, 'i + 2u * stride')}, ${bitsOf(i, 'i + 3u * stride')});
  most = max(most, max(a, b));
}
for (; i < size; i += stride) { most = max(most, ${bitsOf(i, 'i')}); }
if (most >= ${limitOf(i)}) {
  var bad = 0u;
  for (i = first; i < size; i += stride) { if ((${bitsOf(i, 'i')}) >= ${limitOf(i)}) { bad += 1u; } }
  atomicAdd(&counts[u.counter${i}], bad);
}
}`,
  )
  const source = withExtensions(`struct Uniforms { stride: u32, ${fields.join(', ')} }
@group(0) @binding(0) var<uniform> u: Uniforms;
${bindings.join('\n')}
@group(0) @binding(${sizes.length + 1}) var<storage, read_write> counts: array<atomic<u32>>;
const bits = 0x7fffffffu;
const infinity = 0x7f800000u;
const largest_half = 0x477fe000u;
@compute @workgroup_size(${threads})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let first = id.x;
  let stride = u.stride;
${counting.join('\n')}
}
`)
  const uniforms = [groups * threads, ...sizes.flatMap((size, i) => [size, attrs.counters[i] ?? 0])]
  const reads = sizes.map((_, i) => inputBuffer(i + 1))
  const grid = [groups, 1, 1] as const
  return {
    name: 'count',
    dispatches: [{ label: 'countNonFinite', source, reads, writes: [outputBuffer(0)], uniforms, grid }],
  }
}
