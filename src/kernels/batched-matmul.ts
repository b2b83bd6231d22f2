import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { type Candidate, ceilDiv, inputBuffer, type KernelContext, outputBuffer } from '../engine/kernel.js'
import { elements, sameShape, showShape, spec } from '../engine/shape.js'
import { arrangement, bySample } from './arrangement.js'
import type { BatchedMatmulAttrs } from './batched-matmul-panels.js'
import * as shaders from './shaders.generated.js'
import { shader } from './shaders.js'
import { storedType } from './views.js'

/** WebGPU's limit on a grid's third dimension. */
const maxBatch = 65535

function tile(
  { inputs: [a = spec([]), b = spec([])], outputs: [y = spec([])], attrs }: KernelContext<BatchedMatmulAttrs>,
  [R, C]: readonly [number, number],
): Candidate {
  const [m = 0, n = 0] = y.shape.slice(-2)
  const k = a.shape.at(attrs.transposeA ? -2 : -1) ?? 0
  const [TY, TX] = [8, 8]
  const [rows, columns] = [TY * R, 4 * TX * C]
  const constants = { TX, TY, R, C, TRANSPOSE_A: attrs.transposeA, TRANSPOSE_B: attrs.transposeB }
  const aliases = { A: storedType(a), B: storedType(b), U: storedType(y) }
  const dispatch = {
    label: 'batchedMatmul',
    source: shader(shaders.batched_matmul, { constants, aliases }),
    reads: [inputBuffer(0), inputBuffer(1)],
    writes: [outputBuffer(0)],
    uniforms: [m, k, n],
    grid: [ceilDiv(m, rows), ceilDiv(n, columns), elements(y.shape.slice(0, -2))] as const,
  }
  return { name: `workgroup ${rows}x${columns}`, dispatches: [dispatch] }
}

const batchedMatmulOp = defineOp<BatchedMatmulAttrs>('batchedMatmul', {
  precision: 'half',
  // The first axis of two matrices is none of a batch.
  divide: {
    arrangement,
    division: (call) =>
      (call.outputs[0]?.shape.length ?? 0) > 2 ? bySample<BatchedMatmulAttrs>().division(call) : undefined,
  },
  shape: ([a = spec([]), b = spec([])], { transposeA, transposeB }) => {
    const batch = a.shape.slice(0, -2)
    if (a.shape.length < 2 || !sameShape(batch, b.shape.slice(0, -2))) {
      throw new Error(`expects matrices in equal batches, not ${showShape(a.shape)} and ${showShape(b.shape)}`)
    }
    if (elements(batch) > maxBatch) throw new Error(`multiplies ${maxBatch} matrices at most, not ${elements(batch)}`)
    const [k, m = 0] = transposeA ? a.shape.slice(-2) : a.shape.slice(-2).reverse()
    const [n = 0, k2] = transposeB ? b.shape.slice(-2) : b.shape.slice(-2).reverse()
    if (k !== k2) throw new Error(`${k} columns meet ${k2} rows`)
    return [spec([...batch, m, n])]
  },
  vjp: ({ inputs: [a, b], attrs: { transposeA, transposeB }, grads: [dy], wanted }) => {
    if (!a || !b || !dy) return []
    const da = () =>
      transposeA
        ? batchedMatmul(b, dy, { transposeA: transposeB, transposeB: true })
        : batchedMatmul(dy, b, { transposeB: !transposeB })
    const db = () =>
      transposeB
        ? batchedMatmul(dy, a, { transposeA: true, transposeB: transposeA })
        : batchedMatmul(a, dy, { transposeA: !transposeA })
    return [wanted[0] ? da() : undefined, wanted[1] ? db() : undefined]
  },
  kernel: async (context) => {
    const [m = 0, n = 0] = context.outputs[0]?.shape.slice(-2) ?? []
    const tiles = [tile(context, [4, 1]), tile(context, [8, 2])]
    if (Math.min(m, n) > 128) tiles.reverse()
    if (!context.adapter.software) return tiles
    return (await import('./batched-matmul-panels.js')).withPanel(context, tiles)
  },
})

/**
 * The products of matrices, pair by pair of two batches of equal shape.
 *
 * @param a [..., M, K], or [..., K, M] with `transposeA`
 * @param b [..., K, N], or [..., N, K] with `transposeB`
 * @returns [..., M, N]
 */
export const batchedMatmul = (
  a: Tensor,
  b: Tensor,
  { transposeA = false, transposeB = false }: { transposeA?: boolean; transposeB?: boolean } = {},
): Tensor => applyOne(batchedMatmulOp, [a, b], { transposeA, transposeB })
