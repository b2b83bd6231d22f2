import { type Candidate, inputBuffer, type KernelContext, type Operand, outputBuffer } from '../engine/kernel.js'
import { elements, spec } from '../engine/shape.js'
import { batchedProduct } from './batched-panels.js'
import { canMirror, type PanelCandidate, Preparation, withMirrored, worthwhile } from './conv2d-panels.js'
import { exchangeAxes } from './exchange-axes.js'
import type { MatmulAttrs } from './matmul-kernels.js'

export type BatchedMatmulAttrs = Pick<MatmulAttrs, 'transposeA' | 'transposeB'>

/** The candidates and the kernel in panels, where it comes first if the rule prefers it. */
export const withPanel = (
  context: KernelContext<BatchedMatmulAttrs>,
  others: readonly Candidate[],
): readonly Candidate[] => withMirrored([batchedMatmulPanel(context)], others)

/** The kernel in panels, of products in float32 whose terms and columns are multiples of four; undefined for others. */
function batchedMatmulPanel({
  inputs: [a = spec([]), b = spec([])],
  outputs: [y = spec([])],
  attrs: { transposeA, transposeB },
  adapter,
}: KernelContext<BatchedMatmulAttrs>): PanelCandidate | undefined {
  const [rows = 0, columns = 0] = y.shape.slice(-2)
  const terms = a.shape.at(transposeA ? -2 : -1) ?? 0
  const batch = elements(y.shape.slice(0, -2))
  const isPossible = [a, b, y].every(({ dtype }) => dtype === 'f32') && terms % 4 === 0 && columns % 4 === 0
  if (!isPossible || !canMirror(adapter, [elements(a.shape), elements(b.shape)])) return undefined
  const preparation = new Preparation()
  const { temporaries, dispatches } = preparation
  const factor = (index: 0 | 1, isTransposed: boolean, [height, width]: readonly [number, number]): Operand => {
    if (!isTransposed) return inputBuffer(index)
    const exchanged = spec([batch, height, width])
    const to = preparation.temporary(exchanged)
    dispatches.push(exchangeAxes('transpose', [exchanged, exchanged], [batch, width, height], inputBuffer(index), to))
    return to
  }
  const factors = {
    a: factor(0, transposeA, [rows, terms]),
    b: factor(1, transposeB, [terms, columns]),
  }
  const sizes = { batch, rows, filled: rows, terms, columns }
  dispatches.push(batchedProduct('batchedMatmul', { ...factors, y: outputBuffer(0), ...sizes, added: false }, adapter))
  const candidate = { name: 'panel', temporaries, dispatches }
  // Whatever share of a panel is asked for, the tiles in workgroup memory are slower on such drivers.
  return { candidate, isBest: batch * rows * columns * terms >= worthwhile }
}
