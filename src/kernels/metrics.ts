import { applyOne } from '../engine/graph.js'
import { defineOp, type Tensor } from '../engine/ir.js'
import { ceilDiv, flatGrid, inputBuffer, outputBuffer } from '../engine/kernel.js'
import { elements, sameShape, spec } from '../engine/shape.js'
import { arrangement } from './arrangement.js'
import * as shaders from './shaders.generated.js'
import { loadTarget, shader } from './shaders.js'

interface ConfusionAttrs {
  readonly ignoreIndex: number
}

const confusionOp = defineOp<ConfusionAttrs>('confusionMatrix', {
  shape: ([counts = spec([]), predicted = spec([]), target = spec([])]) => {
    const [rows, columns] = counts.shape
    if (counts.dtype !== 'u32' || counts.shape.length !== 2 || rows !== columns)
      throw new Error('counts must be u32 [K, K]')
    if (!sameShape(predicted.shape, target.shape)) throw new Error('prediction and target differ in shape')
    return [counts]
  },
  inplace: () => new Map([[0, 0]]),
  kernel: ({ inputs: [counts = spec([]), predicted = spec([]), target = spec([])], attrs }) => {
    const count = elements(predicted.shape)
    const grid = flatGrid(ceilDiv(count, 64))
    const source = shader(shaders.confusion_matrix, { hooks: { load_target: loadTarget(target.dtype) } })
    const reads = [inputBuffer(1), inputBuffer(2)]
    const uniforms = [count, counts.shape[0] ?? 0, attrs.ignoreIndex, grid[0]]
    const dispatch = { label: 'confusionMatrix', source, reads, writes: [outputBuffer(0)], uniforms, grid }
    return [{ name: 'atomics', dispatches: [dispatch] }]
  },
  divide: {
    arrangement,
    division: ({ inputs: [, predicted = spec([])], outputs, attrs }) => ({
      samples: predicted.shape[0] ?? 1,
      inputs: ['whole', 'divided', 'divided'],
      outputs: ['updated'],
      piece: () => ({ attrs, outputs }),
    }),
  },
})

/**
 * Adds a batch of predictions to a confusion matrix.
 *
 * @param counts u32 [K, K], rows by target, columns by prediction
 * @param predicted u32 [N, H, W]
 * @param target u8 or u32 [N, H, W]; `ignoreIndex` does not count
 * @returns the new counts, for the caller to assign
 */
export const confusionMatrix = (
  counts: Tensor,
  predicted: Tensor,
  target: Tensor,
  { ignoreIndex = 255 }: { ignoreIndex?: number } = {},
): Tensor => applyOne(confusionOp, [counts, predicted, target], { ignoreIndex })
